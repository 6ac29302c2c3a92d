# SPDX-License-Identifier: GPL-2.0-only
"""REG and RST: a device's regions as user space sees them, and its reset.

Source: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_rdwr.c and vfio_pci_config.c.
"""

from collections.abc import Mapping
from errno import EINVAL, EIO
from signal import SIGBUS

import pytest

from lab.agent.process import Process, RemoteFault
from lab.contract import Mode
from lab.testing import contract, lacking, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import IDENTITY, Register, edu_of
from lab.vfio.files import DeviceFile
from lab.vfio.modes import open_device
from lab.vfio.uapi import PCI_COMMAND, DeviceFlag, PciCommand, PciRegion, RegionFlag

BARS = range(6)
CONFIG = PciRegion.VFIO_PCI_CONFIG_REGION_INDEX
MEMORY_BAR = 0x200  # IORESOURCE_MEM
VENDOR, STATUS, LINE, CAPABILITIES, BAR0 = 0x00, 0x06, 0x3C, 0x34, 0x10
HAS_CAPABILITIES = 1 << 4
CONVENTIONAL, EXTENDED = 256, 4096


def _config(file: DeviceFile, offset: int, width: int) -> int:
    place = file.region(CONFIG).offset + offset
    return int.from_bytes(file.pread(width, place), "little")


def _set_config(file: DeviceFile, offset: int, width: int, value: int) -> None:
    file.pwrite(value.to_bytes(width, "little"), file.region(CONFIG).offset + offset)


def _device(devices: Mapping[str, Device], role: str) -> Device:
    if role not in devices:
        raise lacking("igb")
    return devices[role]


@contract("REG-1")
@pytest.mark.parametrize("role", ["edu0", "igb0"])
def test_regions_agree_with_the_device(
    process: Process, hands: Process, devices: Mapping[str, Device], mode: Mode, role: str
) -> None:
    """Sizes as in sysfs's `resource`; memory that fills pages can be mapped, ports cannot."""
    device = _device(devices, role)
    lines = hands.read_text(f"{device.sysfs}/resource").splitlines()
    resources = [tuple(int(word, 16) for word in line.split()) for line in lines]
    both = RegionFlag.VFIO_REGION_INFO_FLAG_READ | RegionFlag.VFIO_REGION_INFO_FLAG_WRITE
    with open_device(process, device, mode) as opened:
        file = opened.device
        assert file.info().num_regions == 9
        seen: set[int] = set()
        for bar in BARS:
            region = file.region(bar)
            start, end, flags = resources[bar]
            assert region.size == (end - start + 1 if end else 0)
            seen.add(region.offset)
            if region.size:
                assert RegionFlag(region.flags) & both == both
                mappable = bool(flags & MEMORY_BAR) and region.size >= process.page_size
                assert bool(region.flags & RegionFlag.VFIO_REGION_INFO_FLAG_MMAP) == mappable
        config = file.region(CONFIG)
        assert len(seen | {config.offset}) == len(BARS) + 1, "regions share an offset"
        assert config.size == (EXTENDED if role == "igb0" else CONVENTIONAL)
        with raises_errno(EINVAL):
            file.region(file.info().num_regions)


@contract("REG-1")
@pytest.mark.parametrize("role", ["edu0", "igb0"])
def test_capabilities_can_be_walked_and_end(
    process: Process, devices: Mapping[str, Device], mode: Mode, role: str
) -> None:
    """The chain of config space comes to its end without a loop, and MSI is in it."""
    with open_device(process, _device(devices, role), mode) as opened:
        file = opened.device
        assert _config(file, STATUS, 2) & HAS_CAPABILITIES
        seen: list[int] = []
        place = _config(file, CAPABILITIES, 1)
        while place:
            assert place not in seen, f"the chain comes back to {place:#x}"
            assert len(seen) < CONVENTIONAL // 4
            seen.append(place)
            place = _config(file, place + 1, 1)
        assert 0x05 in {_config(file, place, 1) for place in seen}


