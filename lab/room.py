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
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return max(0, free)


def guests(machine: Machine) -> int:
    """How many guests of this machine fit into the memory that is left."""
    return available() // memory_of(machine)


def workers(machine: Machine) -> int:
    """How many workers may test at once: one for each processor, as a test often waits for a
    device; each has a guest, and one that boots."""
    return max(1, min(len(os.sched_getaffinity(0)), guests(machine) // 2))
