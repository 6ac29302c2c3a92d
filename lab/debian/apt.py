# SPDX-License-Identifier: GPL-2.0-only
"""apt, told to keep to itself, and what it says."""

import re
from pathlib import Path

from lab.errors import InfrastructureError
from lab.proc import CommandError
from lab.progress import Step

# One address that does not answer costs the timeout; a name may have an IPv4 and an IPv6 one.
_NETWORK = {
    "Acquire::Retries": "1",
    "Acquire::http::Timeout": "6",
    "Acquire::https::Timeout": "6",
}
_MIRROR_HINT = "look at debian.mirror in lab.yaml, and at this host's network and proxy"


class ListsTooOld(InfrastructureError):
    """The mirror no longer has a file that the lists name; new lists name another."""


def private(root: Path, state: Path) -> list[str]:
    """Those that make apt the lab's own: `root` has its lists, `state` all else."""
    settings = {
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "",
        "APT::Get::List-Cleanup": "false",  # the lists of other suites lie beside these
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Debug::NoLocking": "true",
        "Dir::State": state,
        "Dir::State::Lists": root / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
        "Dir::Cache::pkgcache": "pkgcache.bin",
        "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        **_NETWORK,
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def show(line: str, total: float, step: Step) -> None:
    """How far a download of `total` megabytes is, from a line of APT::Status-Fd."""
    if line.startswith("dlstatus:"):
        share = float(line.split(":")[2]) / 100
        step.advance(round(share * total), round(total), "MB")


def said(error: CommandError) -> str:
    """apt's own words: its first error, else its first warning."""
    for mark in ("E:", "W:"):
        for line in error.lines:
            if line.startswith(mark):
                return line
    return error.message


def trouble(what: str, error: CommandError) -> InfrastructureError:
    """The error for what apt did not do, in its own words."""
    kind = ListsTooOld if is_gone(error) else InfrastructureError
    answer = next((line.strip() for line in error.lines if re.match(r"\s+[45]\d\d  ", line)), "")
    return kind(f"{what}: {said(error)}{answer and f' ({answer})'}", hint=_MIRROR_HINT)


def is_gone(error: CommandError) -> bool:
    """Whether the mirror has no such file."""
    return any(re.search(r"\s404\s", line) for line in error.lines)
