# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab bench`: what the lab itself costs."""

from collections.abc import Callable, Sequence

from lab.bench import (
    agent,
    boot,
    fleet,
    guests,
    history,
    night,
    page,
    pool,
    series,
    variants,
    workers,
)
from lab.bench.figures import Measured, print_json, show
from lab.cell import Choice
from lab.config import Lab, known

_BENCHMARKS: dict[str, Callable[[Lab, Choice, int], Sequence[Measured]]] = {
    "boot": boot.measure,
    "cells": night.measure,
    "agent": agent.measure,
    "fleet": fleet.measure,
    "guests": guests.measure,
    "history": history.measure,
    "page": page.measure,
    "pool": pool.measure,
    "workers": workers.measure,
    "series": series.measure,
    "variants": variants.measure,
}
_SEVERAL = {
    None: ("boot", "agent", "pool", "workers"),  # of what takes minutes each
    "night": ("cells", "fleet", "page", "history"),
}


def measure(lab: Lab, choice: Choice, what: str | None, rounds: int, *, as_json: bool) -> None:
    """Run one benchmark, or several, and print the figures: without a name those that say what
    guests and tests cost.

    Raises ConfigurationError for an unknown one.
    """
    every = [*_BENCHMARKS, *filter(None, _SEVERAL)]
    names = _SEVERAL.get(what) or [known("benchmark", str(what), every)]
    found = {}
    for name in names:
        found[name] = _BENCHMARKS[name](lab, choice, rounds)
        if not as_json:
            show(name, found[name])
    if as_json:
        print_json(found)
