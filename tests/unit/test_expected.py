# SPDX-License-Identifier: GPL-2.0-only
"""Blocked DMA belongs to a test, or to the run; none falls between two tests."""

from types import SimpleNamespace
from typing import Any

from lab.expected import Announced
from lab.guest import DmarFault


def test_dma_that_is_blocked_between_two_tests_is_answered_for() -> None:
    blocked: list[DmarFault] = []
    guest: Any = SimpleNamespace(
        alive=False,
        heard=0,
        faults_heard=0,
        faults=lambda start: blocked[start:],
        console=SimpleNamespace(size=0),
        hear=lambda _: "",
    )
    testbed: Any = SimpleNamespace(guest=guest)
    first, late = (DmarFault(0x10, address, True) for address in (0x1000, 0x2000))
    blocked.append(first)
    assert Announced(testbed).unexplained() == ((), (first,))
    blocked.append(late)
    assert Announced(testbed).unexplained() == ((), (late,))
    assert Announced(testbed).unexplained() == ((), ())
