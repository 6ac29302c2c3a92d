# SPDX-License-Identifier: GPL-2.0-only
"""The tables of a night: for each cell of the matrix its rules and its modes, what is new first."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Self

from lab.contract import Mode
from lab.history.model import CellKey, CellRun, Change, News, Row
from lab.page.place import Place, slug_of
from lab.results.layout import columns, rows, title
from lab.results.verdict import Verdict, marked, worst

BADGES = {
    Change.BROKEN: "new",
    Change.SPLAT: "splat",
    Change.FLAKY: "flaky",
    Change.LOST: "lost",
    Change.MENDED: "mended",
}

QUIET = 3


@dataclass(frozen=True)
class Tested:
    """A test of a night. `rows` are its runs there, the one of the whole cell first; `worst` is the
    one that says most, of those with the worst verdict the first."""

    rows: Sequence[Row]
    worst: Row
    news: Sequence[News]

    @classmethod
    def of(cls, rows: Sequence[Row], news: Sequence[News]) -> Self:
        """One of rows in any order."""
        if len(rows) == 1:  # as nearly all are
            return cls(rows, rows[0], news)
        found = sorted(rows, key=lambda row: row.attempt)
        return cls(found, max(found, key=lambda row: row.verdict.severity), news)

    @property
    def verdict(self) -> Verdict:
        return self.worst.verdict


@dataclass(frozen=True)
class Entry:
    """A cell of a table; never empty.

    `text` is its verdict, and how many tests have it; `badges` say in a word each what is new about
    it. Less `urgency` is to be looked at earlier, and QUIET need not be.
    """

    place: Place
    tests: Sequence[Tested]
    verdict: Verdict
    text: str
    badges: Sequence[str]
    urgency: int

    @classmethod
    def of(cls, place: Place, tests: Sequence[Tested]) -> Self:
        """One of its tests."""
        verdicts = [test.verdict for test in tests]
        verdict = worst(verdicts)
        changes = {news.change for test in tests for news in test.news}
        badges = [word for change, word in BADGES.items() if change in changes] if changes else []
        if any(change.is_alarm for change in changes):
            urgency = 0
        elif verdict.is_trouble:
            urgency = 1
        else:
            urgency = 2 if badges else QUIET
        return cls(place, tests, verdict, marked(verdicts), badges, urgency)


@dataclass(frozen=True)
class Line:
    """A row of a table: a rule, a program or a suite, and an entry a column, where there is one."""

    subject: str
    entries: Sequence[Entry | None]

    @property
    def title(self) -> str:
        return title(self.subject)

    @property
    def urgency(self) -> int:
        return min(entry.urgency for entry in self.entries if entry)


@dataclass(frozen=True)
class Section:
    """The table of a cell of the matrix. `runs` are its runs in this night, `troubles` what went
    wrong with them and belongs to no test, `news` what is new about it, also what no test says."""

    cell: CellKey
    runs: Sequence[CellRun]
    modes: Sequence[Mode | None]
    lines: Sequence[Line]
    troubles: Sequence[Row]
    news: Sequence[News]

    @property
    def slug(self) -> str:
        return slug_of(self.cell)

    @cached_property
    def entries(self) -> Sequence[Entry]:
        return [entry for line in self.lines for entry in line.entries if entry]

    @cached_property
    def counts(self) -> Mapping[Verdict, int]:
        """How many tests have each verdict that occurs, the worst first."""
        return ordered(Counter(test.verdict for entry in self.entries for test in entry.tests))

    @property
    def alarms(self) -> int:
        """How many news want a look."""
        return sum(news.change.is_alarm for news in self.news)

    @property
    def is_quiet(self) -> bool:
        """Whether nobody has to look at it."""
        trouble = any(verdict.is_trouble for verdict in self.counts)
        return not (trouble or self.troubles or self.news)

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.runs)


def sections(
    runs: Iterable[CellRun],
    tests: Iterable[Row],
    troubles: Iterable[Row],
    news: Iterable[News],
) -> Sequence[Section]:
    """All tables of a night, those with news first, then those with trouble. `troubles` belong to
    no test."""
    of_cell: dict[CellKey, list[CellRun]] = {}
    for run in runs:
        of_cell.setdefault(run.cell, []).append(run)
    grouped: dict[CellKey, dict[str, list[Row]]] = {cell: {} for cell in of_cell}
    for cell, found in groupby(tests, key=attrgetter("cell")):
        of_test = grouped.setdefault(cell, {})
        for row in found:
            of_test.setdefault(row.test, []).append(row)
    of_run: dict[CellKey, list[Row]] = {}
    for row in troubles:
        of_run.setdefault(row.cell, []).append(row)
    told: dict[CellKey, list[News]] = {}
    for each in news:
        told.setdefault(each.cell, []).append(each)
    made = [
        Section(
            cell,
            of_cell.get(cell, ()),
            *_table(cell, of_test.values(), told.get(cell, ())),
            of_run.get(cell, ()),
            told.get(cell, ()),
        )
        for cell, of_test in grouped.items()
    ]
    return sorted(made, key=lambda section: (-section.alarms, section.is_quiet, section.cell))


def ordered(counts: Mapping[Verdict, int]) -> Mapping[Verdict, int]:
    """The same, the worst first."""
    return {verdict: counts[verdict] for verdict in reversed(Verdict) if verdict in counts}


def _table(
    cell: CellKey, tests: Iterable[Sequence[Row]], news: Iterable[News]
) -> tuple[Sequence[Mode | None], Sequence[Line]]:
    of_test: dict[str, list[News]] = {}
    for each in news:
        of_test.setdefault(each.test, []).append(each)
    of_place: dict[tuple[str, Mode | None], list[Tested]] = {}
    for found in tests:
        row = found[0]
        tested = Tested.of(found, of_test.get(row.test, ()))
        of_place.setdefault((row.subject, row.mode), []).append(tested)
    modes = columns(mode for _, mode in of_place)
    lines = []
    for subject in rows(subject for subject, _ in of_place):
        entries = [
            Entry.of(Place(cell, subject, mode), of_place[subject, mode])
            if (subject, mode) in of_place
            else None
            for mode in modes
        ]
        lines.append(Line(subject, entries))
    lines.sort(key=lambda line: line.urgency)
    return modes, lines
