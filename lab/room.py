# SPDX-License-Identifier: GPL-2.0-only
"""How many guests this host has room for: its memory and its processors, counted."""

import os
from pathlib import Path

from lab.config import Machine, bytes_of

OVERHEAD = 300 << 20  # bytes that QEMU takes beside the guest's memory
_CGROUP = Path("/sys/fs/cgroup")  # of a container, which sees only its own


def memory_of(machine: Machine) -> int:
    """Bytes that one guest may come to take."""
    return bytes_of(machine.memory) + OVERHEAD


def available() -> int:
    """Bytes that programs can have without swapping: proc(5), /proc/meminfo; in a container no
    more than its limit leaves."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":") for line in lines)
    free = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text()) - _cached()
        free = min(free, limit - used)
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return max(0, free)


def _cached() -> int:
    """Bytes of a container's that are files' and can be had back: after a kernel was built, most
    of its limit. Documentation/admin-guide/cgroup-v2.rst, memory.stat."""
    lines = (_CGROUP / "memory.stat").read_text().splitlines()
    counts = dict(line.split() for line in lines)
    return int(counts["active_file"]) + int(counts["inactive_file"])


def processors() -> int:
    """How many this process may use; in a container no more than its share of time is worth, in
    whole ones."""
    number = len(os.sched_getaffinity(0))
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        number = min(number, int(quota) // int(period))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return max(1, number)


def guests(machine: Machine) -> int:
    """How many guests of this machine fit into the memory that is left."""
    return available() // memory_of(machine)


def workers(machine: Machine) -> int:
    """How many workers may test at once: one for each processor, as a test often waits for a
    device; each has a guest, and one that boots."""
    return max(1, min(processors(), guests(machine) // 2))
