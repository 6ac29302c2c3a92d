# SPDX-License-Identifier: GPL-2.0-only
"""What a night ends with: every way of telling it, and an exit status."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.config.nightly import Nightly
from lab.history.model import Change, News
from lab.nightly import morning
from lab.nightly.morning import Morning, tell
from lab.nightly.night import Night, State
from lab.progress import Progress
from lab.results.verdict import Verdict
from tests.unit.nightly.conftest import BUGS, CONTRACT, Script, Stage, a_run

KEPT, BROKEN = Verdict.KEPT, Verdict.BROKEN


def told(stage: Stage, night: Night) -> Morning:
    progress = Progress(Console(file=io.StringIO()))
    nightly = Nightly(suites=("contract", "bugs"), link="https://lab.example/nights/")
    return tell(stage.lab, nightly, night, stage.history, progress)


def a_night(stage: Stage, *verdicts: Verdict) -> Night:
    night = stage.night(CONTRACT, BUGS)
    says = {CONTRACT: [a_run(*verdicts)], BUGS: [a_run(KEPT, cell=BUGS)]}
    stage.conduct(night, Script(says), again=0)
    return night


def test_it_is_told_in_every_way(stage: Stage) -> None:
    night = a_night(stage, KEPT, BROKEN)
    found = told(stage, night)
    (news,) = json.loads((night.folder / "news.json").read_text())
    assert (news["change"], news["test"]) == ("newly broken", "tests/contract/test_x.py::test_1")
    assert found.page == night.folder / "index.html"
    assert "test_1" in found.page.read_text()
    assert "1 newly broken" in (night.folder / "mail.txt").read_text()
    assert f"https://lab.example/nights/{night.name}" in (night.folder / "mail.txt").read_text()
    xml = (night.folder / "junit.xml").read_text()
    assert 'testsuite name="v6.12--vtd--contract: contract"' in xml
    assert 'testsuites name="vfio-lab" time="120.000" tests="3" failures="1"' in xml
    assert "not ok" in (night.folder / "night.ktap").read_text()
    assert len(json.loads((night.folder / "kcidb.json").read_text())["tests"]) >= 3
    assert found.status == 1


def test_one_way_that_fails_silences_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Path:
        raise ZeroDivisionError("a fault in the page")

    monkeypatch.setattr(morning, "write_pages", fail)
    night = a_night(stage, KEPT)
    found = told(stage, night)
    assert "a fault in the page" in night.trouble[0]
    assert (night.folder / "junit.xml").exists()
    assert "a fault in the page" in (night.folder / "mail.txt").read_text()
    assert found.status == 2, "somebody has to mend the lab"


def test_a_bisection_that_fails_silences_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> tuple[News, ...]:
        raise ValueError("'{' is not in list")

    monkeypatch.setattr(morning, "bisected", fail)
    night = a_night(stage, KEPT, BROKEN)
    found = told(stage, night)
    assert [each.change for each in found.news] == [Change.BROKEN]
    assert "'{' is not in list" in night.trouble[0]
    assert "1 newly broken" in (night.folder / "mail.txt").read_text()


def test_a_run_that_somebody_has_removed_silences_no_other(stage: Stage) -> None:
    night = a_night(stage, KEPT, BROKEN)
    shutil.rmtree(night.folder / "cells" / "v6.12--vtd--bugs")
    found = told(stage, night)
    assert "v6.12--vtd--bugs" in night.trouble[0]
    assert "1 newly broken" in (night.folder / "mail.txt").read_text()
    assert found.status == 2


@pytest.mark.parametrize(
    ("verdicts", "status"), [((KEPT,), 0), ((KEPT, BROKEN), 1), ((Verdict.LAB_ERROR,), 2)]
)
def test_its_status_is_that_of_its_worst_cell(
    stage: Stage, verdicts: tuple[Verdict, ...], status: int
) -> None:
    assert told(stage, a_night(stage, *verdicts)).status == status


def test_what_there_was_no_time_for_is_nobodys_fault(stage: Stage) -> None:
    night = stage.night(CONTRACT, BUGS, budget=100.0)
    night.cells[1].seconds = 1000.0
    stage.conduct(night, Script({CONTRACT: [a_run(KEPT)]}))
    found = told(stage, night)
    assert [each.state for each in night.cells] == [State.TESTED, State.LEFT]
    assert (found.status, found.news) == (0, ())
