# SPDX-License-Identifier: GPL-2.0-only
"""How it went over the nights: numbers a night, and their plots."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Self

from lab.history.model import CellKey, Point
from lab.history.store import History
from lab.page.plot import Curve, Plot
from lab.results.verdict import Verdict

MOST = 100  # nights that a trend goes back
_FIGURES = {"ready_seconds": "boot", "login_seconds": "login"}


@dataclass(frozen=True)
class Tally:
    """A night in numbers: of one cell, or of all. `seconds` of all its runs, one after the other;
    `figures` are what the runs measured, the median of the cells."""

    night: str
    seconds: float
    counts: Mapping[Verdict, int]
    figures: Mapping[str, float]

    @property
    def kept(self) -> int:
        return self.counts.get(Verdict.KEPT, 0)

    @property
    def trouble(self) -> int:
        """How many verdicts somebody has to act on."""
        return sum(count for verdict, count in self.counts.items() if verdict.is_trouble)

    def figure(self, name: str) -> float | None:
        """One of _FIGURES by its short name."""
        return next((self.figures.get(key) for key, n in _FIGURES.items() if n == name), None)


@dataclass(frozen=True)
class Trends:
    """Of every cell, and of all together: a tally a night, the oldest first."""

    cells: Mapping[CellKey, Sequence[Tally]]
    whole: Sequence[Tally]

    @classmethod
    def of(cls, history: History) -> Self:
        """Those of the newest MOST nights."""
        points = {cell: history.trend(cell, MOST) for cell in history.cells()}
        cells = {cell: _tallies(found) for cell, found in points.items()}
        whole = _tallies(point for found in points.values() for point in found)
        return cls(cells, whole[-MOST:])

    def until(self, night: str) -> Self:
        """As they were that night."""
        cells = {cell: _until(found, night) for cell, found in self.cells.items()}
        return replace(self, cells=cells, whole=_until(self.whole, night))


def plots(found: Sequence[Tally]) -> Sequence[Plot]:
    """Three of them; none where there are not two nights to compare."""
    if len(found) < 2:
        return []
    nights = [tally.night for tally in found]
    longest = max(tally.seconds for tally in found)
    unit, scale = ("hours", 3600) if longest >= 7200 else ("minutes", 60)
    figures = [Curve(name, [tally.figure(name) for tally in found]) for name in _FIGURES.values()]
    made = [
        Plot("trouble", "tests", nights, [Curve("trouble", [each.trouble for each in found])]),
        Plot("kept", "tests", nights, [Curve("kept", [each.kept for each in found])]),
        Plot("run time", unit, nights, [Curve("run", [each.seconds / scale for each in found])]),
    ]
    measured = [curve for curve in figures if curve.last is not None]
    return [*made, Plot("boot and login", "seconds", nights, measured)] if measured else made


def _tally(night: str, points: Sequence[Point]) -> Tally:
    counts: Counter[Verdict] = Counter()
    for point in points:
        counts.update(point.counts)
    measured: dict[str, list[float]] = {}
    for point in points:
        for name in _FIGURES:
            if name in point.figures:
                measured.setdefault(name, []).append(point.figures[name])
    figures = {name: median(values) for name, values in measured.items()}
    return Tally(night, sum(point.seconds for point in points), counts, figures)


def _tallies(points: Iterable[Point]) -> Sequence[Tally]:
    of_night: dict[str, list[Point]] = {}
    for point in points:
        of_night.setdefault(point.night, []).append(point)
    return [_tally(night, of_night[night]) for night in sorted(of_night)]


def _until(tallies: Sequence[Tally], night: str) -> Sequence[Tally]:
    return [tally for tally in tallies if tally.night <= night]
