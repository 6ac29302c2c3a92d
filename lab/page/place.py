# SPDX-License-Identifier: GPL-2.0-only
"""What a page's links name: a cell of the matrix, a cell of its table, a night, a file."""

import os
import time
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import quote

from lab.contract import Mode
from lab.history.model import CellKey
from lab.results.folder import STAMP
from lab.results.layout import heading


@cache
def slug_of(cell: CellKey) -> str:
    """`v6.12/vtd/contract`; with a series `v6.12:vfio-fixes/vtd/contract`."""
    series = f":{_quoted(cell.series)}" if cell.series else ""
    return f"{_quoted(cell.kernel)}{series}/{_quoted(cell.machine)}/{_quoted(cell.suite)}"


@dataclass(frozen=True)
class Place:
    """A cell of a table: what is tested, and in which mode, in a cell of the matrix."""

    cell: CellKey
    subject: str
    mode: Mode | None

    @cached_property
    def slug(self) -> str:
        """`v6.12/vtd/contract/OWN-3/iommufd`."""
        return f"{slug_of(self.cell)}/{_quoted(self.subject)}/{self.mode or heading(None)}"


def href(path: str, night: str) -> str:
    """The link from a night's page to a file, given relative to the folder of all nights."""
    return quote(os.path.relpath(path, night))


def file_in(folder: Path, path: str) -> Path | None:
    """The file at `path` below a folder, all links followed; None where there is none, or where
    it lies elsewhere: a run's words and links are not believed."""
    try:
        found = (folder / path).resolve(strict=True)
    except (OSError, ValueError):  # ValueError: a NUL
        return None
    return found if found.is_relative_to(folder.resolve()) and found.is_file() else None


@cache
def moment(night: str, form: str = "%a %d %b %Y, %H:%M UTC") -> str:
    """When a night began, of its name; the name itself where that is no time."""
    try:
        return time.strftime(form, time.strptime(night, STAMP))
    except ValueError:
        return night


def lasted(seconds: float) -> str:
    """`5 h 12 min`, `12 min 4 s`, `3.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


@cache
def _quoted(word: str) -> str:
    """A word of a link, which is told apart from its neighbours whatever stands in it."""
    return quote(word, safe="+@")
