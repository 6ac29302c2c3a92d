# SPDX-License-Identifier: GPL-2.0-only
"""Guests one after the other: how long each takes, and whether anything of them is left."""

import ctypes
import gc
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.agent.syscalls import Syscall
from lab.bench.figures import Measured
from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.deadline import Deadline
from lab.errors import LabError
from lab.progress import Progress
from lab.results.folder import RunFolder

_OF_THE_POOL = re.compile(r"guests_[0-2]")
_PATIENCE = 10.0  # seconds
_WARM_UP = 3  # guests: modules are loaded, threads are started, memory is taken from the host


@dataclass(frozen=True)
class Holdings:
    """What this process has of the host. `resident` is in bytes."""

    descriptors: Mapping[str, int]
    """How many of each kind: socket, pipe, anon_inode, file."""
    threads: tuple[str, ...]
    """By their names, without the pool's three, each of which starts when it is first needed."""
    children: int
    resident: int

    @classmethod
    def now(cls) -> "Holdings":
        threads = sorted(thread.name for thread in threading.enumerate())
        gc.collect()
        # what the allocator keeps for the next who asks is nobody's: malloc_trim(3)
        ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            Counter(_kinds()),
            tuple(name for name in threads if not _OF_THE_POOL.fullmatch(name)),
            sum(
                len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children")
            ),
            pages * os.sysconf("SC_PAGE_SIZE"),
        )

    @classmethod
    def like(cls, before: "Holdings | None") -> "Holdings":
        """The same once nothing is under way that has yet to end: no child, and all as it was
        before. Ten seconds later it is what it is."""
        deadline = Deadline.after(_PATIENCE)
        while True:
            found = cls.now()
            still = found.but_memory == before.but_memory if before else not found.children
            if still or deadline.passed:
                return found
            time.sleep(0.05)

    @property
    def but_memory(self) -> tuple[Mapping[str, int], tuple[str, ...], int]:
        """What has to be the same again, exactly."""
        return self.descriptors, self.threads, self.children


def _kinds() -> list[str]:
    kinds = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue  # of the listing itself
        kinds.append("file" if target.startswith("/") else target.partition(":")[0])
    return kinds


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` guests, by default 200, each booted, used and ended. Says how much memory the lab
    has grown by. Raises LabError where anything else is left of them."""
    login = Measured("QEMU to a login")
    whole = Measured("a guest, from nothing to nothing", login.name)
    progress = Progress()
    with (
        TemporaryDirectory(prefix="vfio-lab-bench-") as folder,
        Cell(lab, choice, Cache.of_user(), progress, RunFolder(Path(folder))) as cell,
    ):
        for _ in range(_WARM_UP):
            _use(cell)
        before = Holdings.like(None)
        for _ in range(rounds or 200):
            started = time.perf_counter()
            login.values.append(_use(cell))
            whole.values.append(time.perf_counter() - started)
        after = Holdings.like(before)
    if after.but_memory != before.but_memory:
        raise LabError(f"guests leave something: {before.but_memory}, and then {after.but_memory}")
    grown = (after.resident - before.resident) / len(whole.values) / 1024
    progress.say(
        f"{len(whole.values)} guests: nothing is left, memory grew by {grown:.0f} KiB each"
    )
    return login, whole


def _use(cell: Cell) -> float:
    """Boot a guest, have it do something, end it; seconds from QEMU's start to a login."""
    testbed = cell.testbed()
    with testbed.start_process() as process:
        process.syscall(Syscall.GETPID)
    cell.discard()
    return testbed.guest.seconds["login"]
