# SPDX-License-Identifier: GPL-2.0-only
"""REG-3, REG-1's chains, LIFE-3: config space as vfio-pci shows it, beside what the hardware has.

Source: drivers/vfio/pci/vfio_pci_config.c.
"""

from errno import EFAULT
from functools import partial

import pytest

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.config import (
    AER,
    EXPRESS,
    MSI,
    MSIX,
    SRIOV,
    capabilities,
    extended_capabilities,
    place_of,
)
from lab.vfio.device import Device
from lab.vfio.modes import open_device
from lab.vfio.uapi import PciIrq, PciRegion

VENDOR, STATUS, CACHE_LINE, BAR0 = 0x00, 0x06, 0x0C, 0x10
ROM, CAPABILITIES, LINE, PIN = 0x30, 0x34, 0x3C, 0x3D
BARS = range(BAR0, BAR0 + 6 * 4, 4)
HAS_CAPABILITIES = 1 << 4
ONES = 0xFFFF_FFFF
MSI_ENABLE, MSIX_ENABLE = 1 << 0, 1 << 15
PAYLOAD, FLR = 0x00E0, 1 << 15  # in PCI_EXP_DEVCTL
SRIOV_CONTROL, SRIOV_NUMBER, SRIOV_BAR = 0x08, 0x10, 0x24  # registers of that capability
IGB_LEDCTL = 0xE00  # a register of an igb's BAR 0


@contract("REG-1")
@pytest.mark.parametrize("role", ["edu0", "igb0"])
def test_capabilities_can_be_walked_and_end(
    process: Process, hands: Process, device: Device, mode: Mode
) -> None:
    """vfio_cap_init(). The chain ends, MSI is in it, and nothing that these devices have is
    hidden."""
    with open_device(process, device, mode) as opened:
        assert opened.device.config(STATUS, 2) & HAS_CAPABILITIES
        shown = capabilities(opened.device.config)
        assert MSI in shown.values()
        assert shown == capabilities(partial(device.config, hands))


@contract("REG-1")
def test_extended_capabilities_can_be_walked_and_end(
    process: Process, hands: Process, igb: Device, mode: Mode
) -> None:
    """vfio_ecap_init(). An igb's chain begins at 0x100 and has AER."""
    with open_device(process, igb, mode) as opened:
        shown = extended_capabilities(opened.device.config)
        assert AER in shown.values()
        assert shown == extended_capabilities(partial(igb.config, hands))


@contract("REG-3")
def test_emulated_bits_read_back_and_protected_ones_stay(
    process: Process, edu: Device, mode: Mode
) -> None:
    """init_pci_cap_basic_perm(): the interrupt line is the user's own copy; what says what the
    device is and has, is not."""
    with open_device(process, edu, mode) as opened:
        file = opened.device
        line = file.config(LINE, 1)
        file.set_config(LINE, 1, line ^ 0x5A)
        assert file.config(LINE, 1) == line ^ 0x5A
        for place, width in ((VENDOR, 4), (STATUS, 2), (CAPABILITIES, 1), (PIN, 1)):
            before = file.config(place, width)
            file.set_config(place, width, before ^ (1 << 8 * width) - 1)
            assert file.config(place, width) == before
        assert file.irq(PciIrq.VFIO_PCI_INTX_IRQ_INDEX).count == 1


@contract("REG-3")
@pytest.mark.parametrize("role", ["edu0", "igb0"])
def test_bars_are_the_users_own_copies(
    process: Process, hands: Process, device: Device, mode: Mode
) -> None:
    """vfio_bar_fixup(): they tell their size, those that the device lacks are 0, and the device's
    own stay as they are."""
    with open_device(process, device, mode) as opened:
        file = opened.device
        before = {place: device.config(hands, place, 4) for place in (*BARS, ROM)}
        for place in before:
            file.set_config(place, 4, ONES)
        upper = False  # half of a BAR of 64 bits
        for index, place in enumerate(BARS):
            shown, size = file.config(place, 4), file.region(index).size
            if upper:
                assert shown == ONES
            elif size:
                assert shown == -size & 0xFFFF_FFF0 | before[place] & 0xF
            else:
                assert shown == 0
            upper = bool(size) and before[place] & 0x7 == 0x4
        assert file.config(ROM, 4) == 0
        assert {place: device.config(hands, place, 4) for place in before} == before


