# SPDX-License-Identifier: GPL-2.0-only
"""How long tests wait for guests in a run in which every twentieth test kills its guest."""

from collections.abc import Sequence

from lab.bench import killer, runs
from lab.bench.figures import Measured
from lab.cell import Choice
from lab.config import Lab

_MODE = ("--mode", "iommufd")


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` runs of the contract in one mode, by default 1."""
    boot = Measured("a boot, to a login")
    wait = Measured("wait for a new guest", boot.name)
    whole = Measured("the run")
    waited = Measured("all waits for guests", whole.name)
    for _ in range(rounds or 1):
        record = runs.of(
            lab,
            choice,
            [*_MODE, "-n", "1"],
            plugin=killer.__name__,
            lost_every=killer.EVERY,
        )
        boot.values.append(record.figures["login_seconds"])
        waited.values.append(record.figures["waited_seconds"])
        wait.values.append(record.figures["waited_seconds"] / (record.figures["guests"] - 1))
        whole.values.append(record.seconds)
    return boot, wait, whole, waited
