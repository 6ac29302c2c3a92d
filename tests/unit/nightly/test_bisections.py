# SPDX-License-Identifier: GPL-2.0-only
"""What broke on a branch is looked for between the last good night's commit and tonight's."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.errors import InfrastructureError
from lab.history.model import CellRun, Change, News
from lab.nightly import bisections
from lab.nightly.bisections import bisected
from lab.nightly.night import Night
from lab.proc import CommandError
from lab.progress import Progress
from lab.results.verdict import Verdict
from tests.unit.nightly.conftest import CONTRACT, NEXT, Script, Stage, a_run

GOOD, BAD = "0123456789ab", "ba9876543210ba9876543210ba9876543210dead"
BEFORE = "20261127T210000Z"
TEST = "tests/contract/test_x.py::test_0"
BROKEN = News(Change.BROKEN, NEXT, TEST, before=Verdict.KEPT, before_night=BEFORE)


class Commands:
    """In place of `lab.proc.run`: what was to be run, and what that answers."""

    def __init__(self) -> None:
        self.argvs: list[Sequence[str]] = []
        self.answer: Sequence[str] | Exception = ["… bisect", "{", ' "found": "it was C"', "}"]

    def __call__(self, argv: Sequence[str], **_: Any) -> Sequence[str]:
        self.argvs.append(argv)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    monkeypatch.setattr(bisections, "run", commands)
    return commands


def night_of(stage: Stage, source: Mapping[str, str], budget: float = 3600.0) -> Night:
    """One in which a test of the branch broke, the night after it was kept at GOOD."""
    run = CellRun(BEFORE, NEXT, 0, "", "", 60.0, 0, source=f"/linux at {GOOD}")
    stage.history.add(run, a_run(Verdict.KEPT, cell=NEXT))
    night = stage.night(NEXT, budget=budget)
    record = a_run(Verdict.BROKEN, cell=NEXT)
    kernel = {**record.kernel, "provenance": {"source": dict(source)}}
    stage.conduct(night, Script({NEXT: [replace(record, kernel=kernel)]}), again=0)
    return night


def told(stage: Stage, night: Night, *news: News) -> list[str]:
    progress = Progress(Console(file=io.StringIO()))
    return [each.bisected for each in bisected(stage.lab, night, stage.history, news, progress)]


def test_the_first_bad_commit_is_told(stage: Stage, commands: Commands) -> None:
    night = night_of(stage, {"git": "/linux", "commit": BAD})
    assert told(stage, night, BROKEN) == ["it was C"]
    (argv,) = commands.argvs
    words = " ".join(argv)
    assert f"--git /linux --good {GOOD} --bad {BAD} --machine vtd {TEST}" in words
    assert "--kernel" not in argv


def test_a_variants_fragments_go_along(stage: Stage) -> None:
    news = replace(BROKEN, cell=replace(NEXT, kernel="next+kasan+lockdep"))
    argv = bisections.Bisection(news, "/linux", GOOD, BAD).argv(stage.lab)
    assert argv[argv.index("--kernel") + 1] == "+kasan+lockdep"


def test_one_test_of_a_cell_is_enough(stage: Stage, commands: Commands) -> None:
    night = night_of(stage, {"git": "/linux", "commit": BAD})
    other = replace(BROKEN, test=f"{TEST}1")
    assert told(stage, night, BROKEN, other) == ["it was C", ""]
    assert len(commands.argvs) == 1


@pytest.mark.parametrize(
    "news",
    [
        replace(BROKEN, change=Change.FLAKY),
        replace(BROKEN, change=Change.STILL),
        replace(BROKEN, before_night=""),  # it was never seen to pass
        replace(BROKEN, cell=CONTRACT),
        replace(BROKEN, test=""),
    ],
)
def test_what_cannot_be_bisected_is_not(stage: Stage, commands: Commands, news: News) -> None:
    night = night_of(stage, {"git": "/linux", "commit": BAD})
    assert told(stage, night, news) == [""]
    assert commands.argvs == []


@pytest.mark.parametrize(
    "source",
    [{"name": "linux-source-6.12", "version": "6.12.57"}, {"git": "/linux", "commit": GOOD}],
)
def test_on_no_branch_or_on_one_commit_there_is_nothing_between(
    stage: Stage, commands: Commands, source: Mapping[str, str]
) -> None:
    assert told(stage, night_of(stage, source), BROKEN) == [""]
    assert commands.argvs == []


def test_without_time_that_is_told(stage: Stage, commands: Commands) -> None:
    night = night_of(stage, {"git": "/linux", "commit": BAD}, budget=30.0)
    assert told(stage, night, BROKEN) == [f"no time was left to look between {GOOD} and {BAD}"]
    assert commands.argvs == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            CommandError(["lab"], 2, ["it does not build"]),
            "the bisection failed: it does not build",
        ),
        (InfrastructureError("it took too long"), "the bisection failed: it took too long"),
    ],
)
def test_a_bisection_that_fails_costs_no_news(
    stage: Stage, commands: Commands, error: Exception, said: str
) -> None:
    commands.answer = error
    assert told(stage, night_of(stage, {"git": "/linux", "commit": BAD}), BROKEN) == [said]


def test_one_of_several_is_an_answer(stage: Stage, commands: Commands) -> None:
    """`vfio-lab bisect` exits with 1 then."""
    lines = ["{", *json.dumps({"found": "one of B; C"}, indent=1).splitlines()[1:]]
    commands.answer = CommandError(["lab"], 1, lines)
    night = night_of(stage, {"git": "/linux", "commit": BAD})
    assert told(stage, night, BROKEN) == ["one of B; C"]
    assert Path(night.folder).is_dir()
