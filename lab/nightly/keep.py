# SPDX-License-Identifier: GPL-2.0-only
"""Old nights and runs are removed; their verdicts stay in the history."""

import calendar
import contextlib
import re
import shutil
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.cache import size_of
from lab.config.nightly import Keep
from lab.errors import ConfigurationError
from lab.history.model import Change, News
from lab.nightly.night import read
from lab.page.running import NIGHT
from lab.results.folder import LATEST, STAMP
from lab.units import bytes_in, seconds_in

_NIGHT = re.compile(r"\d{8}T\d{6}Z")
_RUN = re.compile(rf"{_NIGHT.pattern}-\d+")
_DOOMED = ".doomed-"  # before the name of what is being removed: nobody finds half of it
_AT_WORK = 86400.0  # seconds since it was last written to in which a run may still go on


@dataclass(frozen=True)
class Gone:
    """What was removed; `bytes` are those that it freed."""

    path: Path
    bytes: int


def clean(folder: Path, keep: Keep, now: float) -> list[Gone]:
    """Remove the nights in `folder` that `keep` does not keep; `now` is in seconds since the epoch.

    Neither the newest goes, which may run or be resumed, nor the newest that came to its end.
    """
    found = _in(folder, _NIGHT)
    spared = [*found[:1], *[night for night in found if _has_ended(night)][:1]]
    return _clean(folder, found, spared, keep, now)


def clean_runs(folder: Path, keep: Keep, now: float) -> list[Gone]:
    """The same for the runs that people started. The latest stays, and what may still go on."""
    found = _in(folder, _RUN)
    spared = [run for run in found if _is_at_work(run, now)]
    with contextlib.suppress(OSError):
        spared.append(folder / (folder / LATEST).readlink())
    return _clean(folder, found, spared, keep, now)


def begun_in(gone: Collection[Gone], news: Iterable[News]) -> list[News]:
    """Of the news what is still broken since one of these nights: its first evidence went."""
    names = {each.path.name for each in gone}
    return [each for each in news if each.change is Change.STILL and each.since in names]


def _in(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """The newest first. A link is none: what it names lies elsewhere."""
    try:
        named = [path for path in folder.iterdir() if names.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    dated = [path for path in named if _started(path) is not None]
    found = [path for path in dated if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda path: path.name, reverse=True)


def _clean(
    folder: Path, found: Sequence[Path], spared: Collection[Path], keep: Keep, now: float
) -> list[Gone]:
    room, oldest = bytes_in(keep.size), now - seconds_in(keep.nights)
    total = 0
    doomed = []
    for path in found:
        total += size_of(path)
        if path not in spared and (total > room or (_started(path) or 0.0) < oldest):
            doomed.append(path)
    for left in folder.glob(f"{_DOOMED}*"):  # by a removal that was interrupted
        _remove(left)
    return [gone for path in doomed if (gone := _removed(path))]


def _removed(path: Path) -> Gone | None:
    """None where it was gone already, or is not the user's to remove."""
    size = size_of(path)
    out_of_sight = path.with_name(f"{_DOOMED}{path.name}")
    try:
        path.rename(out_of_sight)
    except OSError:
        return None
    _remove(out_of_sight)
    return Gone(path, size - size_of(out_of_sight))


def _remove(path: Path) -> None:
    """What cannot be removed stays for the next time."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _started(path: Path) -> float | None:
    """Of its name, in seconds since the epoch; None where that is no time."""
    try:
        return calendar.timegm(time.strptime(path.name.partition("-")[0], STAMP))
    except ValueError:
        return None


def _has_ended(night: Path) -> bool:
    try:
        return bool(read(night / NIGHT).ended)
    except ConfigurationError:
        return False


def _is_at_work(run: Path, now: float) -> bool:
    # its results are replaced as it goes on, which the folder's time shows
    try:
        return now - run.stat().st_mtime < _AT_WORK
    except FileNotFoundError:
        return False
