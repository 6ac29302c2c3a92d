# SPDX-License-Identifier: GPL-2.0-only
"""Whether an emulated CPU still takes interrupts.

On a busy host TCG was seen to leave an interrupt in service after its handler had ended: the CPU
sleeps, and no interrupt of that priority or below reaches it again, its timer's among them. The
guest then hangs in whatever waits for that CPU, and looks as if its kernel did.
"""

import re
import time

from lab.guest.monitor import Monitor

_LOOKS = 4
_BETWEEN = 0.1  # seconds; no handler takes so long


def stuck_interrupt(monitor: Monitor, cpus: int) -> str | None:
    """What is in service on the same CPU at every look, in words, or None."""
    found = [_in_service(monitor, cpus)]
    for _ in range(_LOOKS - 1):
        time.sleep(_BETWEEN)
        found.append(_in_service(monitor, cpus))
    stuck = sorted(set.intersection(*found))
    if not stuck:
        return None
    cpu, vector = stuck[0]
    return f"TCG has left interrupt {vector} in service on CPU {cpu}, which takes no other one"


def _in_service(monitor: Monitor, cpus: int) -> set[tuple[int, int]]:
    """(CPU, vector) of every interrupt whose handler has not ended."""
    return {
        (cpu, vector)
        for cpu in range(cpus)
        for vector in vectors_in_service(monitor.human(f"info lapic {cpu}"))
    }


def vectors_in_service(dump: str) -> list[int]:
    """The vectors in the line "ISR" of what the human monitor's `info lapic` prints."""
    line = re.search(r"^ISR\s+(.*)$", dump, re.MULTILINE)
    return [int(word) for word in re.findall(r"\d+", line[1])] if line else []
