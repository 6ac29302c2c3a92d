# SPDX-License-Identifier: GPL-2.0-only
"""REG and RST: a device's regions as user space sees them, and its reset.

Source: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_rdwr.c and vfio_pci_config.c.
"""

import ctypes
from collections.abc import Mapping
from errno import EFAULT, EINVAL, EIO
from signal import SIGBUS
from struct import unpack_from

import pytest

from lab.agent.errors import RemoteFault
from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, lacking, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import IDENTITY, Register, edu_of
from lab.vfio.files import DeviceFile
from lab.vfio.modes import open_device
from lab.vfio.uapi import (
    PCI_COMMAND,
    DeviceFlag,
    DeviceRequest,
    PciCommand,
    PciRegion,
    RegionFlag,
    VfioRegionInfo,
)

BARS = range(6)
CONFIG = PciRegion.VFIO_PCI_CONFIG_REGION_INDEX
MEMORY_BAR = 0x200  # IORESOURCE_MEM
VENDOR, STATUS, LINE, CAPABILITIES, BAR0 = 0x00, 0x06, 0x3C, 0x34, 0x10
HAS_CAPABILITIES = 1 << 4
CONVENTIONAL, EXTENDED = 256, 4096
MSI, AER = 0x05, 0x01  # capabilities of config space, conventional and extended
IGB_LEDCTL = 0xE00  # a register of an igb's BAR 0
MSIX_MAPPABLE = 3  # a capability of a region


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
        with raises_errno(EINVAL):
            short = VfioRegionInfo(argsz=ctypes.sizeof(VfioRegionInfo) - 1, index=CONFIG)
            file.call(DeviceRequest.VFIO_DEVICE_GET_REGION_INFO, short)
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
        assert MSI in {_config(file, place, 1) for place in seen}


@contract("REG-1")
def test_extended_capabilities_can_be_walked_and_end(
    process: Process, devices: Mapping[str, Device], mode: Mode
) -> None:
    """vfio_pci_config.c: vfio_ecap_init(). An igb's chain begins at 0x100 and has AER."""
    with open_device(process, _device(devices, "igb0"), mode) as opened:
        file = opened.device
        seen: dict[int, int] = {}
        place = CONVENTIONAL
        while place:
            assert place not in seen, f"the chain comes back to {place:#x}"
            assert place % 4 == 0
            header = _config(file, place, 4)
            seen[place], place = header & 0xFFFF, header >> 20
        assert AER in seen.values()


