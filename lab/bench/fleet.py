# SPDX-License-Identifier: GPL-2.0-only
"""A fleet on this host alone: what it adds to a night that local processes run."""

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lab import room
from lab.bench.figures import Measured
from lab.bench.night import night_of, small_lab
from lab.cell import Choice
from lab.config import Lab
from lab.fleet import check_installed
from lab.proc import background


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` of each, by default 1: the cells of `lab.bench.night` by local processes, and by as
    many workers of a fleet, which have fetched the kernel in a night before. Raises as `night_of`
    does, and ConfigurationError where Dask is missing."""
    check_installed()
    numbers = (1, 2)
    alone = {n: Measured(f"a night, {n} at a time") for n in numbers}
    fleet = {n: Measured(f"a fleet's, {n} workers", alone[n].name) for n in numbers}
    first = {n: Measured(f"its first, {n} empty caches", alone[n].name) for n in numbers}
    with small_lab(
        lab, choice.kernel or lab.run.kernel, choice.machine or lab.run.machine
    ) as small:
        for n in numbers:
            with _fleet(small, n) as words:
                first[n].values.append(night_of(small, *words))
                for _ in range(rounds or 1):
                    alone[n].values.append(night_of(small, "--jobs", str(n)))
                    fleet[n].values.append(night_of(small, *words))
    return [each[n] for n in numbers for each in (alone, fleet, first)]


@contextmanager
def _fleet(small: Lab, workers: int) -> Iterator[tuple[str, ...]]:
    """A scheduler and workers as long as the block lasts, and the options of a night on them."""
    with TemporaryDirectory(prefix="fleet-", dir=small.root) as folder, ExitStack() as stack:
        place = Path(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        address = f"tcp://127.0.0.1:{port}"
        python = [sys.executable, "-P", "-m"]
        argv = [*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
        argv += ["--port", str(port), "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        stack.enter_context(background(argv, place / "scheduler.log"))
        for number in range(workers):
            own = place / f"worker-{number}"
            env = [f"VFIO_LAB_CACHE={own}/cache", f"VFIO_LAB_STATE={own}/state"]
            argv = ["env", *env, *python, "lab", "worker", "--lab", str(small.root), "--jobs", "1"]
            argv += ["--scheduler", address, "--name", own.name]
            argv += ["--cpus", str(max(1, room.processors() // workers))]
            argv += ["--memory", f"{room.available() // workers // 10**6}M"]
            stack.enter_context(background(argv, place / f"{own.name}.log", grace=60.0))
        yield "--scheduler", address, "--store", (place / "store").as_uri()
