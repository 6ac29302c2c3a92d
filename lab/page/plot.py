# SPDX-License-Identifier: GPL-2.0-only
"""Curves over the nights, in a vector graphic: where their points, ticks and words are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from lab.page.place import moment

WIDTH, HEIGHT = 340, 132  # in units of the graphic, which are pixels where there is room
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 8, 20  # the margins, for the axes' words
_STEPS = (1, 2, 2.5, 5, 10)
_TICKS = 4
_DOTS = 31  # nights: where they are more, a dot on each would be a thick line


@dataclass(frozen=True)
class Curve:
    """A value a night; None where it was not measured."""

    name: str
    values: Sequence[float | None]

    @property
    def last(self) -> float | None:
        """The newest that there is."""
        return next((value for value in reversed(self.values) if value is not None), None)

    @property
    def said(self) -> str:
        """The curve in words."""
        seen = [value for value in self.values if value is not None]
        if not seen or self.last is None:
            return f"{self.name}: never measured"
        least, most = shown(min(seen)), shown(max(seen))
        return f"{self.name}: {shown(self.last)} at the end, from {least} to {most}"


@dataclass(frozen=True)
class Tick:
    """A word at an axis, and where."""

    at: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Curves that share a unit, a value a night. `nights` are two names or more, oldest first."""

    title: str
    unit: str
    nights: Sequence[str]
    curves: Sequence[Curve]

    @property
    def words(self) -> str:
        """The plot for who does not see it."""
        span = f"{moment(self.nights[0], _DAY)} to {moment(self.nights[-1], _DAY)}"
        return f"{span}, {self.unit}. {'. '.join(curve.said for curve in self.curves)}."

    @property
    def rows(self) -> list[Tick]:
        """Of the axis that goes up, which begins with 0."""
        step = self._step
        count = round(self._top / step)
        return [Tick(self._y(number * step), shown(number * step)) for number in range(count + 1)]

    @property
    def columns(self) -> list[Tick]:
        """The first night, the last, and one between them."""
        last = len(self.nights) - 1
        places = sorted({0, last // 2, last} if last > 3 else {0, last})
        return [Tick(self._across[at], moment(self.nights[at], "%d %b")) for at in places]

    def lines(self, curve: Curve) -> list[str]:
        """The points of the curve's lines: it is torn where a night has no value."""
        placed = zip(self._across, curve.values, strict=True)
        return [
            " ".join(f"{x},{self._y(value or 0.0)}" for x, value in part)
            for there, part in groupby(placed, key=lambda pair: pair[1] is not None)
            if there
        ]

    def dots(self, curve: Curve) -> list[tuple[float, float]]:
        """Points that are marked: all of a few, else the last."""
        marked = [at for at, value in enumerate(curve.values) if value is not None]
        few = marked if len(self.nights) <= _DOTS else marked[-1:]
        return [(self._across[at], self._y(curve.values[at] or 0.0)) for at in few]

    @cached_property
    def _largest(self) -> float:
        return max((v for c in self.curves for v in c.values if v is not None), default=0.0)

    @cached_property
    def _step(self) -> float:
        rough = (self._largest or 1.0) / _TICKS
        scale = 10.0 ** math.floor(math.log10(rough))
        return next(step * scale for step in _STEPS if step * scale >= rough * 0.999)

    @cached_property
    def _top(self) -> float:
        return math.ceil((self._largest or 1.0) / self._step - 1e-6) * self._step

    @cached_property
    def _across(self) -> Sequence[float]:
        """Where each night is."""
        step = (WIDTH - LEFT - RIGHT) / (len(self.nights) - 1)
        return [round(LEFT + step * at, 1) for at in range(len(self.nights))]

    def _y(self, value: float) -> float:
        room = HEIGHT - TOP - BOTTOM
        return round(TOP + room * (1 - value / self._top), 1)


_DAY = "%d %b %Y"


def shown(value: float) -> str:
    """A number in as few digits as one needs."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
