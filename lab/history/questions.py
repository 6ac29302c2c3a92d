# SPDX-License-Identifier: GPL-2.0-only
"""What one asks a history: how tests stand in each cell, where a splat was seen, how nights went.

What passes and fails is said in `lab.history.news`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from lab.history.model import CellKey
from lab.history.schema import cells, passed, runs, sightings, splats, tallies, tests, verdicts
from lab.history.store import CELL, History
from lab.repro.rate import interval
from lab.results.record import Written
from lab.results.verdict import Verdict


@dataclass(frozen=True)
class Moment(Written):
    """A night, and the kernel that a cell ran on in it: its release, what it was built of, and the
    hash of all that."""

    night: str
    release: str
    source: str
    kernel_key: str


@dataclass(frozen=True)
class Standing(Written):
    """How a test stands in a cell.

    So many of its runs `passed` and `failed`; `flaked` of the failures were on bits on which it has
    passed, too. `last_good` is the last run that passed, `last_bad` the last that failed, and
    `first_bad` the first that failed after `last_good`, None where none did.
    """

    cell: CellKey
    test: str
    passed: int
    failed: int
    flaked: int = 0
    last_good: Moment | None = None
    last_bad: Moment | None = None
    first_bad: Moment | None = None

    @property
    def runs(self) -> int:
        """How many say how often it flakes: not those on bits on which it never passed."""
        return self.passed + self.flaked

    @property
    def interval(self) -> tuple[float, float]:
        """Between which rates it flakes, 0 to 1."""
        return interval(self.flaked, self.runs)


@dataclass(frozen=True)
class Sighting(Written):
    """A splat in a cell: in how many nights, the first and the last of them, and with which
    tests."""

    cell: CellKey
    title: str
    nights: int
    first: Moment
    last: Moment
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary(Written):
    """A night: how many cells ran, for how many seconds in all, and what their tests came to."""

    night: str
    cells: int
    seconds: float
    counts: Mapping[Verdict, int] = field(default_factory=dict)


def standings(
    history: History,
    names: Collection[str],
    *,
    kernel: str | None = None,
    machine: str | None = None,
) -> list[Standing]:
    """How these tests stand, in order of cells and tests; of a kernel's or a machine's cells
    alone, where one is given."""
    chosen = (tests.c.name.in_(names), *_on(kernel, machine))
    stands = _stands().where(*chosen).subquery()
    good = runs.alias()
    first_bad = (
        _failures(stands, good)
        .where(runs.c.night > sa.func.coalesce(good.c.night, ""))
        .order_by(runs.c.night, runs.c.attempt)
        .limit(1)
        .scalar_subquery()
    )
    query = sa.select(stands, first_bad.label("first_bad")).select_from(
        stands.outerjoin(good, good.c.id == stands.c.last_good)
    )
    with history.reading() as connection:
        found = connection.execute(query).mappings().all()
        flaked = {
            (line.test_id, line.cell_id): line.flaked
            for line in connection.execute(_flakes().where(*chosen))
        }
        moments = _moments(connection, (line[at] for line in found for at in _MOMENTS))
    return sorted(
        (
            Standing(
                CellKey(*(line[column.name] for column in CELL)),
                line["name"],
                line["passed"],
                line["failed"],
                flaked.get((line["test_id"], line["cell_id"]), 0),
                *(moments.get(line[at]) for at in _MOMENTS),
            )
            for line in found
        ),
        key=lambda standing: (standing.cell, standing.test),
    )


def seen(
    history: History, title: str, *, kernel: str | None = None, machine: str | None = None
) -> list[Sighting]:
    """Where a splat was seen, in order of cells."""
    query = (
        sa.select(*CELL, runs.c.night, runs.c.id, tests.c.name)
        .select_from(
            sightings.join(splats)
            .join(verdicts)
            .join(runs)
            .join(cells)
            .outerjoin(tests, tests.c.id == verdicts.c.test_id)
        )
        .where(splats.c.title == title, *_on(kernel, machine))
        .order_by(runs.c.night, runs.c.attempt)
    )
    of_cell: dict[CellKey, list[tuple[str, int, str | None]]] = {}
    with history.reading() as connection:
        for *names, night, run_id, test in connection.execute(query):
            of_cell.setdefault(CellKey(*names), []).append((night, run_id, test))
        ends = [run_id for those in of_cell.values() for _, run_id, _ in (those[0], those[-1])]
        moments = _moments(connection, ends)
    return [
        Sighting(
            cell,
            title,
            len({night for night, _, _ in those}),
            moments[those[0][1]],
            moments[those[-1][1]],
            tuple(sorted({test for _, _, test in those if test})),
        )
        for cell, those in sorted(of_cell.items())
    ]


def summaries(
    history: History, limit: int, *, kernel: str | None = None, machine: str | None = None
) -> list[Summary]:
    """The last nights, the newest first: what their whole runs came to."""
    nights = sa.select(runs.c.night).distinct().order_by(runs.c.night.desc()).limit(limit)
    query = (
        sa.select(runs.c.night, runs.c.seconds, runs.c.counts)
        .join(cells)
        .where(runs.c.night.in_(nights), runs.c.attempt == 0, *_on(kernel, machine))
    )
    of_night: dict[str, list[tuple[float, Mapping[str, int]]]] = {}
    with history.reading() as connection:
        for night, seconds, counts in connection.execute(query):
            of_night.setdefault(night, []).append((seconds, counts))
    return [
        Summary(
            night,
            len(those),
            sum(seconds for seconds, _ in those),
            +Counter({
                verdict: sum(counts.get(verdict, 0) for _, counts in those) for verdict in Verdict
            }),
        )
        for night, those in sorted(of_night.items(), reverse=True)
    ]  # fmt: skip


# The parts of a query


_MOMENTS = ("last_good", "last_bad", "first_bad")


def _stands() -> sa.Select[tuple[object, ...]]:
    """A line a test and cell, with the numbers of its last runs that passed and failed."""
    # From the newest run of the cell on, which almost always is the one: to look at all that the
    # test has said would take a second.
    good = (
        sa.exists()
        .where(verdicts.c.test_id == tallies.c.test_id, verdicts.c.run_id == runs.c.id, passed())
        .correlate(tallies, runs)
    )
    last_good = (
        sa.select(runs.c.id)
        .where(runs.c.cell_id == tallies.c.cell_id, tallies.c.passed > 0, good)
        .order_by(runs.c.night.desc(), runs.c.attempt.desc())
        .limit(1)
        .correlate(tallies)
        .scalar_subquery()
    )
    last_bad = (
        _failures(tallies)
        .order_by(runs.c.night.desc(), runs.c.attempt.desc())
        .limit(1)
        .scalar_subquery()
    )
    return sa.select(
        tallies,
        tests.c.name,
        *CELL,
        last_good.label("last_good"),
        last_bad.label("last_bad"),
    ).select_from(tallies.join(tests).join(cells))


def _failures(of: sa.FromClause, *others: sa.FromClause) -> sa.Select[tuple[int]]:
    """The numbers of the runs in which a test, a line of `of`, failed in a cell."""
    return (
        sa.select(runs.c.id)
        .select_from(verdicts.join(runs))
        .where(
            verdicts.c.failed,
            verdicts.c.test_id == of.c.test_id,
            runs.c.cell_id == of.c.cell_id,
        )
        .correlate(of, *others)
    )


def _flakes() -> sa.Select[tuple[int, int, int]]:
    """How many failures of a test in a cell were on bits on which it has passed, too."""
    other, said = runs.alias(), verdicts.alias()
    good = (
        sa.exists()
        .where(said.c.run_id == other.c.id, said.c.test_id == verdicts.c.test_id, passed(said))
        .correlate(other, verdicts)
    )
    bits = ("cell_id", "kernel_key", "qemu", "lab")
    on_same = (
        sa.exists()
        .where(*(other.c[name] == runs.c[name] for name in bits), good)
        .correlate(runs, verdicts)
    )
    return (
        sa.select(verdicts.c.test_id, runs.c.cell_id, sa.func.count().label("flaked"))
        .select_from(verdicts.join(runs).join(cells).join(tests))
        .where(verdicts.c.failed, runs.c.kernel_key != "", on_same)
        .group_by(verdicts.c.test_id, runs.c.cell_id)
    )


def _on(kernel: str | None, machine: str | None) -> list[sa.ColumnElement[bool]]:
    wanted = ((cells.c.kernel, kernel), (cells.c.machine, machine))
    return [column == name for column, name in wanted if name is not None]


def _moments(connection: sa.Connection, ids: Iterable[int | None]) -> dict[int | None, Moment]:
    """Those of runs, by their numbers."""
    query = sa.select(
        runs.c.id, runs.c.night, runs.c.release, runs.c.source, runs.c.kernel_key
    ).where(runs.c.id.in_({number for number in ids if number is not None}))
    return {number: Moment(*rest) for number, *rest in connection.execute(query)}
