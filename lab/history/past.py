# SPDX-License-Identifier: GPL-2.0-only
"""What earlier nights said of a cell's tests."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import sqlalchemy as sa

from lab.history.model import CellKey
from lab.history.schema import cells, runs, tests, verdicts
from lab.history.store import History, of_cell
from lab.results.verdict import Verdict, worst

_BITS = (runs.c.kernel_key, runs.c.qemu, runs.c.lab)  # as `CellRun.bits`


class Word(NamedTuple):
    """One verdict; `failed` as `Row.failed`."""

    verdict: Verdict
    failed: bool

    @property
    def passed(self) -> bool:
        """Whether the kernel did as it should, or in a way that is known of it."""
        return self.verdict.is_checked and not self.failed


@dataclass(frozen=True)
class Said:
    """What the runs of a night said of one test on the same bits (`CellRun.bits`).

    `passed` and `failed` are how many of its runs did; neither are those of which nobody knows.
    `verdict` is the worst.
    """

    night: str
    bits: tuple[str, ...]
    passed: int
    failed: int
    verdict: Verdict

    @classmethod
    def of(cls, night: str, bits: tuple[str, ...], words: Iterable[Word]) -> "Said":
        """Those of at least one run."""
        all_ = list(words)
        return cls(
            night,
            bits,
            sum(word.passed for word in all_),
            sum(word.failed for word in all_),
            worst(word.verdict for word in all_),
        )

    @property
    def key(self) -> str:
        """The kernel's, empty where it is not known."""
        return self.bits[0] if self.bits else ""

    @property
    def answered(self) -> bool:
        """Whether the kernel's answer was seen."""
        return bool(self.passed or self.failed)

    @property
    def broken(self) -> bool:
        """Whether it failed, and that each time."""
        return bool(self.failed) and not self.passed

    @property
    def lost(self) -> bool:
        """Whether it was to be seen, and the lab failed."""
        return not self.answered and self.verdict.is_trouble


def past_of(
    history: History, cell: CellKey, night: str, names: Collection[str], since: str = ""
) -> dict[str, list[Said]]:
    """What the nights from `since` on and before `night` said of these tests in a cell, the newest
    first. The name that is empty stands for the whole runs, which pass where they have no trouble.
    """
    earlier = (*of_cell(cell), runs.c.night < night, runs.c.night >= since)
    of_tests = (
        sa.select(tests.c.name, runs.c.night, *_BITS, verdicts.c.verdict, verdicts.c.failed)
        .select_from(verdicts.join(tests).join(runs).join(cells))
        .where(*earlier, tests.c.name.in_(names))
    )
    trouble = runs.outerjoin(
        verdicts, (verdicts.c.run_id == runs.c.id) & verdicts.c.test_id.is_(None)
    )
    of_runs = (
        sa.select(sa.literal(""), runs.c.night, *_BITS, verdicts.c.verdict, verdicts.c.failed)
        .select_from(trouble.join(cells))
        .where(*earlier, runs.c.attempt == 0)
    )
    with history.reading() as connection:
        found = [tuple(line) for line in connection.execute(of_tests)]
        if "" in names:
            found += [tuple(line) for line in connection.execute(of_runs)]
    said: dict[str, list[Said]] = {name: [] for name in names}
    for name, one in _folded(found):
        said[name].append(one)
    return said


def nights_of(history: History, cell: CellKey, night: str, limit: int) -> list[str]:
    """The last nights before `night` in which a cell was run, the newest first."""
    query = (
        sa.select(runs.c.night)
        .distinct()
        .select_from(runs.join(cells))
        .where(*of_cell(cell), runs.c.night < night)
        .order_by(runs.c.night.desc())
        .limit(limit)
    )
    with history.reading() as connection:
        return list(connection.scalars(query))


def failed_in(history: History, cell: CellKey, nights: Collection[str]) -> set[str]:
    """The tests that failed in a cell in any of these nights."""
    query = (
        sa.select(tests.c.name)
        .distinct()
        .select_from(verdicts.join(tests).join(runs).join(cells))
        .where(*of_cell(cell), runs.c.night.in_(nights), verdicts.c.failed)
    )
    with history.reading() as connection:
        return set(connection.scalars(query))


def _folded(found: list[tuple[Any, ...]]) -> Iterator[tuple[str, Said]]:
    """Lines of name, night, bits, verdict and whether it failed: a test and a night at a time."""
    head = itemgetter(slice(0, 5))
    for (name, night, *bits), lines in groupby(sorted(found, key=head, reverse=True), head):
        words = [
            Word(Verdict(verdict or Verdict.KEPT), bool(failed)) for *_, verdict, failed in lines
        ]
        yield name, Said.of(night, tuple(bits) if bits[0] else (), words)
