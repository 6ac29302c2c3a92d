# SPDX-License-Identifier: GPL-2.0-only
"""A night's own account: what of it has no verdicts, what runs, and whether that has changed since
one last looked."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import ConfigurationError
from lab.history.model import CellKey
from lab.results.folder import RESULTS, RunFolder
from lab.results.record import Written
from lab.results.verdict import Verdict

NIGHT, NEWS = "night.json", "news.json"  # of `lab.nightly`
_WATCHED = (NIGHT, NEWS, f"cells/*/{RESULTS}")


@dataclass(frozen=True)
class Missing(Written):
    """A cell that was planned and has no verdicts: its state in a word, and why."""

    cell: CellKey
    state: str
    why: str = ""


@dataclass(frozen=True)
class Account(Written):
    """What a night says of itself: its cells, and its trouble that belongs to none."""

    cells: Sequence[Missing] = ()
    trouble: Sequence[str] = ()

    @classmethod
    def of(cls, folder: Path) -> "Account":
        """That in a night's folder; an empty one where there is none."""
        try:
            return cls.from_json(json.loads((folder / NIGHT).read_text(encoding="utf-8")))
        except (OSError, ValueError, ConfigurationError):
            return cls()


@dataclass(frozen=True)
class Running:
    """A run that has not ended: its folder's name, and what it has found so far."""

    name: str
    counts: Mapping[Verdict, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def running(nights: Path, night: str, known: Collection[str]) -> Iterator[Running]:
    """The runs of a night that are under way. `known` are folders of those that history has,
    relative to the folder of all nights."""
    for file in sorted((nights / night).glob(f"cells/*/{RESULTS}")):
        folder = file.parent
        if folder.relative_to(nights).as_posix() in known:
            continue
        try:
            record = RunFolder(folder).read()
        except ConfigurationError:
            continue  # another version of the lab wrote it
        if not record.finished:
            yield Running(folder.name, record.counts())


def state(nights: Path, night: str) -> str:
    """A word that is another one as soon as the night has something new to show."""
    digest = hashlib.sha256()
    for pattern in _WATCHED:
        for file in sorted((nights / night).glob(pattern)):
            with suppress(FileNotFoundError):  # a run that makes way for the next
                found = file.stat()
                digest.update(f"{file} {found.st_mtime_ns} {found.st_size}\n".encode())
    return digest.hexdigest()[:16]
