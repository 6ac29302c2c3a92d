# SPDX-License-Identifier: GPL-2.0-only
"""REG and RST: a device's regions as user space sees them, and its reset.

Source: drivers/vfio/pci/vfio_pci_core.c and vfio_pci_rdwr.c.
"""

import ctypes
import mmap
from collections.abc import Mapping
from errno import EINVAL, EIO
from signal import SIGBUS
from struct import pack, unpack_from

import pytest

from lab.agent.errors import RemoteFault
from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.config import MSIX, POWER, place_of
from lab.vfio.device import Device
from lab.vfio.edu import IDENTITY, Register, edu_of
from lab.vfio.modes import open_device
from lab.vfio.uapi import (
    PCI_COMMAND,
    DeviceFlag,
    DeviceRequest,
    PciCommand,
    PciIrq,
    PciRegion,
    RegionFlag,
    VfioDeviceInfo,
    VfioRegionInfo,
)

BARS = range(6)
ROM, CONFIG = PciRegion.VFIO_PCI_ROM_REGION_INDEX, PciRegion.VFIO_PCI_CONFIG_REGION_INDEX
VGA = PciRegion.VFIO_PCI_VGA_REGION_INDEX
MEMORY_BAR = 0x200  # IORESOURCE_MEM
CONVENTIONAL, EXTENDED = 256, 4096
READ_WRITE = RegionFlag.VFIO_REGION_INFO_FLAG_READ | RegionFlag.VFIO_REGION_INFO_FLAG_WRITE
FACTORIAL = 0x08  # edu's register behind Register.LIVENESS
IGB_LEDCTL = 0xE00  # a register of an igb's BAR 0
IGB_VECTORS = 3  # its BAR with the MSI-X table
D3HOT = 3  # in PCI_PM_CTRL
MSIX_MAPPABLE = 3  # a capability of a region


@contract("REG-1")
@pytest.mark.parametrize("role", ["edu0", "igb0"])
def test_regions_agree_with_the_device(
    process: Process, hands: Process, device: Device, mode: Mode, role: str
) -> None:
    """Sizes as in sysfs's `resource`; memory that fills pages can be mapped, ports cannot, and
    what the device lacks, as these do their ROM and VGA, is empty or does not exist."""
    lines = hands.read_text(f"{device.sysfs}/resource").splitlines()
    resources = [tuple(int(word, 16) for word in line.split()) for line in lines]
    with open_device(process, device, mode) as opened:
        file = opened.device
        assert (file.info().num_regions, file.info().num_irqs) == (9, len(PciIrq))
        seen: set[int] = set()
        for bar in BARS:
            region = file.region(bar)
            start, end, flags = resources[bar]
            assert region.size == (end - start + 1 if end else 0)
            seen.add(region.offset)
            expected = RegionFlag(0)
            if region.size:
                expected = READ_WRITE
                if flags & MEMORY_BAR and region.size >= process.page_size:
                    expected |= RegionFlag.VFIO_REGION_INFO_FLAG_MMAP
            assert region.flags & ~RegionFlag.VFIO_REGION_INFO_FLAG_CAPS == expected
        rom, config = file.region(ROM), file.region(CONFIG)
        assert (rom.size, rom.flags) == (0, 0)
        assert len(seen | {rom.offset, config.offset}) == len(BARS) + 2, "regions share an offset"
        assert config.size == (EXTENDED if role == "igb0" else CONVENTIONAL)
        assert config.flags == READ_WRITE
        for missing in (VGA, file.info().num_regions):
            with raises_errno(EINVAL):
                file.region(missing)


