# SPDX-License-Identifier: GPL-2.0-only
"""From the command to the first test's call, beside QEMU that is started by hand."""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.bench import runs
from lab.bench.byhand import login_by_hand
from lab.bench.figures import Measured
from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.progress import Progress
from lab.results.folder import RunFolder

_ONE = ("--rule", "OWN-2", "--mode", "iommufd")  # one test that is over at once


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` of each, by default 5."""
    init = Measured("QEMU by hand, to init")
    floor = Measured("QEMU by hand, to a login")
    agent = Measured("a guest, to its agent", floor.name)
    whole = Measured("command to the first test", floor.name)
    for number in range((rounds or 5) + 1):
        with TemporaryDirectory(prefix="vfio-lab-bench-") as folder:
            place = RunFolder(Path(folder))
            with Cell(lab, choice, Cache.of_user(), Progress(), place) as cell:
                started = time.perf_counter()
                guest = cell.testbed().guest.folder
                ready = time.perf_counter() - started
            by_hand = login_by_hand(guest)
        first = runs.of(lab, choice, _ONE).figures["first_call_seconds"]
        if number:  # the first round warms the host's caches up
            init.values.append(by_hand.init)
            floor.values.append(by_hand.login)
            agent.values.append(ready)
            whole.values.append(first)
    return init, floor, agent, whole


def login_seconds(lab: Lab, choice: Choice) -> float:
    """QEMU's start to a served login; nothing else runs: all is loaded, and the process waits."""
    with (
        TemporaryDirectory(prefix="vfio-lab-bench-") as folder,
        Cell(lab, choice, Cache.of_user(), Progress(), RunFolder(Path(folder))) as cell,
    ):
        return cell.testbed().guest.seconds["login"]