@contract("REG-1")
def test_capabilities_of_a_region_can_be_walked_and_end(
    process: Process, devices: Mapping[str, Device], mode: Mode
) -> None:
    """vfio_main.c: vfio_info_cap_shift(). The BAR that holds an igb's MSI-X table has one, which
    says that it can be mapped; who has no room for it is told how much is needed."""
    with open_device(process, _device(devices, "igb0"), mode) as opened:
        (table,) = [
            region
            for bar in BARS
            if (region := opened.device.region(bar)).cap_offset
            or region.flags & RegionFlag.VFIO_REGION_INFO_FLAG_CAPS
        ]
        head = ctypes.sizeof(VfioRegionInfo)
        assert table.cap_offset == 0
        assert table.argsz > head
        answer = bytearray(bytes(VfioRegionInfo(argsz=table.argsz, index=table.index)))
        answer += bytes(table.argsz - head)
        opened.device.call(DeviceRequest.VFIO_DEVICE_GET_REGION_INFO, answer)
        seen = []
        place = VfioRegionInfo.from_buffer_copy(answer).cap_offset
        while place:
            assert head <= place < len(answer)
            identity, _, following = unpack_from("<HHI", answer, place)
            assert following == 0 or following > place
            seen.append(identity)
            place = following
        assert seen == [MSIX_MAPPABLE]


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
def test_each_page_of_a_bar_is_mapped_where_it_is(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_core.c: vma_to_pfn() and the fault handler; edu's registers are in the first page,
    and what it has not reads as ones."""
    with open_device(process, edu, mode) as opened, opened.device.map_bar(0) as whole:
        page, region = process.page_size, opened.device.region(0)
        assert whole.load(Register.IDENTITY, 4) == IDENTITY
        assert whole.load(page + Register.IDENTITY, 4) != IDENTITY
        with opened.device.mmap(page, offset=region.offset + page) as second:
            assert second.load(Register.IDENTITY, 4) != IDENTITY
        with opened.device.mmap(page, offset=region.offset) as first:
            assert first.load(Register.IDENTITY, 4) == IDENTITY


@contract("REG-2")
def test_a_bar_ends_where_its_region_does(process: Process, edu: Device, mode: Mode) -> None:
    """A mapping beyond the end is EINVAL, a read there too, and one across it is cut."""
    with open_device(process, edu, mode) as opened:
        file, region = opened.device, opened.device.region(0)
        page, end = process.page_size, region.offset + region.size
        for offset, length in ((region.offset, region.size + page), (end - page, 2 * page)):
            with raises_errno(EINVAL):
                file.mmap(length, offset=offset)
        with file.mmap(page, offset=end - page):
            pass
        assert len(file.pread(8, end - 4)) == 4
        with raises_errno(EINVAL):
            file.pread(4, end)


@contract("REG-2")
def test_what_is_no_bar_cannot_be_mapped(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_pci_core_mmap(): the ROM, config space, VGA, and what is behind the last region."""
    with open_device(process, edu, mode) as opened:
        file, first = opened.device, opened.device.region(0)
        step = file.region(1).offset - first.offset
        for index in range(PciRegion.VFIO_PCI_ROM_REGION_INDEX, file.info().num_regions + 1):
            with raises_errno(EINVAL):
                file.mmap(process.page_size, offset=first.offset + index * step)
        with file.mmap(process.page_size, offset=first.offset):
            pass


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
        first = _config(file, CAPABILITIES, 1)
        _set_config(file, LINE, 1, line ^ 0x5A)
        assert _config(file, LINE, 1) == line ^ 0x5A
        _set_config(file, VENDOR, 4, vendor ^ 0xFFFF_FFFF)
        assert _config(file, VENDOR, 4) == vendor
        _set_config(file, CAPABILITIES, 1, first ^ 0xFC)
        assert _config(file, CAPABILITIES, 1) == first
        before = _hardware(hands, edu, BAR0)
        _set_config(file, BAR0, 4, 0xFFFF_FFFF)
        size = file.region(0).size
        assert _config(file, BAR0, 4) & ~0xF == -size & 0xFFFF_FFF0
        assert _hardware(hands, edu, BAR0) == before


@contract("REG-3")
def test_config_space_ends(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_pci_config.c: vfio_config_do_rw(): EFAULT beyond the end and across it."""
    with open_device(process, edu, mode) as opened:
        file, region = opened.device, opened.device.region(CONFIG)
        last = region.offset + region.size - 4
        assert len(file.pread(4, last)) == 4
        for offset in (last + 2, last + 4):
            with raises_errno(EFAULT):
                file.pread(4, offset)
            with raises_errno(EFAULT):
                file.pwrite(bytes(4), offset)


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


@contract("RST-1")
def test_reset_resets(process: Process, devices: Mapping[str, Device], mode: Mode) -> None:
    """pci_try_reset_function(): a register of an igb has its first value again."""
    with open_device(process, _device(devices, "igb0"), mode) as opened:
        with opened.device.map_bar(0) as registers:
            before = registers.load(IGB_LEDCTL, 4)
            registers.store(IGB_LEDCTL, 4, before ^ 0xFF)
            assert registers.load(IGB_LEDCTL, 4) == before ^ 0xFF
        opened.device.reset()
        with opened.device.map_bar(0) as registers:
            assert registers.load(IGB_LEDCTL, 4) == before
