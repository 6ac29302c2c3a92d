# SPDX-License-Identifier: GPL-2.0-only
"""The guests of this user that live and have doors (`lab.guest.doors`), and how they are found.

Each has a file under the user's state, named by its QEMU's process id, for as long as it lives.
What a killed lab left there is removed by whoever looks.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lab import files
from lab.errors import ConfigurationError
from lab.results.folder import runs


@dataclass(frozen=True)
class Living:
    """A guest with doors."""

    pid: int  # its QEMU's process, and its name
    born: int  # when that was started, in clock ticks since the host's boot
    folder: Path
    port: int  # of its SSH server, on 127.0.0.1
    host_key: str  # which that one shows, in hexadecimal digits
    machine: str
    release: str
    bzimage: Path
    stretch: float  # what its kernel makes deadlines longer by
    devices: Mapping[str, str]  # those under test: role to PCI address
    why: str = ""  # it is entered unasked: held, or a person's own; "" while it is under test

    @property
    def lives(self) -> bool:
        """Whether its QEMU is there, and no other process of that number."""
        return born(self.pid) == self.born

    def __str__(self) -> str:
        return f"guest {self.pid} ({self.release} on {self.machine})"


def born(pid: int) -> int | None:
    """When a process was started; None where there is none (proc_pid_stat(5), field 22)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _registry() -> Path:
    return runs().parent / "living"


def _write(guest: Living) -> None:
    registry = _registry()
    registry.mkdir(parents=True, mode=0o700, exist_ok=True)
    text = json.dumps(asdict(guest), default=str)
    files.replace(registry / f"{guest.pid}.json", text, mode=0o600)


@contextmanager
def announced(guest: Living) -> Iterator[None]:
    """It is found as long as the block lasts."""
    _write(guest)
    try:
        yield
    finally:
        (_registry() / f"{guest.pid}.json").unlink(missing_ok=True)


@contextmanager
def free_to_enter(pid: int, why: str) -> Iterator[Living]:
    """That guest is entered by who names none, as long as the block lasts. `why` says for what it
    stands there. Raises ConfigurationError where it has no doors."""
    before = _read(pid)
    if before is None:
        raise ConfigurationError(f"guest {pid} has no doors")
    now = replace(before, why=why)
    _write(now)
    try:
        yield now
    finally:
        _write(before)


def _read(pid: int) -> Living | None:
    try:
        said: dict[str, Any] = json.loads((_registry() / f"{pid}.json").read_text())
        return Living(**{**said, "folder": Path(said["folder"]), "bzimage": Path(said["bzimage"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # it has just ended, or another version of the lab wrote it


def living() -> list[Living]:
    """All of them, the newest first."""
    found: list[Living] = []
    for file in _registry().glob("*.json"):
        guest = _read(int(file.stem)) if file.stem.isdigit() else None
        if guest and guest.lives:
            found.append(guest)
        else:
            with contextlib.suppress(OSError):
                file.unlink()
    return sorted(found, key=lambda guest: guest.born, reverse=True)


def chosen(name: str | None, among: Sequence[Living]) -> Living | None:
    """The one that is named by its number, its folder, or its run's folder or name; without a name
    the newest that is free to enter, or None. Raises ConfigurationError."""
    if name is None:
        return next((guest for guest in among if guest.why), None)
    found = [guest for guest in among if _is_meant(guest, name)]
    if len(found) > 1:
        found = [guest for guest in found if guest.why] or found
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{guest.pid} in {guest.folder}" for guest in among) or "none"
    raise ConfigurationError(
        f"{name} is {len(found) or 'no'} guest{'s' if found else ''} that can be entered",
        hint=f"`vfio-lab guests` lists them; there are: {there}",
    )


def _is_meant(guest: Living, name: str) -> bool:
    if name.isdigit():
        return guest.pid == int(name)
    parents = (guest.folder, *guest.folder.parents)
    if name == parents[2].name:  # RUN/guests/001
        return True
    place = Path(os.path.realpath(Path(name).expanduser()))
    return place in [Path(os.path.realpath(parent)) for parent in parents[:3:2]]
