# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab bench`: what the lab itself costs."""

from collections.abc import Callable, Sequence

from lab.bench import agent, boot, series
from lab.bench.figures import Measured, show
from lab.cell import Choice
from lab.config import Lab, known

_BENCHMARKS: dict[str, Callable[[Lab, Choice, int], Sequence[Measured]]] = {
    "agent": agent.measure,
    "boot": boot.measure,
    "series": series.measure,
}


def measure(lab: Lab, choice: Choice, what: str, rounds: int, *, as_json: bool) -> None:
    """Run one benchmark and print its figures. Raises ConfigurationError for an unknown one."""
    show(
        what,
        _BENCHMARKS[known("benchmark", what, _BENCHMARKS)](lab, choice, rounds),
        as_json=as_json,
    )
