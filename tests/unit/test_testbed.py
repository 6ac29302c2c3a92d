# SPDX-License-Identifier: GPL-2.0-only
"""A guest that is lost while the lab makes it ready did not boot: its kernel's word counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from lab import testbed
from lab.agent import install
from lab.agent.errors import AgentDied
from lab.config import Machine
from lab.deadline import Deadline
from lab.errors import GuestLost, LabError
from lab.guest import Boot
from lab.testbed import Testbed


class Guest:
    """One that let us in, and `lost` what it was asked then."""

    def __init__(self, lost: GuestLost | None) -> None:
        self.lost = lost

    def silent(self, when: str) -> GuestLost | None:
        assert when == "boot"
        return self.lost


def made_ready(guest: Guest, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Testbed:
    """The agent that is pushed into it does not come through."""

    @contextmanager
    def boot(*_: object) -> Iterator[Guest]:
        yield guest

    def push(*_: object) -> None:
        raise AgentDied("the channel is at its end")

    monkeypatch.setattr(testbed, "boot", boot)
    monkeypatch.setattr(install, "push", push)
    order = Boot(Machine(), folder / "bzImage", folder / "initramfs")
    hypervisor = cast(Any, None)
    names: dict[str, Any] = {"agent": folder / "agent", "number": 1, "machine_name": "vtd"}
    return Testbed.boot(order, hypervisor, folder, Deadline.after(9), stretch=1.0, **names)


def test_a_guest_that_dies_as_it_is_made_ready_was_lost_at_its_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost = GuestLost("boot: the kernel panicked", splat="BUG: NULL pointer in vfio_pci_probe")
    with pytest.raises(GuestLost) as caught:
        made_ready(Guest(lost), monkeypatch, tmp_path)
    assert caught.value is lost


def test_in_a_guest_that_lives_the_error_is_what_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match="the channel is at its end") as caught:
        made_ready(Guest(None), monkeypatch, tmp_path)
    assert isinstance(caught.value, AgentDied)
