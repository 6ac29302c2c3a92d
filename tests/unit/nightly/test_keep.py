# SPDX-License-Identifier: GPL-2.0-only
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.cache import size_of
from lab.config.nightly import Keep
from lab.history.model import CellKey, Change, News
from lab.nightly import keep as module
from lab.nightly.keep import Gone, begun_in, clean, clean_runs
from lab.nightly.night import Night
from lab.page.running import NIGHT as FILE

DAY = 86400
NOW = time.mktime(time.strptime("2026-11-28", "%Y-%m-%d"))
MUCH = Keep(nights="30d", size="20G")
BLOCK = 1 << 20  # bytes of a night


def name_of(days: float, now: float = NOW) -> str:
    """That of a night so many days ago."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now - days * DAY))


def fill(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "console.log").write_bytes(b"x" * BLOCK)


def a_night(nights: Path, days: float, *, ended: bool = True) -> Path:
    night = Night(name_of(days), "2026-11-28T21:00:00Z", 60.0, ended="then" if ended else "")
    fill(nights / night.name / "cells" / "a")
    night.save(nights / night.name / FILE)
    return nights / night.name


def a_run(runs: Path, days: float, *, written: float | None = None) -> Path:
    run = runs / f"{name_of(days)}-1"
    fill(run)
    when = NOW - (days if written is None else written) * DAY
    os.utime(run, (when, when))
    return run


def paths(gone: Sequence[Gone]) -> list[Path]:
    return [each.path for each in gone]


def left(folder: Path) -> set[Path]:
    return set(folder.iterdir())


def test_nights_go_by_their_age(tmp_path: Path) -> None:
    young, old, older = (a_night(tmp_path, days) for days in (29, 31, 32))
    gone = clean(tmp_path, MUCH, NOW)
    assert paths(gone) == [old, older]
    assert all(BLOCK <= each.bytes < 2 * BLOCK for each in gone)
    assert left(tmp_path) == {young}


def test_the_newest_have_the_room_that_there_is(tmp_path: Path) -> None:
    nights = [a_night(tmp_path, days) for days in (0, 1, 2, 3)]
    assert paths(clean(tmp_path, Keep(size="2.5M"), NOW)) == nights[2:]


def test_the_newest_that_ended_stays_whatever_its_age_and_size(tmp_path: Path) -> None:
    newest, older = a_night(tmp_path, 100), a_night(tmp_path, 101)
    assert paths(clean(tmp_path, Keep(nights="1d", size="1K"), NOW)) == [older]
    assert left(tmp_path) == {newest}


def test_the_one_that_runs_stays_and_the_last_that_ended(tmp_path: Path) -> None:
    running = a_night(tmp_path, 50, ended=False)
    cut, ended = a_night(tmp_path, 51, ended=False), a_night(tmp_path, 52)
    damaged = a_night(tmp_path, 53)
    (damaged / FILE).write_text("{")
    assert paths(clean(tmp_path, Keep(size="1K"), NOW)) == [cut, damaged]
    assert left(tmp_path) == {running, ended}


def test_what_is_no_night_is_not_touched(tmp_path: Path) -> None:
    elsewhere = a_night(tmp_path / "elsewhere", 80)
    nights = tmp_path / "nights"
    a_night(nights, 0)
    (nights / name_of(90)).symlink_to(elsewhere)
    (nights / "00000000T000000Z").mkdir()
    (nights / "mine").mkdir()
    (nights / "index.html").touch()
    before = left(nights)
    assert clean(nights, Keep(nights="1d", size="1K"), NOW) == []
    assert left(nights) == before


def test_no_link_is_followed_out_of_the_folder(tmp_path: Path) -> None:
    treasure = tmp_path / "elsewhere"
    fill(treasure)
    nights = tmp_path / "nights"
    a_night(nights, 0)
    old = a_night(nights, 40)
    (old / "cells" / "out").symlink_to(treasure)
    assert paths(clean(nights, MUCH, NOW)) == [old]
    assert (treasure / "console.log").stat().st_size == BLOCK


def test_no_folder_is_nothing_to_do(tmp_path: Path) -> None:
    assert clean(tmp_path / "nights", MUCH, NOW) == []
    assert clean_runs(tmp_path / "runs", MUCH, NOW) == []


def test_a_night_that_somebody_else_removes_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_night(tmp_path, 0)
    first, second = a_night(tmp_path, 40), a_night(tmp_path, 41)

    def and_then(path: Path) -> int:
        size = size_of(path)
        if path == first:
            shutil.rmtree(path, ignore_errors=True)
        return size

    monkeypatch.setattr(module, "size_of", and_then)
    assert paths(clean(tmp_path, MUCH, NOW)) == [second]


def test_an_interrupted_removal_is_brought_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, old = a_night(tmp_path, 0), a_night(tmp_path, 40)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clean(tmp_path, MUCH, NOW)
    assert not old.exists()  # not half of it either
    assert clean(tmp_path, MUCH, NOW) == []
    assert left(tmp_path) == {newest}


def test_what_is_not_freed_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_night(tmp_path, 0)
    old = a_night(tmp_path, 40)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    assert clean(tmp_path, MUCH, NOW) == [Gone(old, 0)]


def test_runs_go_but_the_latest_and_what_may_still_go_on(tmp_path: Path) -> None:
    runs = [a_run(tmp_path, days) for days in (40, 41, 42)]
    a_run(tmp_path, 43, written=0.5)
    (tmp_path / "latest").symlink_to(runs[0].name)
    assert paths(clean_runs(tmp_path, MUCH, NOW)) == runs[1:]
    assert (tmp_path / "latest").is_dir()


def test_runs_go_by_their_size(tmp_path: Path) -> None:
    runs = [a_run(tmp_path, days) for days in (2, 3, 4)]
    assert paths(clean_runs(tmp_path, Keep(size="1.5M"), NOW)) == runs[1:]


def test_what_is_broken_since_a_night_that_went_is_told(tmp_path: Path) -> None:
    """Its evidence of tonight stays: tonight's folder does."""
    tonight, old = name_of(0), name_of(40)
    cell = CellKey("v6.12", "vtd", "contract")
    news = [
        News(Change.STILL, cell, since=old, nights=9, evidence=f"{tonight}/cells/a/tests/b"),
        News(Change.STILL, cell, since=name_of(1), nights=2),
        News(Change.BROKEN, cell, since=tonight),
    ]
    assert begun_in([Gone(tmp_path / old, 1)], news) == news[:1]
