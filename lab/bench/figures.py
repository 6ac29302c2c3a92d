# SPDX-License-Identifier: GPL-2.0-only
"""Measurements, and how they look."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measured:
    """One thing, measured several times, in seconds. `floor` names what it is to be seen beside,
    None for a floor, or a part of which nobody knows how fast it could be."""

    name: str
    floor: str | None = None
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def show(title: str, measured: Sequence[Measured], *, as_json: bool) -> None:
    """Print them, each with its ratio to its floor."""
    medians = {each.name: each.median for each in measured}
    rows = {
        each.name: {
            "runs": len(each.values),
            "minimum": min(each.values),
            "median": each.median,
            "maximum": max(each.values),
            "floor": each.floor,
            "ratio": each.median / medians[each.floor] if each.floor else None,
        }
        for each in measured
    }
    if as_json:
        print(json.dumps({"benchmark": title, "unit": "s", "figures": rows}, indent=1))
        return
    unit, scale = ("seconds", 1) if min(medians.values()) > 0.1 else ("milliseconds", 1000)
    table = Table(title=f"bench {title}, {unit}", title_justify="left")
    table.add_column("measured")
    for column in ("runs", "minimum", "median", "maximum", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("to")
    for each in measured:
        seconds = (min(each.values), each.median, max(each.values))
        times = [f"{scale * value:.2f}" for value in seconds]
        ratio = f"{each.median / medians[each.floor]:.2f}" if each.floor else ""
        table.add_row(each.name, str(len(each.values)), *times, ratio, each.floor or "")
    Console().print(table)
