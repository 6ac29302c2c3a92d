# SPDX-License-Identifier: GPL-2.0-only
"""The contract in one mode with one worker, and with more."""

from collections.abc import Sequence

from lab import room
from lab.bench import runs
from lab.bench.figures import Measured
from lab.cell import Choice, machine_of
from lab.config import Lab

_MODE = ("--mode", "iommufd")


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` of each, by default 1: with one worker, two, and as many as a run has by itself."""
    machine = lab.machine(machine_of(lab, choice))
    numbers = sorted({1, 2, room.workers(machine)})
    measured = {
        number: Measured(_name(number), None if number == 1 else _name(1), unit="tests a minute")
        for number in numbers
    }
    for _ in range(rounds or 1):
        for number, each in measured.items():
            record = runs.of(lab, choice, [*_MODE, "-n", str(number)])
            each.values.append(60 * len(record.tests) / record.seconds)
    return list(measured.values())


def _name(number: int) -> str:
    return f"{number} worker" if number == 1 else f"{number} workers"
