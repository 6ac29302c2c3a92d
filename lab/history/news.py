# SPDX-License-Identifier: GPL-2.0-only
"""What is new about a night: each of its cells against what earlier nights said of it.

A test *fails* where the kernel is to blame: a broken rule, or a crash. It *passes* where a rule is
kept, or broken in a way that is known. All else is no answer: nights without one are passed over
when a test is compared with what it was.
"""

from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import sqlalchemy as sa

from lab.history.model import CellKey, CellRun, Change, News, Row
from lab.history.past import Said, Word, failed_in, nights_of, past_of
from lab.history.schema import runs, sightings, splats
from lab.history.store import History
from lab.history.turn import turn_of
from lab.results.verdict import Verdict, worst

Key = TypeVar("Key", bound=Hashable)

MEMORY = 10
"""Nights of a cell for which a test that failed stays in doubt on bits that do not change. Either
it shows again within them, or it was mended beside the kernel, or it is too rare for nights to see;
the rate that `vfio-lab history` tells forgets nothing."""


def news_of(history: History, night: str, *, planned: Collection[CellKey]) -> tuple[News, ...]:
    """All that is to be told about a night, what matters most first. `planned` are the cells that
    it should have run."""
    of_cell: dict[CellKey, list[CellRun]] = {cell: [] for cell in planned}
    for run in history.runs(night):
        of_cell.setdefault(run.cell, []).append(run)
    tests = _grouped(history.tests(night), attrgetter("cell"))
    troubles = _grouped(history.troubles(night), attrgetter("cell"))
    unseen = _unseen(history, night)
    found: list[News] = []
    for cell, its_runs in of_cell.items():
        if not its_runs:
            found.append(_not_run(history, night, cell))
            continue
        base = _base(cell, of_cell)
        tonight = _Tonight(
            history,
            night,
            cell,
            its_runs,
            _grouped(tests.get(cell, []), attrgetter("test")),
            troubles.get(cell, []),
            _grouped(tests.get(base, []) if base else [], attrgetter("test")),
        )
        found += tonight.news(unseen)
    return tuple(sorted(found, key=_weight))


