# SPDX-License-Identifier: GPL-2.0-only
"""Stress while an attempt runs; that it is there is measured, not hoped for.

| stress | what is done                                     | what is measured                     |
|--------|--------------------------------------------------|--------------------------------------|
| pin    | QEMU's threads of the guest's CPUs share one CPU | the affinity that the host tells     |
| memory | a program takes all but 16 MiB of the guest's,   | MemAvailable, before and after       |
|        | and gives some back when less than 8 are left    |                                      |
| noise  | for each CPU a real-time thread, busy for up to  | CPU time that they took beside what  |
|        | 3 ms and then asleep for up to 10, and a nice    | the guest's CPUs had                 |
|        | one that never sleeps                            |                                      |
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lab.agent.errors import RemoteError
from lab.agent.syscalls import Syscall
from lab.deadline import Deadline
from lab.errors import InfrastructureError, LabError
from lab.programs import run as running
from lab.repro.order import Order, Stress
from lab.testbed import Testbed

SOURCE = Path(__file__).with_name("vfio-lab-stress.c")
NAME = SOURCE.stem  # of its processes
LEFT = 16  # MiB that `memory` leaves
_TWICE = 2  # times that much is near enough
_BEGINNING = 30.0  # seconds until memory is taken: an emulated CPU writes 300 MB in one
_TICK = 100  # sysconf(_SC_CLK_TCK) of every x86


@dataclass
class Strain:
    """What one guest is under; ask it at the end."""

    testbed: Testbed
    groups: dict[Stress, int] = field(default_factory=dict)  # process groups, by what they do
    pinned: int | None = None  # the host's CPU
    before: float = 0.0  # seconds of the guest's own clock, and of CPU time that noise had then
    noise: float = 0.0

    def begin(self) -> None:
        """The program is about to run."""
        self.before = _uptime(self.testbed)
        if group := self.groups.get(Stress.NOISE):
            self.noise = _cpu_seconds(self.testbed, group)

    def measured(self) -> str:
        """What it was, in figures. Raises InfrastructureError where it was not there."""
        told = []
        if self.pinned is not None:
            threads = _threads(self.testbed)
            if any(os.sched_getaffinity(thread) != {self.pinned} for thread in threads):
                raise InfrastructureError("stress: the guest's CPUs have left their CPU")
            told.append(f"{len(threads)} CPUs on CPU {self.pinned}")
        if Stress.MEMORY in self.groups:
            told.append(f"{_available(self.testbed)} MiB available")
        if group := self.groups.get(Stress.NOISE):
            seconds = (_uptime(self.testbed) - self.before) * self.testbed.machine.cpus
            taken = _cpu_seconds(self.testbed, group) - self.noise
            if taken <= 0:
                raise InfrastructureError("stress: the noise was not to be heard")
            share = taken / max(seconds, taken)  # ticks are coarse
            told.append(f"noise took {100 * share:.0f} % of {self.testbed.machine.cpus} CPUs")
        return ", ".join(told)


@contextmanager
def under(
    order: Order, testbed: Testbed, program: Path | None, number: int, jobs: int
) -> Iterator[Strain]:
    """The stress of an order, in effect in the block. `program` is what SOURCE was compiled to.

    `jobs` is how many guests there are at once: each is pinned to a CPU of its own, as far as
    there are. Raises LabError.
    """
    strain = Strain(testbed)
    try:
        if program and Stress.MEMORY in order.stress:
            strain.groups[Stress.MEMORY] = _start(testbed, program, "memory", LEFT)
            _await_memory(testbed)
        if Stress.PIN in order.stress:
            strain.pinned = _pin(testbed, jobs)
        if program and Stress.NOISE in order.stress:
            seed = (order.seed + number) % 2**16
            strain.groups[Stress.NOISE] = _start(testbed, program, "noise", seed)
        strain.begin()
        yield strain
    finally:
        for group in strain.groups.values():
            with suppress(LabError, RemoteError):  # the guest may be gone
                testbed.hands.syscall(Syscall.KILL, -group, 9)


def _start(testbed: Testbed, program: Path, *words: str | int) -> int:
    target = running.push(testbed.guest, testbed.hands, program)
    line = f"{target} {' '.join(map(str, words))} >/dev/null 2>&1 & echo $!"
    said = testbed.guest.ssh.run("sh", "-c", line).output.strip()
    if not said.isdigit():
        raise InfrastructureError(f"stress: {program.name} does not start: {said}")
    return int(said)


def _await_memory(testbed: Testbed) -> None:
    deadline = Deadline.after(_BEGINNING * testbed.stretch)
    while _available(testbed) > _TWICE * LEFT:
        if deadline.passed:
            raise InfrastructureError(
                f"stress: after {deadline.seconds:.0f} s {_available(testbed)} MiB are available"
            )
        time.sleep(0.1)


def _available(testbed: Testbed) -> int:
    """MiB that the guest's programs can have: proc(5), /proc/meminfo."""
    lines = testbed.hands.read_text("/proc/meminfo").splitlines()
    fields = dict(line.split(":") for line in lines)
    return int(fields["MemAvailable"].split()[0]) // 1024


def _uptime(testbed: Testbed) -> float:
    return float(testbed.hands.read_text("/proc/uptime").split()[0])


def _cpu_seconds(testbed: Testbed, group: int) -> float:
    """What the processes of a group have had: proc_pid_stat(5), utime and stime."""
    hands, ticks = testbed.hands, 0
    for number in filter(str.isdigit, hands.listdir("/proc")):
        with suppress(RemoteError):  # it has just gone
            words = hands.read_text(f"/proc/{number}/stat").rpartition(")")[2].split()
            if int(words[2]) == group:
                ticks += int(words[11]) + int(words[12])
    return ticks / _TICK


def _threads(testbed: Testbed) -> list[int]:
    """QEMU's of the guest's CPUs."""
    cpus = testbed.guest.monitor.execute("query-cpus-fast")
    return sorted({cpu["thread-id"] for cpu in cpus})


def _pin(testbed: Testbed, jobs: int) -> int:
    """Put the guest's CPUs onto one of the host's; which it is."""
    usable = sorted(os.sched_getaffinity(0))[: max(jobs, 1)]
    chosen = usable[testbed.number % len(usable)]
    for thread in _threads(testbed):
        os.sched_setaffinity(thread, {chosen})
    return chosen
