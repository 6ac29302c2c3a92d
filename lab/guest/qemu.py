# SPDX-License-Identifier: GPL-2.0-only
"""The installed QEMU: its version, its devices, and what it calls the properties of an IOMMU."""

import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.cache import Cache
from lab.errors import InfrastructureError

BINARY = "qemu-system-x86_64"
OLDEST = (7, 2)  # Debian 12's; older ones were never tried
# No old system call, no other user, no program, no other priority: what breaks out of a guest finds
# itself in a process that can do little.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Qemu:
    """One QEMU binary and what it can do. `unconfined` is why it cannot filter its own system calls
    here, the empty string where it can."""

    path: Path
    version: tuple[int, ...]
    description: str
    devices: frozenset[str]
    iommu_properties: frozenset[str]
    unconfined: str = ""

    def iommu_property(self, *names: str) -> str | None:
        """The first of `names` that this QEMU's intel-iommu has: they change between versions."""
        return next((name for name in names if name in self.iommu_properties), None)


def find(given: Path | None, cache: Cache) -> Qemu:
    """Ask QEMU what it can do; the answer is kept for as long as the binary is the same.

    Raises InfrastructureError when there is none, when it does not run, or when it is too old.
    """
    found = shutil.which(given or BINARY)
    if not found:
        raise InfrastructureError(
            f"QEMU is missing: {given or BINARY} is no program",
            hint="install qemu-system-x86 (`./vfio-lab` does it), or name one with --qemu PATH",
        )
    path = Path(found).resolve()
    status = path.stat()
    identity = {"qemu": str(path), "size": status.st_size, "mtime": status.st_mtime_ns}
    known = cache.recall("qemu", identity)
    if known is None:
        description = _ask(path, "-version").partition("\n")[0]
        _version(description)  # what is no QEMU is asked no more, and not remembered
        known = {
            "description": description,
            "devices": re.findall(r'^name "([^"]+)"', _ask(path, "-device", "help"), re.MULTILINE),
            "iommu": re.findall(
                r"^  ([\w-]+)=", _ask(path, "-device", "intel-iommu,help"), re.MULTILINE
            ),
        }
        cache.remember("qemu", identity, known)
    version = _version(known["description"])
    if version < OLDEST:
        raise InfrastructureError(
            f"{path} is too old: {known['description']}",
            hint=f"expected QEMU {'.'.join(map(str, OLDEST))} or later (8.0 for igb)",
        )
    return Qemu(
        path,
        version,
        known["description"],
        frozenset(known["devices"]),
        frozenset(known["iommu"]),
        _unconfined(path, identity, cache),
    )


def _unconfined(path: Path, identity: Mapping[str, object], cache: Cache) -> str:
    """One may be built without seccomp, and a host's kernel without it, too: it is tried."""
    inputs = {**identity, "host": platform.release(), "sandbox": SANDBOX}
    known = cache.recall("qemu-sandbox", inputs)
    if known is None:
        try:
            _ask(path, "-sandbox", SANDBOX, "-machine", "none", "-device", "help")
        except InfrastructureError as error:
            if not isinstance(error.__cause__, subprocess.CalledProcessError):
                raise  # it was no answer, such as none in time: guests are not unconfined for that
            known = {"obstacle": error.message.rpartition("does not run: ")[2]}
        else:
            known = {"obstacle": ""}
        cache.remember("qemu-sandbox", inputs, known)
    obstacle: str = known["obstacle"]
    return obstacle


def _version(description: str) -> tuple[int, ...]:
    match = re.search(r"version (\d+(?:\.\d+)+)", description)
    if not match:
        raise InfrastructureError(
            f"this is no QEMU: it says '{description}'",
            hint=f"expected a {BINARY}; name one with --qemu PATH",
        )
    return tuple(int(part) for part in match[1].split("."))


def _ask(path: Path, *question: str) -> str:
    try:
        return subprocess.run(
            [path, *question],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise InfrastructureError(
            f"`{path} {' '.join(question)}` does not run: {said.strip()}",
            hint="install qemu-system-x86, or name another QEMU with --qemu PATH",
        ) from error
