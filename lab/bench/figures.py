# SPDX-License-Identifier: GPL-2.0-only
"""Measurements, and how they look."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from lab.results.layout import plain_table

_SHORT = 0.1  # seconds; below it they are shown as milliseconds


@dataclass(frozen=True)
class Measured:
    """One thing, measured several times, in `unit`. `floor` names what it is to be seen beside,
    None for a floor, or a part of which nobody knows how fast it could be."""

    name: str
    floor: str | None = None
    values: list[float] = field(default_factory=list)
    unit: str = "s"

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def figures(measured: Sequence[Measured]) -> Mapping[str, Mapping[str, Any]]:
    """For a script: by name, each with its ratio to its floor."""
    medians = {each.name: each.median for each in measured}
    return {
        each.name: {
            "unit": each.unit,
            "runs": len(each.values),
            "minimum": min(each.values),
            "median": each.median,
            "maximum": max(each.values),
            "floor": each.floor,
            "ratio": each.median / medians[each.floor] if each.floor else None,
        }
        for each in measured
    }


def print_json(benchmarks: Mapping[str, Sequence[Measured]]) -> None:
    """All of them as one document."""
    content = [
        {"benchmark": title, "figures": figures(measured)} for title, measured in benchmarks.items()
    ]
    print(json.dumps(content[0] if len(content) == 1 else content, indent=1))


def show(title: str, measured: Sequence[Measured]) -> None:
    """A table of them."""
    medians = {each.name: each.median for each in measured}
    table = plain_table()
    table.add_column(f"bench {title}", no_wrap=True)
    for column in ("runs", "min", "median", "max", "", "ratio"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    table.add_column("to", no_wrap=True)
    for each in measured:
        short = each.unit == "s" and each.median < _SHORT
        times = [
            f"{value * 1000 if short else value:.2f}"
            for value in (min(each.values), each.median, max(each.values))
        ]
        ratio = f"{each.median / medians[each.floor]:.2f}" if each.floor else ""
        unit = "ms" if short else each.unit
        table.add_row(each.name, str(len(each.values)), *times, unit, ratio, each.floor or "")
    Console().print(table)