@contract("REG-2")
def test_read_and_mmap_see_the_same_register(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_pci_bar_rw() and a load, both ways round."""
    with open_device(process, edu, mode) as opened, opened.device.map_bar(0) as registers:
        file, offset = opened.device, opened.device.region(0).offset
        assert registers.load(Register.IDENTITY, 4) == IDENTITY
        assert file.pread(4, offset + Register.IDENTITY) == IDENTITY.to_bytes(4, "little")
        registers.store(Register.LIVENESS, 4, 0)
        assert file.pread(4, offset + Register.LIVENESS) == b"\xff" * 4
        file.pwrite(b"\xff" * 4, offset + Register.LIVENESS)
        assert registers.load(Register.LIVENESS, 4) == 0


@contract("REG-2")
def test_registers_are_out_of_reach_while_decoding_is_off(
    process: Process, edu: Device, mode: Mode
) -> None:
    """A load is SIGBUS and a read EIO: __vfio_pci_memory_enabled(). Both work again after."""
    with open_device(process, edu, mode) as opened, opened.device.map_bar(0) as registers:
        file, offset = opened.device, opened.device.region(0).offset
        assert registers.load(Register.IDENTITY, 4) == IDENTITY
        file.command &= ~PciCommand.MEMORY
        with pytest.raises(RemoteFault) as caught:
            registers.load(Register.IDENTITY, 4)
        assert caught.value.fault.signal == SIGBUS
        with raises_errno(EIO):
            file.pread(4, offset)
        file.command |= PciCommand.MEMORY
        assert registers.load(Register.IDENTITY, 4) == IDENTITY
        assert file.pread(4, offset) == IDENTITY.to_bytes(4, "little")


@contract("REG-3")
def test_emulated_bits_read_back_and_protected_ones_stay(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_config.c: the interrupt line and a BAR's address are the user's own copies."""
    with open_device(process, edu, mode) as opened:
        file = opened.device
        vendor, line = _config(file, VENDOR, 4), _config(file, LINE, 1)
        _set_config(file, LINE, 1, line ^ 0x5A)
        assert _config(file, LINE, 1) == line ^ 0x5A
        _set_config(file, VENDOR, 4, vendor ^ 0xFFFF_FFFF)
        assert _config(file, VENDOR, 4) == vendor
        before = _hardware(hands, edu, BAR0)
        _set_config(file, BAR0, 4, 0xFFFF_FFFF)
        size = file.region(0).size
        assert _config(file, BAR0, 4) & ~0xF == -size & 0xFFFF_FFF0
        assert _hardware(hands, edu, BAR0) == before


def _hardware(hands: Process, device: Device, offset: int) -> int:
    """A word of config space as the device has it, not as vfio-pci shows it."""
    with hands.open(f"{device.sysfs}/config", 0) as config:
        return int.from_bytes(config.pread(4, offset), "little")


@contract("RST-1")
@pytest.mark.parametrize(
    ("role", "works"),
    [
        pytest.param("edu0", False, id="on-the-root-bus"),
        pytest.param("edu1", True, id="alone-behind-a-port"),
        pytest.param("edu2", False, id="one-of-three-on-a-bus"),
    ],
)
def test_reset_works_where_the_device_can_be_reset_alone(
    process: Process,
    hands: Process,
    devices: Mapping[str, Device],
    mode: Mode,
    role: str,
    works: bool,
) -> None:
    """The flag of GET_INFO says it before: vfio_pci_core_enable(), `reset_works`."""
    with (
        devices["nic0"].driven_by(hands, None),
        open_device(process, devices[role], mode) as opened,
    ):
        file = opened.device
        flags = DeviceFlag(file.info().flags)
        assert DeviceFlag.VFIO_DEVICE_FLAGS_PCI in flags
        assert (DeviceFlag.VFIO_DEVICE_FLAGS_RESET in flags) == works
        if not works:
            with raises_errno(EINVAL):
                file.reset()
            return
        # pci_try_reset_function() saves and restores what the user had set up.
        file.enable_dma()
        file.reset()
        assert PciCommand.MASTER in file.command
        assert PciCommand.MASTER in PciCommand(_hardware(hands, devices[role], PCI_COMMAND))
        with edu_of(file) as registers:
            assert registers.inverted(0) == 0xFFFF_FFFF
