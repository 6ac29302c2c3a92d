# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab splats`: what a kernel complained of, in any log that somebody has."""

import gzip
import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import kernel
from lab.cache import Cache
from lab.config import Lab
from lab.errors import ConfigurationError
from lab.progress import Progress
from lab.splats import Splat, find
from lab.splats.symbols import Symbols
from lab.text import printable

_STDIN = "-"
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Log:
    """What was found in a file; `error` is why it could not be read."""

    file: str
    splats: tuple[Splat, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        splats = [
            {
                "kind": splat.kind.value,
                "title": splat.title,
                "first": splat.first,
                "last": splat.last,
                "headline": splat.headline,
                "text": splat.text,
            }
            for splat in self.splats
        ]
        return {"file": self.file, "splats": splats, "error": self.error}


def show_splats(
    files: Sequence[str], symbols: Symbols | None, *, texts: bool, as_json: bool
) -> int:
    """Print what is in each file, or in standard input; returns the exit status.

    With `symbols` each report's text has file and line behind every address. Raises
    InfrastructureError where these cannot be found out.
    """
    logs = [_decoded(read(name), symbols) for name in files or [_STDIN]]
    if as_json:
        print(json.dumps([log.to_json() for log in logs], indent=1))
    for log in logs:
        if log.error:
            print(f"vfio-lab: {log.file}: {log.error}", file=sys.stderr)
        for splat in log.splats if not as_json else ():
            place = f"{log.file}:{splat.first}-{splat.last}"
            print(printable(f"{place}: {splat.kind}: {splat.title}"))
            if texts:
                print(printable(splat.text), end="\n\n")
    if any(log.error for log in logs):
        return 2
    return 1 if any(log.splats for log in logs) else 0


def read(name: str) -> Log:
    """The reports in a file, which may be compressed by gzip, or in standard input."""
    try:
        data = sys.stdin.buffer.read() if name == _STDIN else Path(name).read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        return Log(name, error=getattr(error, "strerror", None) or str(error))
    return Log(name, tuple(find(data.decode(errors="replace"))))


def symbols_of(
    lab_folder: Path | None, spec: str | None, vmlinux: Path | None, modules: Path | None
) -> Symbols | None:
    """Those of a kernel of the lab, or of a file; None where neither is asked for.

    Raises ConfigurationError where there is no vmlinux, and as `kernel.prepare` does.
    """
    if spec and vmlinux:
        raise ConfigurationError("--kernel and --vmlinux are two ways to name one file")
    if spec:
        made = kernel.prepare(spec, Lab.find(lab_folder), Cache.of_user(), Progress())
        vmlinux, modules = made.vmlinux, modules or made.symbols
        if not vmlinux:
            raise ConfigurationError(
                f"{spec} has no vmlinux", hint="name the file that was built with it: --vmlinux"
            )
    if modules and not vmlinux:
        raise ConfigurationError("--modules belongs to --vmlinux or --kernel")
    return Symbols(vmlinux, modules) if vmlinux else None


def _decoded(log: Log, symbols: Symbols | None) -> Log:
    if not symbols:
        return log
    splats = (replace(splat, text=symbols.decode(splat.text)) for splat in log.splats)
    return replace(log, splats=tuple(splats))
