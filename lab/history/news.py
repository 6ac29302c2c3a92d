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
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import sqlalchemy as sa

from lab.history.model import CellKey, CellRun, Change, News, Row
from lab.history.past import Said, Word, failed_before, last_night, past_of
from lab.history.schema import runs, sightings, splats
from lab.history.store import History
from lab.history.turn import turn_of
from lab.results.verdict import Verdict, worst

Key = TypeVar("Key", bound=Hashable)


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
        doubtful = {
            test for test, rows in self.tests.items() if any(row.verdict.is_trouble for row in rows)
        }
        doubtful |= self.tests.keys() & failed_before(self.history, self.cell, self.night)
        past = past_of(self.history, self.cell, self.night, doubtful)
        for test in doubtful:
            yield from self._turned(self.tests[test], past[test])

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
        past = past_of(self.history, self.cell, self.night, [""])
        yield from self._turned(rows, past[""], more)

    def _turned(self, rows: Sequence[Row], past: Sequence[Said], more: str = "") -> Iterator[News]:
        """What has come of a test, where that is news."""
        words = [Word(row.verdict, row.failed) for row in rows]
        if turn := turn_of(Said.of(self.night, self.runs[0].bits, words), past):
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
        last = last_night(self.history, self.cell, self.night)
        ran = {test for test, rows in self.tests.items() if any(_ran(row) for row in rows)}
        rules = {self.tests[test][0].rule for test in ran} | {None}
        before = _grouped(filter(_ran, self.history.tests(last, self.cell)), attrgetter("test"))
        missing = [rows[-1] for test, rows in before.items() if test not in ran]
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
    last = last_night(history, cell, night)
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


def _ran(row: Row) -> bool:
    return row.verdict not in (Verdict.SKIPPED, Verdict.NOT_APPLICABLE)


def _weight(news: News) -> tuple[object, ...]:
    return list(Change).index(news.change), news.cell, news.rule or "", news.test


def _grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
