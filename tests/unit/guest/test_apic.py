# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU says of a local APIC."""

import pytest

from lab.guest.apic import stuck_interrupt, vectors_in_service
from lab.guest.monitor import Monitor

IDLE = """dumping local APIC state for CPU 0

SPIV\t 0x000001ff APIC enabled, focus=off, spurious vec 255
ESR\t 0x00000000
ISR\t (none)
IRR\t 236

APR 0x00 TPR 0x10 DFR 0x0f LDR 0x00 PPR 0x10
"""
STUCK = IDLE.replace("CPU 0", "CPU 1").replace("ISR\t (none)", "ISR\t 34 236 ")


class Dumps(Monitor):
    """A monitor that shows one dump after the other, for each CPU."""

    def __init__(self, *dumps: str) -> None:
        self._dumps = list(dumps)

    def human(self, line: str, *, timeout: float = 0.0) -> str:  # noqa: ARG002
        assert line.startswith("info lapic")
        return self._dumps.pop(0) if len(self._dumps) > 1 else self._dumps[0]


@pytest.mark.parametrize(("dump", "vectors"), [(IDLE, []), (STUCK, [34, 236])])
def test_vectors_in_service_are_read(dump: str, vectors: list[int]) -> None:
    assert vectors_in_service(dump) == vectors


def test_an_interrupt_that_stays_in_service_is_stuck() -> None:
    assert "interrupt 34 in service on CPU 0" in str(stuck_interrupt(Dumps(STUCK), 1))


def test_an_interrupt_whose_handler_ends_is_not() -> None:
    assert stuck_interrupt(Dumps(STUCK, STUCK, IDLE), 1) is None
