# SPDX-License-Identifier: GPL-2.0-only
"""A system call through the agent, beside an echo through the same SSH connection."""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.agent.syscalls import Syscall
from lab.bench.figures import Measured
from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.progress import Progress
from lab.results.folder import RunFolder


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` of each, by default 2000."""
    echo = Measured("echo of 64 bytes by cat")
    call = Measured("getpid() by the agent", echo.name)
    with (
        TemporaryDirectory(prefix="vfio-lab-bench-") as folder,
        Cell(lab, choice, Cache.of_user(), Progress(), RunFolder(Path(folder))) as cell,
        cell.testbed().start_process() as process,
    ):
        cat = cell.testbed().guest.ssh.start("exec cat", near=True)
        for _ in range(rounds or 2000):
            started = time.perf_counter()
            cat.send(bytes(64))
            received = 0
            while received < 64:
                received += len(cat.recv(time.monotonic() + 10))
            echo.values.append(time.perf_counter() - started)
            started = time.perf_counter()
            process.syscall(Syscall.GETPID)
            call.values.append(time.perf_counter() - started)
        cat.close()
    return echo, call
