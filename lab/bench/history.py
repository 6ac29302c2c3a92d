# SPDX-License-Identifier: GPL-2.0-only
"""Questions to a history of a million verdicts: a year of nights of the contract on four cells."""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from lab.bench.figures import Measured
from lab.cell import Choice
from lab.config import Lab
from lab.contract import Mode, rules
from lab.history.model import CellKey, CellRun
from lab.history.news import news_of
from lab.history.questions import seen, standings, summaries
from lab.history.schema import splats, tests
from lab.history.store import History
from lab.history.subject import subject_of
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

VERDICTS = 1_000_000
_LARGEST = 9  # functions of the rule that has most of them
_FUNCTIONS = 160  # of all rules; each is a test in each mode
_FLAKY = 0.002  # of the tests that fail in a night, by chance
_CELLS = [
    CellKey(kernel, machine, "contract")
    for kernel in ("v6.12", "~/linux@next")
    for machine in ("vtd", "amd")
]
_SPLAT = "BUG: KASAN: use-after-free in vfio_function_{}+0x1/0x2\n"


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """Each question `rounds` times, by default 5, of a history that is made for it in a minute.

    Neither the lab nor the choice matters: the nights are made up.
    """
    del lab, choice
    with tempfile.TemporaryDirectory(prefix="vfio-lab-bench-") as folder:
        url = f"sqlite:///{folder}/history.sqlite3"
        with History.opened(url) as history:
            fill(history)
            return [
                Measured(name, values=[_seconds(question) for _ in range(rounds or 5)])
                for name, question in _questions(history).items()
            ]


def _questions(history: History) -> Mapping[str, Callable[[], object]]:
    """All that `vfio-lab history` and the page of a night ask."""
    night = history.nights()[0]
    cell = history.cells()[-1]
    with history.reading() as connection:
        test = connection.scalars(sa.select(tests.c.name)).first() or ""
        splat = connection.scalars(sa.select(splats.c.title)).first() or ""
    largest = subject_of(history, next(iter(rules())))
    return {
        "the nights": history.nights,
        "the last nights, summed up": lambda: summaries(history, 20),
        "a word's meaning": lambda: subject_of(history, test),
        f"a rule of {len(largest.tests)} tests": lambda: standings(history, largest.tests),
        "a test": lambda: standings(history, [test]),
        "a splat": lambda: seen(history, splat),
        "a night's runs": lambda: history.runs(night),
        "a night's verdicts": lambda: history.tests(night),
        "a night's troubles": lambda: history.troubles(night),
        "a cell's trend": lambda: history.trend(cell),
        "a night's news": lambda: news_of(history, night, planned=history.cells()),
    }


def _seconds(question: Callable[[], object]) -> float:
    begin = time.perf_counter()
    question()
    return time.perf_counter() - begin


def fill(history: History, verdicts: int = VERDICTS) -> None:
    """Nights with at least so many verdicts. The same each time: the dice are cast with a seed."""
    dice = random.Random(5)
    every = list(_contract())
    begin = datetime(2026, 1, 1, 21, tzinfo=UTC)
    told = 0
    for number in range(verdicts):
        if told >= verdicts:
            return
        night = begin + timedelta(days=number)
        for cell in _CELLS:
            told += _run(history, night, cell, every, dice)


def _contract() -> Iterator[TestRecord]:
    """As many tests as the contract has, and a rule with far more than the others."""
    names = list(rules())
    for number in range(_FUNCTIONS):
        rule = names[0] if number < _LARGEST else names[number % len(names)]
        for mode in Mode:
            id_ = f"tests/contract/test_{rule[:3].lower()}.py::test_number_{number}[{mode}]"
            yield TestRecord(id_, "contract", Verdict.KEPT, 0.2, rule, mode, machine="vtd")


def _run(
    history: History,
    night: datetime,
    cell: CellKey,
    every: Sequence[TestRecord],
    dice: random.Random,
) -> int:
    """The run of a cell, and another of what failed in it; returns how many verdicts that are."""
    name = night.strftime("%Y%m%dT%H%M%SZ")
    moving = cell.kernel != _CELLS[0].kernel
    whole = [_tested(test, dice) for test in every]
    again = [replace(test, verdict=Verdict.KEPT) for test in whole if test.exit_status]
    for attempt, said in enumerate([whole, again]):
        run = CellRun(
            name,
            cell,
            attempt,
            f"{name}/cells/{_CELLS.index(cell)}-{attempt}",
            night.strftime("%Y-%m-%dT%H:%M:%SZ"),
            300.0,
            0,
            release="6.12.57",
            kernel_key=f"of {name}" if moving else "of a release",
            source=f"~/linux at {name}" if moving else "linux 6.12.57",
            figures={"boot_seconds": 2.5, "guests": 4.0},
        )
        history.add(run, RunRecord("0.1.0", run.started, run.seconds, tests=tuple(said)))
    return len(whole) + len(again)


def _tested(test: TestRecord, dice: random.Random) -> TestRecord:
    if dice.random() >= _FLAKY:
        return test
    if dice.random() < 0.9:
        return replace(test, verdict=Verdict.BROKEN, message="BIND gave 0, not EINVAL", folder="t")
    splat = _SPLAT.format(dice.randrange(30))
    return replace(test, verdict=Verdict.GUEST_LOST, message="the guest died", splats=(splat,))
