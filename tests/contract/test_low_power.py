# SPDX-License-Identifier: GPL-2.0-only
"""REG-2 and LIFE-3 of a device whose user has said that it may sleep.

Source: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_pm_entry() and vfio_pci_core_pm_exit(). It
is for the kernel to let it sleep, which one without CONFIG_PM does not; its registers cannot be
mapped meanwhile in either.
"""

from errno import EINVAL
from signal import SIGBUS

import pytest

from lab.agent.errors import RemoteFault
from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import IDENTITY, Register
from lab.vfio.modes import open_device
from lab.vfio.uapi import Feature, PciRegion

ENTRY = Feature.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY
EXIT = Feature.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT
BAR = PciRegion.VFIO_PCI_BAR0_REGION_INDEX


def _is_out_of_reach(bar: Mapping) -> None:
    with pytest.raises(RemoteFault) as caught:
        bar.load(Register.IDENTITY, 4)
    assert caught.value.fault.signal == SIGBUS


@contract("REG-2")
def test_no_bar_is_mapped_while_the_device_may_sleep(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_mmap_huge_fault(), `pm_runtime_engaged`: a load is SIGBUS until the end, which may
    be said twice; a second beginning is EINVAL."""
    with open_device(process, edu, mode) as opened, opened.device.map_bar(BAR) as bar:
        file = opened.device
        assert bar.load(Register.IDENTITY, 4) == IDENTITY
        file.set_feature(ENTRY, b"")
        _is_out_of_reach(bar)
        with raises_errno(EINVAL):
            file.set_feature(ENTRY, b"")
        for _ in range(2):
            file.set_feature(EXIT, b"")
            assert bar.load(Register.IDENTITY, 4) == IDENTITY


@contract("LIFE-3")
def test_next_user_has_a_device_that_may_not_sleep(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_core_disable() takes back what its user has allowed."""
    with open_device(process, edu, mode) as opened, opened.device.map_bar(BAR) as bar:
        opened.device.set_feature(ENTRY, b"")
        _is_out_of_reach(bar)
    with open_device(process, edu, mode) as opened, opened.device.map_bar(BAR) as bar:
        assert bar.load(Register.IDENTITY, 4) == IDENTITY
        opened.device.set_feature(ENTRY, b"")
