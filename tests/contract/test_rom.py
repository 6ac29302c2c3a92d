# SPDX-License-Identifier: GPL-2.0-only
"""REG-1 and REG-2 of a device that has an expansion ROM, which none of the machine's own has.

Source: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_ioctl_get_region_info() and vfio_pci_rw();
vfio_pci_rdwr.c, vfio_pci_bar_rw(); vfio_pci_config.c, vfio_bar_fixup(). One mode of each flow,
because a device that is plugged in takes seconds to leave.
"""

from collections.abc import Iterator
from errno import EINVAL, EIO, ENOMEM
from pathlib import Path
from struct import pack

import pytest

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.device import VFIO_PCI, Device
from lab.vfio.hotplug import Slot
from lab.vfio.modes import open_device
from lab.vfio.uapi import PciCommand, PciRegion, RegionFlag

ROM = PciRegion.VFIO_PCI_ROM_REGION_INDEX
ROM_BAR, ENABLE = 0x30, 1  # in config space; the bit that has the ROM decode
FLOWS = (Mode.IOMMUFD, Mode.TYPE1V2)
UNIT = 512  # bytes; an image's length counts them
UNITS = 5
ROOM = 4096  # of the BAR: the next power of two
ONES = 0xFFFF_FFFF


def _image() -> bytes:
    """What drivers/pci/rom.c, pci_get_rom_size(), takes for one image and the last.

    Source: PCI firmware specification 3.0, 5.1. Its content tells each word from the others.
    """
    structure = 0x1C
    image = bytearray(pack(f"<{UNITS * UNIT // 4}I", *range(UNITS * UNIT // 4)))
    image[:3] = pack("<HB", 0xAA55, UNITS)
    image[0x18:0x1A] = pack("<H", structure)
    image[structure : structure + 24] = b"PCIR" + pack(
        "<HHHHB3sHHBBH", 0x1234, 0x11E8, 0, 24, 0, b"\0\0\xff", UNITS, 0, 0xFF, 0x80, 0
    )
    return bytes(image)


@pytest.fixture
def with_rom(process: Process, hands: Process, slot: Slot, tmp_path: Path) -> Iterator[Device]:
    """An edu with a ROM that vfio-pci has."""
    assert process.alive  # it outlives the device, because it was there before
    file = tmp_path / "rom"
    file.write_bytes(_image())
    device = slot.plug("with-rom", file)
    try:
        device.set_driver(hands, VFIO_PCI)
        yield device
    finally:
        slot.clear(device)


@contract("REG-1", *FLOWS)
def test_rom_is_a_region_of_its_own(
    process: Process, hands: Process, with_rom: Device, mode: Mode
) -> None:
    """As large as its BAR, which tells its size and is the user's own copy, and for reading. It is
    there while memory does not decode, too: vfio_pci_memory_lock_and_enable()."""
    with open_device(process, with_rom, mode) as opened:
        file = opened.device
        before = with_rom.config(hands, ROM_BAR, 4)
        file.set_config(ROM_BAR, 4, ONES)
        assert file.config(ROM_BAR, 4) == ONES & -ROOM | ENABLE
        assert with_rom.config(hands, ROM_BAR, 4) == before
        for command in (file.command, file.command & ~PciCommand.MEMORY):
            file.command = command
            region = file.region(ROM)
            assert (region.size, region.flags) == (ROOM, RegionFlag.VFIO_REGION_INFO_FLAG_READ)
            assert file.command == command


@contract("REG-2", *FLOWS)
def test_rom_is_read_and_not_written(
    process: Process, hands: Process, with_rom: Device, mode: Mode
) -> None:
    """Ones stand behind the image, whatever the device has there, up to the BAR's end. It decodes
    for as long as it is read: pci_unmap_rom()."""
    image = _image()
    with open_device(process, with_rom, mode) as opened:
        file = opened.device
        place = file.region(ROM).offset
        assert file.pread(2 * ROOM, place) == image.ljust(ROOM, b"\xff")
        assert file.pread(7, place + 1) == image[1:8]
        assert not with_rom.config(hands, ROM_BAR, 4) & ENABLE
        with raises_errno(EINVAL):
            file.pread(4, place + ROOM)
        with raises_errno(EINVAL):
            file.pwrite(bytes(4), place)
        with raises_errno(EINVAL):
            file.mmap(process.page_size, offset=place)
        file.command &= ~PciCommand.MEMORY
        with raises_errno(ENOMEM, EIO):  # pci_map_rom() looks for the image first, and finds none
            file.pread(4, place)
        file.command |= PciCommand.MEMORY
        assert file.pread(len(image), place) == image
