# SPDX-License-Identifier: GPL-2.0-only
"""REG-2: a device's MSI-X table, which stands in a BAR and is the kernel's.

Source: drivers/vfio/pci/vfio_pci_rdwr.c, vfio_pci_bar_rw(), `x_start` to `x_end`. A mapping shows
what is there, VFIO_REGION_INFO_CAP_MSIX_MAPPABLE: a message that a user writes harms nobody where
interrupts are remapped.
"""

from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract
from lab.vfio.config import MSIX, place_of
from lab.vfio.device import Device
from lab.vfio.files import DeviceFile
from lab.vfio.modes import open_device
from lab.vfio.uapi import IrqSetFlag, PciIrq

VECTORS = PciIrq.VFIO_PCI_MSIX_IRQ_INDEX
TABLE, PENDING = 4, 8  # places in the capability, of what tells where each is
ENTRY = 16  # bytes: the address of a message, its data, and whether it is masked
ONES = b"\xff" * ENTRY


def _place(file: DeviceFile, what: int) -> int:
    """Where it is in the device's file."""
    where = file.config(place_of(file.config, MSIX) + what, 4)
    return file.region(where & 7).offset + (where & ~7)


def _first_entry(table: Mapping) -> list[int]:
    return [table.load(word, 4) for word in range(0, ENTRY, 4)]


@contract("REG-2")
def test_vectors_are_not_read_or_written(process: Process, igb: Device, mode: Mode) -> None:
    """Ones are read and what is written goes nowhere, from the first vector to the last. What tells
    of pending ones stands in the same BAR, and is read as it is."""
    with open_device(process, igb, mode) as opened, process.eventfd() as event:
        file = opened.device
        file.set_irqs(VECTORS, IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER, eventfds=[event.fd])
        place, pending = _place(file, TABLE), _place(file, PENDING)
        last = place + (file.irq(VECTORS).count - 1) * ENTRY
        with (
            file.mmap(process.page_size, offset=place) as table,
            file.mmap(process.page_size, offset=pending) as bits,
        ):
            before = _first_entry(table)
            assert any(before)
            for entry in (place, last):
                assert file.pread(ENTRY, entry) == ONES
                assert file.pwrite(bytes(ENTRY), entry) == ENTRY
            assert _first_entry(table) == before
            assert file.pread(4, pending) == bits.load(0, 4).to_bytes(4, "little") != ONES[:4]
