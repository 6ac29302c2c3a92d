# SPDX-License-Identifier: GPL-2.0-only
"""Stress that does not begin is the lab's trouble, in words."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.errors import InfrastructureError
from lab.guest.ssh import Finished
from lab.programs import run as running
from lab.repro import stress
from lab.repro.order import Order, Stress


def test_a_guest_that_cannot_start_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "push", lambda *_: "/run/programs/vfio-lab-stress")
    ssh = SimpleNamespace(run=lambda *_: Finished(2, "sh: can't fork: Out of memory\n"))
    testbed = cast(Any, SimpleNamespace(guest=SimpleNamespace(ssh=ssh), hands=None))
    order = Order("repro.c", stress=(Stress.NOISE,))
    with (
        pytest.raises(InfrastructureError, match="vfio-lab-stress does not start: sh: can't fork"),
        stress.under(order, testbed, Path("vfio-lab-stress"), 1, 1),
    ):
        pass
