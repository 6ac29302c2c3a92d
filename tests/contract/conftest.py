# SPDX-License-Identifier: GPL-2.0-only
"""What the contract's tests share, beside the devices of `lab.plugin.devices`."""

import pytest

from lab.agent.process import Process
from lab.guest import Guest
from lab.testing import not_applicable
from lab.vfio.device import Device
from lab.vfio.hotplug import Slot


@pytest.fixture(autouse=True)
def _applicable(applicable: None) -> None:
    """Every rule is about a device, and in the columns of a mode about that mode."""


@pytest.fixture
def slot(guest: Guest, hands: Process) -> Slot:
    """An empty one, for devices that come and go."""
    port = "port3"
    if port not in guest.addresses:
        raise not_applicable("this machine has no empty root port")
    if not hands.exists("/sys/bus/pci/slots") or not hands.listdir("/sys/bus/pci/slots"):
        raise not_applicable("this kernel does not serve the root ports' slots")
    return Slot(guest, hands, Device(port, guest.addresses[port]))
