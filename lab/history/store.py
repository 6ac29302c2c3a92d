# SPDX-License-Identifier: GPL-2.0-only
"""The history of all nights, in a database."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lab.contract import Mode
from lab.history.database import WRITING, database
from lab.history.model import CellKey, CellRun, Point, Row
from lab.history.schema import cells, passed, runs, sightings, splats, tallies, tests, verdicts
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict
from lab.splats import find
from lab.text import printable

CELL = (cells.c.kernel, cells.c.machine, cells.c.suite, cells.c.series)
"""The columns of a `CellKey`, in order."""
_OF_RUN = tuple(runs.c[name] for name in CellRun.__dataclass_fields__ if name != "cell")
_OF_POINT = tuple(runs.c[name] for name in Point.__dataclass_fields__)
_OF_ROW = (
    verdicts.c.run_id, verdicts.c.number,
    tests.c.name, tests.c.rule, tests.c.mode, tests.c.subject,
    verdicts.c.verdict, verdicts.c.duration, verdicts.c.message, verdicts.c.evidence,
)  # fmt: skip


class History:
    """Every verdict of every night. Any number of processes may read and write one at a time."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @classmethod
    @contextmanager
    def opened(cls, url: str | None = None) -> Iterator["History"]:
        """The history at SQLAlchemy's `url`, by default in a file of the user's state; it is made
        where there is none. Raises as `database` does."""
        with database(url) as engine:
            yield cls(engine)

    def add(self, run: CellRun, record: RunRecord) -> None:
        """Keep a run of a cell, in place of what was known of the same run before."""
        lines = [_Line.of(test, run) for test in record.tests]
        lines += [_Line.of_trouble(trouble) for trouble in record.every_trouble]
        with self._writing() as connection:
            cell = self._ids(connection, cells, [astuple(run.cell)])[astuple(run.cell)]
            names = self._ids(connection, tests, [line.name for line in lines if line.name])
            titles = self._ids(connection, splats, [(t,) for line in lines for t in line.splats])
            run_id = self._run(connection, run, cell, record)
            before = _counted(connection, run_id)
            connection.execute(sa.delete(verdicts).where(verdicts.c.run_id == run_id))
            said = [
                {
                    "run_id": run_id,
                    "number": number,
                    "test_id": names[line.name] if line.name else None,
                    **line.values,
                }
                for number, line in enumerate(lines)
            ]
            seen = [
                {"run_id": run_id, "number": number, "splat_id": titles[title,]}
                for number, line in enumerate(lines)
                for title in line.splats
            ]
            for table, values in ((verdicts, said), (sightings, seen)):
                if values:
                    connection.execute(sa.insert(table), values)
            self._tally(connection, cell, before, _counted(connection, run_id))

    def nights(self) -> list[str]:
        """The names of all nights, the newest first."""
        with self.reading() as connection:
            return list(
                connection.scalars(sa.select(runs.c.night).distinct().order_by(runs.c.night.desc()))
            )

    def cells(self) -> list[CellKey]:
        """Every cell that was ever run, in order."""
        with self.reading() as connection:
            return sorted(CellKey(*found) for found in connection.execute(sa.select(*CELL)))

    def runs(self, night: str) -> list[CellRun]:
        """All runs of a night: cells in order, of each the whole one first."""
        query = sa.select(*CELL, *_OF_RUN).join(cells).where(runs.c.night == night)
        with self.reading() as connection:
            found = [
                CellRun(
                    cell=CellKey(*(line[name] for name in CELL)),
                    **{name.name: line[name] for name in _OF_RUN},
                )
                for line in connection.execute(query).mappings()
            ]
        return sorted(found, key=lambda run: (run.cell, run.attempt))

    def tests(self, night: str, cell: CellKey | None = None) -> list[Row]:
        """What a night's runs said of each test, in the order of `runs` and of each run."""
        return self._rows(night, cell, verdicts.c.test_id.is_not(None))

    def troubles(self, night: str, cell: CellKey | None = None) -> list[Row]:
        """What went wrong with a night's runs and belongs to no test."""
        return self._rows(night, cell, verdicts.c.test_id.is_(None))

    def trend(self, cell: CellKey, limit: int = 100) -> list[Point]:
        """Its last `limit` nights, the oldest first."""
        query = (
            sa.select(*_OF_POINT)
            .join(cells)
            .where(runs.c.attempt == 0, *of_cell(cell))
            .order_by(runs.c.night.desc())
            .limit(limit)
        )
        with self.reading() as connection:
            found = [Point.from_json(dict(line)) for line in connection.execute(query).mappings()]
        return found[::-1]

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for questions; what it sees does not change within the block."""
        options = {} if self._of_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._engine.execution_options(**options).connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._engine.execution_options(**{WRITING: True}).begin() as connection:
            yield connection

    def _rows(self, night: str, cell: CellKey | None, wanted: sa.ColumnElement[bool]) -> list[Row]:
        there = (
            sa.select(runs.c.id, *CELL, runs.c.attempt)
            .join(cells)
            .where(runs.c.night == night, *of_cell(cell))
        )
        of_night = verdicts.c.run_id.in_(sa.select(there.subquery().c.id))
        said = (
            sa.select(*_OF_ROW)
            .select_from(verdicts.outerjoin(tests))
            .where(of_night, wanted)
            .order_by(verdicts.c.run_id, verdicts.c.number)
        )
        seen = (
            sa.select(sightings.c.run_id, sightings.c.number, splats.c.title)
            .select_from(verdicts.join(sightings).join(splats))
            .where(of_night, wanted)
            .order_by(splats.c.title)
        )
        titles: dict[tuple[int, int], tuple[str, ...]] = {}
        with self.reading() as connection:
            of_run = {
                run_id: (CellKey(*names), attempt)
                for run_id, *names, attempt in connection.execute(there)
            }
            for run_id, number, title in connection.execute(seen):
                titles[run_id, number] = (*titles.get((run_id, number), ()), title)
            found: dict[int, list[Row]] = {run_id: [] for run_id in of_run}
            for run_id, number, name, rule, mode, subject, *rest in connection.execute(said):
                verdict, duration, message, evidence = rest
                found[run_id].append(
                    Row(
                        night,
                        *of_run[run_id],
                        name or "",
                        rule or None,
                        Mode(mode) if mode else None,
                        Verdict(verdict),
                        duration,
                        message,
                        titles.get((run_id, number), ()),
                        evidence,
                        subject or "",
                    )
                )
        ordered = sorted(found, key=of_run.__getitem__)
        return [row for run_id in ordered for row in found[run_id]]

    def _ids(
        self, connection: sa.Connection, table: sa.Table, wanted: Iterable[tuple[str, ...]]
    ) -> Mapping[tuple[str, ...], int]:
        """The numbers of names, which get one where they have none."""
        # in order, or two who add the same names would wait for each other
        names = sorted(set(wanted))
        found = _numbers(connection, table, names)
        if missing := [name for name in names if name not in found]:
            columns = [column.name for column in table.columns][1:]
            values = [dict(zip(columns, name, strict=True)) for name in missing]
            connection.execute(self._insert(table).on_conflict_do_nothing(), values)
            found = _numbers(connection, table, names)
        return found

    def _run(self, connection: sa.Connection, run: CellRun, cell: int, record: RunRecord) -> int:
        values = {
            **{column.name: getattr(run, column.name) for column in _OF_RUN},
            "cell_id": cell,
            "figures": dict(run.figures),
            "counts": Counter(test.verdict.value for test in record.tests),
        }
        unique = ("night", "cell_id", "attempt")
        statement = self._insert(runs).values(values)
        statement = statement.on_conflict_do_update(index_elements=unique, set_=values)
        run_id: int = connection.execute(statement.returning(runs.c.id)).scalar_one()
        return run_id

    def _tally(
        self,
        connection: sa.Connection,
        cell: int,
        before: Mapping[int, tuple[int, int]],
        after: Mapping[int, tuple[int, int]],
    ) -> None:
        """What a run says of each test has become this: passed, and failed."""
        none = (0, 0)
        changes = [
            {
                "test_id": test,
                "cell_id": cell,
                "passed": after.get(test, none)[0] - before.get(test, none)[0],
                "failed": after.get(test, none)[1] - before.get(test, none)[1],
            }
            for test in sorted({*before, *after})  # in order, as names are
        ]
        statement = self._insert(tallies)
        statement = statement.on_conflict_do_update(
            index_elements=["test_id", "cell_id"],
            set_={
                name: tallies.c[name] + statement.excluded[name] for name in ("passed", "failed")
            },
        )
        if changes:
            connection.execute(statement, changes)

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT of the database's own, which can say what becomes of a row that is there."""
        return sqlite.insert(table) if self._of_sqlite else postgresql.insert(table)

    @property
    def _of_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"  # where nothing moves under a reader anyway