@contract("REG-3")
def test_msi_is_not_programmed_by_the_user(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """init_pci_cap_msi_perm(): the message is a copy, for another one could be any interrupt of
    the host's. vfio_msi_config_write(): only SET_IRQS enables MSI."""
    with open_device(process, edu, mode) as opened:
        file = opened.device
        place = place_of(file.config, MSI)
        control = place + 2
        for message, width in ((place + 4, 4), (place + 8, 4), (place + 12, 2)):
            before = edu.config(hands, message, width)
            value = (before ^ 0x5A5A_5A50) & (1 << 8 * width) - 1
            file.set_config(message, width, value)
            assert file.config(message, width) == value
            assert edu.config(hands, message, width) == before
        before = file.config(control, 2)
        file.set_config(control, 2, before | MSI_ENABLE)
        assert file.config(control, 2) == before
        assert not edu.config(hands, control, 2) & MSI_ENABLE


@contract("REG-3")
def test_other_capabilities_are_not_written_through(
    process: Process, hands: Process, igb: Device, mode: Mode
) -> None:
    """MSI-X cannot be enabled, the payload's size is a copy; vfio_exp_config_write(): a function
    level reset is the kernel's to do, and done."""
    with open_device(process, igb, mode) as opened:
        file = opened.device
        msix, device_control = place_of(file.config, MSIX) + 2, place_of(file.config, EXPRESS) + 8
        before = file.config(msix, 2)
        file.set_config(msix, 2, before ^ MSIX_ENABLE)
        assert (file.config(msix, 2), igb.config(hands, msix, 2)) == (before, before)

        before = igb.config(hands, device_control, 2)
        file.set_config(device_control, 2, before ^ PAYLOAD)
        assert file.config(device_control, 2) == before ^ PAYLOAD
        assert igb.config(hands, device_control, 2) == before

        with file.map_bar(PciRegion.VFIO_PCI_BAR0_REGION_INDEX) as registers:
            lights = registers.load(IGB_LEDCTL, 4)
            registers.store(IGB_LEDCTL, 4, lights ^ 0xFF)
            assert registers.load(IGB_LEDCTL, 4) == lights ^ 0xFF
            file.set_config(device_control, 2, before | FLR)
            assert file.config(device_control, 2) == before
            assert registers.load(IGB_LEDCTL, 4) == lights


@contract("REG-3")
def test_virtual_functions_are_not_the_users(
    process: Process, hands: Process, igb: Device, mode: Mode
) -> None:
    """vfio_pci_init_perm_bits(): a capability for which there is no rule is read and not written;
    of virtual functions the kernel has to know."""
    read = partial(igb.config, hands)
    (start,) = [at for at, each in extended_capabilities(read).items() if each == SRIOV]
    with open_device(process, igb, mode) as opened:
        for register, width, bits in (
            (SRIOV_NUMBER, 2, 1),
            (SRIOV_BAR, 4, ONES),
            (SRIOV_CONTROL, 2, 1),
        ):
            before = read(start + register, width)
            opened.device.set_config(start + register, width, before ^ bits)
            assert opened.device.config(start + register, width) == before
            assert read(start + register, width) == before


@contract("LIFE-3")
def test_what_was_written_through_goes_with_the_file(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_core_disable() restores what vfio_pci_core_enable() has saved, also of a device that
    nothing can reset."""
    before = edu.config(hands, CACHE_LINE, 1)
    with open_device(process, edu, mode) as opened:
        opened.device.set_config(CACHE_LINE, 1, before ^ 0x10)
        assert edu.config(hands, CACHE_LINE, 1) == before ^ 0x10
    assert edu.config(hands, CACHE_LINE, 1) == before


@contract("REG-3")
def test_config_space_is_read_in_any_width(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_pci_config_rw() goes on where vfio_config_do_rw() has stopped."""
    with open_device(process, edu, mode) as opened:
        file = opened.device
        offset = file.region(PciRegion.VFIO_PCI_CONFIG_REGION_INDEX).offset
        whole = file.pread(64, offset)
        assert whole == b"".join(file.pread(1, offset + place) for place in range(64))
        assert whole[1:8] == file.pread(7, offset + 1)


@contract("REG-3")
def test_config_space_ends(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_config_do_rw(): EFAULT beyond the end and across it."""
    with open_device(process, edu, mode) as opened:
        file, region = opened.device, opened.device.region(PciRegion.VFIO_PCI_CONFIG_REGION_INDEX)
        last = region.offset + region.size - 4
        assert len(file.pread(4, last)) == 4
        for offset in (last + 2, last + 4):
            with raises_errno(EFAULT):
                file.pread(4, offset)
            with raises_errno(EFAULT):
                file.pwrite(bytes(4), offset)