@dataclass(frozen=True)
class _Tonight:
    """A cell that was run in the night: its rows by their tests, and those that have none. `base`
    is the same of the cell that this one is a variation of."""

    history: History
    night: str
    cell: CellKey
    runs: Sequence[CellRun]
    tests: Mapping[str, Sequence[Row]]
    troubles: Sequence[Row]
    base: Mapping[str, Sequence[Row]]

    @cached_property
    def recent(self) -> list[str]:
        """The cell's nights that are remembered, the newest first."""
        return nights_of(self.history, self.cell, self.night, MEMORY)

    @property
    def memory(self) -> str:
        """The oldest of them."""
        return self.recent[-1] if self.recent else self.night

    @cached_property
    def before(self) -> Mapping[str, Sequence[Row]]:
        """What the newest of them said of each test."""
        rows = self.history.tests(self.recent[0], self.cell) if self.recent else []
        return _grouped(rows, attrgetter("test"))

    def news(self, unseen: Set[str]) -> list[News]:
        """All of it; `unseen` are titles of splats that no earlier night has."""
        gone = self._gone()
        found = [*self._of_tests(), *self._of_splats(unseen)]
        # what a run with trouble lacks is a part of that
        in_trouble = any(row.attempt == 0 for row in self.troubles)
        found += self._of_runs(f"; {len(gone)} more did not run" if in_trouble and gone else "")
        return found if in_trouble else found + gone

    def _of_tests(self) -> Iterator[News]:
        """A test at a time: broken, still broken, flaky, mended, not tested."""
        passed = {test for test, rows in self.tests.items() if all(map(_passed, rows))}
        passed &= {test for test, rows in self.before.items() if any(map(_passed, rows))}
        # of those that pass, and did so before, only a failure on the same bits would be news
        in_doubt = passed & failed_in(self.history, self.cell, self.recent)
        past = {
            **self._past(self.tests.keys() - passed),
            **self._past(in_doubt, self.memory),
        }
        for test, nights in past.items():
            yield from self._turned(self.tests[test], nights)

    def _of_runs(self, more: str) -> Iterator[News]:
        """The same of the runs themselves, with `more` behind the message."""
        rows = list(self.troubles)
        if all(row.failed for row in rows if row.attempt == 0):
            # else nothing that ran later stands for what the whole run did not come to
            unsound = {row.attempt for row in rows}
            attempts = [run.attempt for run in self.runs if run.attempt not in unsound]
            rows += [
                Row(self.night, self.cell, attempt, "", None, None, Verdict.KEPT, 0.0)
                for attempt in attempts
            ]
        past = self._past([""], "" if self.troubles else self.memory)
        yield from self._turned(rows, past[""], more)

    def _past(self, tests: Collection[str], since: str = "") -> Mapping[str, Sequence[Said]]:
        return past_of(self.history, self.cell, self.night, tests, since) if tests else {}

    def _turned(self, rows: Sequence[Row], past: Sequence[Said], more: str = "") -> Iterator[News]:
        """What has come of a test, where that is news."""
        words = [Word(row.verdict, row.failed) for row in rows]
        said = Said.of(self.night, self.runs[0].bits, words)
        if turn := turn_of(said, past, self.memory):
            before = turn.before
            yield self._news(
                turn.change,
                rows,
                message=turn.says(_first_line(_telling(rows))) + more,
                since=turn.since,
                nights=turn.nights,
                before=before.verdict if before else None,
                before_night=before.night if before else "",
                before_key=before.key if before else "",
                passed=turn.passed,
                runs=turn.runs,
            )

    def _of_splats(self, unseen: Set[str]) -> Iterator[News]:
        seen: dict[str, list[Row]] = {}
        for row in chain(*self.tests.values(), self.troubles):
            for title in unseen & set(row.splats):
                seen.setdefault(title, []).append(row)
        for title, rows in seen.items():
            yield self._news(Change.SPLAT, rows, message=title, splats=(title,))

    def _gone(self) -> list[News]:
        """What ran in the cell's last night and did not now: a rule as a whole, where no test of
        it did, or a test."""
        ran = {test for test, rows in self.tests.items() if any(_ran(row) for row in rows)}
        rules = {self.tests[test][0].rule for test in ran} | {None}
        missing = [
            row
            for test, rows in self.before.items()
            for row in [_telling(rows)]
            if _ran(row) and test not in ran
        ]
        of_rules = _grouped((row for row in missing if row.rule not in rules), attrgetter("rule"))
        return [
            *(self._lacks(row) for row in missing if row.rule in rules),
            *(self._lacks_rule(rows) for rows in of_rules.values()),
        ]

    def _lacks_rule(self, before: Sequence[Row]) -> News:
        one = self._lacks(before[0])
        message = f"none of its tests ({len(before)}): {one.message}"
        return replace(one, test="", mode=None, message=message)

    def _lacks(self, before: Row) -> News:
        """A test that did not run; `before` is what it said when it did."""
        now = self.tests.get(before.test)
        why = f"{now[-1].verdict}: {_first_line(now[-1])}; " if now else ""
        return News(
            Change.GONE,
            self.cell,
            before.test,
            before.rule,
            before.mode,
            now[-1].verdict if now else None,
            f"{why}it ran in {before.night}",
            since=self.night,
            before=before.verdict,
            before_night=before.night,
            runs=0,
        )

    def _news(self, change: Change, rows: Sequence[Row], **more: Any) -> News:
        """Of what these rows have in common."""
        row = _telling(rows)
        base = self.base.get(row.test)
        common = {
            "test": row.test,
            "rule": row.rule,
            "mode": row.mode,
            "verdict": row.verdict,
            "since": self.night,
            "base": worst(each.verdict for each in base) if base else None,
            "splats": tuple(dict.fromkeys(title for each in rows for title in each.splats)),
            "runs": len(rows),
            "evidence": row.evidence,
        }
        return News(change, self.cell, **common | more)


def _not_run(history: History, night: str, cell: CellKey) -> News:
    """A cell that the night did not come to."""
    last = next(iter(nights_of(history, cell, night, 1)), "")
    nights = [each for each in history.nights() if last < each < night] if last else []
    return News(
        Change.GONE,
        cell,
        message=f"the cell did not run; it did in {last}" if last else "the cell has never run",
        since=nights[-1] if nights else night,
        nights=len(nights) + 1,
        before_night=last,
        runs=0,
    )


def _base(cell: CellKey, tonight: Collection[CellKey]) -> CellKey | None:
    """The cell that it is a variation of: without the series, or without some of the fragments
    behind its kernel's name."""
    if cell.base:
        return cell.base
    words = cell.kernel.split("+")
    shorter = ("+".join(words[:count]) for count in range(len(words) - 1, 0, -1))
    cells = (replace(cell, kernel=kernel) for kernel in shorter)
    return next((each for each in cells if each in tonight), None)


def _unseen(history: History, night: str) -> set[str]:
    """The titles of a night's splats that no cell had before."""
    query = (
        sa.select(splats.c.title)
        .select_from(splats.join(sightings).join(runs, runs.c.id == sightings.c.run_id))
        .group_by(splats.c.title)
        .having(sa.func.min(runs.c.night) == night)
    )
    with history.reading() as connection:
        return set(connection.scalars(query))


def _telling(rows: Sequence[Row]) -> Row:
    """The one of several that says most: a failure before trouble of the lab, and the newest."""
    return max(rows, key=lambda row: (row.failed, row.verdict.severity, row.attempt))


def _first_line(row: Row) -> str:
    return row.message.partition("\n")[0]


def _passed(row: Row) -> bool:
    return Word(row.verdict, row.failed).passed


def _ran(row: Row) -> bool:
    return row.verdict not in (Verdict.SKIPPED, Verdict.NOT_APPLICABLE)


def _weight(news: News) -> tuple[object, ...]:
    return list(Change).index(news.change), news.cell, news.rule or "", news.test


def _grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