def of_cell(cell: CellKey | None) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions that choose a cell's runs; none where every cell will do."""
    names = astuple(cell) if cell else ()
    return tuple(column == name for column, name in zip(CELL, names, strict=False))


@dataclass(frozen=True)
class _Line:
    """What one verdict's row is made of. `name` is its test's row, empty where it has none."""

    name: tuple[str, ...]
    splats: tuple[str, ...]
    values: Mapping[str, Any]

    @classmethod
    def of(cls, test: TestRecord, run: CellRun) -> "_Line":
        name = (test.id, test.rule or "", test.mode or "", test.subject)
        evidence = f"{run.folder}/{test.folder}" if test.folder else ""
        values = _values(test) | {"duration": test.duration, "evidence": evidence}
        return cls(tuple(printable(part) for part in name), _titles(test.splats), values)

    @classmethod
    def of_trouble(cls, trouble: Trouble) -> "_Line":
        values = _values(trouble) | {"duration": 0.0, "evidence": ""}
        return cls((), _titles(trouble.splats), values)


def _values(item: TestRecord | Trouble) -> dict[str, Any]:
    return {
        "verdict": item.verdict.value,
        "failed": item.exit_status == 1,
        "message": printable(item.message),
    }


def _titles(texts: Sequence[str]) -> tuple[str, ...]:
    """Each once. Of a text that is no report to its reader any more, its first line."""
    found = (
        [splat.title for splat in find(text)] or [text.strip().partition("\n")[0]] for text in texts
    )
    return tuple(dict.fromkeys(printable(title) for titles in found for title in titles))


def _counted(connection: sa.Connection, run_id: int) -> dict[int, tuple[int, int]]:
    """How often each test passed and failed in a run."""
    good, bad = (sa.func.sum(sa.case((each, 1), else_=0)) for each in (passed(), verdicts.c.failed))
    query = (
        sa.select(verdicts.c.test_id, good, bad)
        .where(verdicts.c.run_id == run_id, verdicts.c.test_id.is_not(None))
        .group_by(verdicts.c.test_id)
    )
    return {test: (went, failed) for test, went, failed in connection.execute(query)}


def _numbers(
    connection: sa.Connection, table: sa.Table, names: Collection[tuple[str, ...]]
) -> dict[tuple[str, ...], int]:
    """Of those that have one; and of others, perhaps, that begin alike."""
    first = list(table.columns)[1]
    query = sa.select(table).where(first.in_([name[0] for name in names]))
    return {tuple(name): number for number, *name in connection.execute(query)}