@contract("REG-1")
def test_who_has_no_room_for_the_answer_gets_none(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_ioctl_get_info() and _get_region_info(): EINVAL for an argsz that is too small, and
    nothing is written behind what it says."""
    with open_device(process, edu, mode) as opened:
        file = opened.device
        with raises_errno(EINVAL):  # it may end before `cap_offset`, and not earlier
            file.call(DeviceRequest.VFIO_DEVICE_GET_INFO, VfioDeviceInfo(argsz=15))
        answer = bytearray(bytes(VfioDeviceInfo(argsz=16))[:16] + b"behind it")
        file.call(DeviceRequest.VFIO_DEVICE_GET_INFO, answer)
        assert answer[16:] == b"behind it"
        with raises_errno(EINVAL):
            short = VfioRegionInfo(argsz=ctypes.sizeof(VfioRegionInfo) - 1, index=CONFIG)
            file.call(DeviceRequest.VFIO_DEVICE_GET_REGION_INFO, short)


@contract("REG-1")
def test_capabilities_of_a_region_can_be_walked_and_end(
    process: Process, igb: Device, mode: Mode
) -> None:
    """vfio_main.c: vfio_info_cap_shift(). The BAR that holds an igb's MSI-X table has one, which
    says that it can be mapped; who has no room for it is told how much is needed."""
    with open_device(process, igb, mode) as opened:
        (table,) = [
            region
            for bar in BARS
            if (region := opened.device.region(bar)).cap_offset
            or region.flags & RegionFlag.VFIO_REGION_INFO_FLAG_CAPS
        ]
        place = place_of(opened.device.config, MSIX)
        assert table.index == opened.device.config(place + 4, 4) & 7
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
        both = b"\xff" * 4 + registers.load(FACTORIAL, 4).to_bytes(4, "little")
        assert file.pread(8, offset + Register.LIVENESS) == both
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
    """vfio_pci_core_mmap(): the ROM, config space, VGA, and what is behind the last region. The
    mapping of a BAR is shared: a private one would be of memory."""
    with open_device(process, edu, mode) as opened:
        file, first = opened.device, opened.device.region(0)
        step = file.region(1).offset - first.offset
        for index in range(ROM, file.info().num_regions + 1):
            with raises_errno(EINVAL):
                file.mmap(process.page_size, offset=first.offset + index * step)
        with raises_errno(EINVAL):
            file.mmap(process.page_size, flags=mmap.MAP_PRIVATE, offset=first.offset)
        with file.mmap(process.page_size, offset=first.offset):
            pass


@contract("REG-2")
def test_what_the_device_lacks_is_not_read_or_written(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_rw(): a BAR, a ROM, VGA, and what is behind the last region."""
    with open_device(process, edu, mode) as opened:
        file, first = opened.device, opened.device.region(0)
        step = file.region(1).offset - first.offset
        for index in (1, ROM, VGA, file.info().num_regions):
            with raises_errno(EINVAL):
                file.pread(4, first.offset + index * step)
            with raises_errno(EINVAL):
                file.pwrite(bytes(4), first.offset + index * step)


@contract("REG-2")
def test_ports_are_read_and_written_and_not_mapped(
    process: Process, igb: Device, mode: Mode
) -> None:
    """Of an igb's ports one takes the offset of a register of BAR 0, the next is that register."""
    with open_device(process, igb, mode) as opened:
        file = opened.device
        regions = [file.region(bar) for bar in BARS]
        (ports,) = [each for each in regions if each.size and each.flags == READ_WRITE]
        with raises_errno(EINVAL):
            file.mmap(process.page_size, offset=ports.offset)
        with file.map_bar(0) as registers:
            value = registers.load(IGB_LEDCTL, 4)
            file.pwrite(pack("<I", IGB_LEDCTL), ports.offset)
            assert file.pread(4, ports.offset + 4) == pack("<I", value)
            file.pwrite(pack("<I", value ^ 0xFF), ports.offset + 4)
            assert registers.load(IGB_LEDCTL, 4) == value ^ 0xFF


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
        with raises_errno(EIO):
            file.pwrite(bytes(4), offset)
        file.command |= PciCommand.MEMORY
        assert registers.load(Register.IDENTITY, 4) == IDENTITY
        assert file.pread(4, offset) == IDENTITY.to_bytes(4, "little")


@contract("REG-2")
def test_no_bar_is_in_reach_while_decoding_is_off_or_power_low(
    process: Process, igb: Device, mode: Mode
) -> None:
    """vfio_pci_zap_bars() takes the mappings of all BARs, of an igb registers and vectors. In D3 a
    device decodes no more than with the bit off: vfio_lock_and_set_power_state()."""
    with (
        open_device(process, igb, mode) as opened,
        opened.device.map_bar(0) as registers,
        opened.device.map_bar(IGB_VECTORS) as vectors,
    ):
        file, control = opened.device, place_of(opened.device.config, POWER) + 4
        powered = file.config(control, 2)
        for off, on in (
            ((PCI_COMMAND, 2, file.command & ~PciCommand.MEMORY), (PCI_COMMAND, 2, file.command)),
            ((control, 2, powered | D3HOT), (control, 2, powered)),
        ):
            found = registers.load(IGB_LEDCTL, 4), vectors.load(0, 4)
            file.set_config(*off)
            for mapping in (registers, vectors):
                with pytest.raises(RemoteFault) as caught:
                    mapping.load(0, 4)
                assert caught.value.fault.signal == SIGBUS
            with raises_errno(EIO):
                file.pread(4, file.region(0).offset)
            file.set_config(*on)
            assert (registers.load(IGB_LEDCTL, 4), vectors.load(0, 4)) == found


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
        devices["rng0"].driven_by(hands, None),
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
        assert PciCommand.MASTER in PciCommand(devices[role].config(hands, PCI_COMMAND, 2))
        with edu_of(file) as registers:
            assert registers.inverted(0) == 0xFFFF_FFFF


@contract("RST-1")
def test_reset_resets(process: Process, igb: Device, mode: Mode) -> None:
    """pci_try_reset_function(): a register of an igb has its first value again."""
    with open_device(process, igb, mode) as opened:
        with opened.device.map_bar(0) as registers:
            before = registers.load(IGB_LEDCTL, 4)
            registers.store(IGB_LEDCTL, 4, before ^ 0xFF)
            assert registers.load(IGB_LEDCTL, 4) == before ^ 0xFF
        opened.device.reset()
        with opened.device.map_bar(0) as registers:
            assert registers.load(IGB_LEDCTL, 4) == before
