# SPDX-License-Identifier: GPL-2.0-only
"""How many guests this host has room for: its memory and its processors, counted."""

import os
from dataclasses import dataclass
from pathlib import Path

from lab.config import Machine, bytes_of

OVERHEAD = 300 << 20  # bytes that QEMU takes beside the guest's memory
_CGROUP = Path("/sys/fs/cgroup")  # of a container, which sees only its own


@dataclass(frozen=True)
class _Version:
    """Where one version of control groups says what a container may have: files below `_CGROUP`.

    Documentation/admin-guide/cgroup-v2.rst; cgroup-v1/memory.rst and scheduler/sched-bwc.rst.
    """

    limit: str
    used: str
    stat: str
    files: tuple[str, str]  # in that, what is cached of files and can be had back
    quota: tuple[str, ...]  # of time and the period, in one file or two

    def memory(self) -> int | None:
        """Bytes that the limit leaves, None where there is none. After a kernel was built most of
        what is used is files'."""
        try:
            left = int(_read(self.limit)) - int(_read(self.used))
            counts = dict(line.split() for line in _read(self.stat).splitlines())
            return left + sum(int(counts[name]) for name in self.files)
        except (OSError, ValueError, KeyError):  # no such file, or "max"
            return None

    def cpus(self) -> int | None:
        """Whole processors that the time is worth, None where there is no limit."""
        try:
            quota, period = map(int, " ".join(map(_read, self.quota)).split())
        except (OSError, ValueError):
            return None
        return quota // period if quota >= 0 else None


_VERSIONS = (
    _Version(
        "memory.max",
        "memory.current",
        "memory.stat",
        ("active_file", "inactive_file"),
        ("cpu.max",),
    ),
    _Version(
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        ("total_active_file", "total_inactive_file"),
        ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
    ),
)


def _read(name: str) -> str:
    return (_CGROUP / name).read_text()


def memory_of(machine: Machine) -> int:
    """Bytes that one guest may come to take."""
    return bytes_of(machine.memory) + OVERHEAD


def available() -> int:
    """Bytes that programs can have without swapping: proc(5), /proc/meminfo; in a container no
    more than its limit leaves."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":") for line in lines)
    free = int(fields["MemAvailable"].split()[0]) * 1024
    return max(0, min([free, *(left for each in _VERSIONS if (left := each.memory()) is not None)]))


def processors() -> int:
    """How many this process may use; in a container no more than its share of time is worth, in
    whole ones."""
    number = len(os.sched_getaffinity(0))
    return max(1, min([number, *(most for each in _VERSIONS if (most := each.cpus()) is not None)]))


def guests(machine: Machine) -> int:
    """How many guests of this machine fit into the memory that is left."""
    return available() // memory_of(machine)


def workers(machine: Machine) -> int:
    """How many workers may test at once: one for each processor and one more, as a test often waits
    for a device; each has a guest, and one that boots."""
    return max(1, min(processors() + 1, guests(machine) // 2))
