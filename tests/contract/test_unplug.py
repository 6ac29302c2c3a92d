# SPDX-License-Identifier: GPL-2.0-only
"""LIFE-2: devices that are plugged in and out of a running guest.

Source: drivers/pci/hotplug/pciehp_pci.c, pciehp_unconfigure_device(), which has vfio-pci's remove
called, and so vfio_unregister_group_dev(). Seen from both sides: the guest's, and QEMU's
DEVICE_DELETED, which comes a second later: pciehp_ctrl.c, remove_board(), waits that long.
"""

import time
from collections.abc import Callable, Iterator
from errno import ENOENT
from select import POLLIN
from struct import pack

import pytest

from lab.agent.file import RemoteFile
from lab.agent.process import Process
from lab.agent.program import Imm, Program, Store
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.deadline import Deadline
from lab.guest import Guest
from lab.testing import contract, raises_errno
from lab.vfio.device import VFIO_PCI, Device
from lab.vfio.edu import BUFFER, Command, Edu, Register, edu_of
from lab.vfio.files import DeviceFile, Group
from lab.vfio.hotplug import Slot
from lab.vfio.modes import open_device
from lab.vfio.uapi import IrqSetFlag, PciIrq

IOVA = 0x10_0000
WORD = b"sixteen bytes..."
DELETED = "DEVICE_DELETED"
SOON = 5.0  # seconds; the kernel that misses the close looks again after ten
TRANSFER = 0.2  # seconds; edu's takes half of it


@pytest.fixture
def plugged(process: Process, hands: Process, slot: Slot) -> Iterator[Device]:
    """An edu in it that vfio-pci has; the slot is empty again after the test."""
    assert process.alive  # it outlives the device, because it was there before
    device = slot.plug("plugged")
    try:
        device.set_driver(hands, VFIO_PCI)
        yield device
    finally:
        slot.clear(device)


def _ask_when_to_let_go(process: Process, file: DeviceFile) -> RemoteFile:
    """An eventfd that fires when somebody wants the device back."""
    event = process.eventfd()
    trigger = IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER
    file.set_irqs(PciIrq.VFIO_PCI_REQ_IRQ_INDEX, trigger, eventfds=[event.fd])
    return event


def _came(event: RemoteFile) -> bool:
    pollfd = bytearray(pack("<ihh", event.fd, POLLIN, 0))
    return event.process.syscall(Syscall.POLL, pollfd, 1, int(SOON * 1000)) == 1


def _leaves(slot: Slot) -> None:
    deadline = Deadline.after(SOON)
    while not slot.is_empty():
        assert not deadline.passed, "the guest still has the device"


def _moves(edu: Edu, memory: Callable[[], bytes]) -> bool:
    """Whether what the device reads at IOVA comes back behind it."""
    edu.copy_in(IOVA, len(WORD))
    edu.copy_out(IOVA + len(WORD), len(WORD))
    return memory() == WORD * 2


@contract("LIFE-2")
def test_unplug_waits_for_the_file_that_is_open(
    process: Process,
    new_process: Callable[[], Process],
    hands: Process,
    guest: Guest,
    slot: Slot,
    plugged: Device,
    mode: Mode,
    record_property: Callable[[str, object], None],
) -> None:
    """The user is asked, the old file works, and its close lets the device leave.

    It was not there at boot: that it does its DMA shows that it can be plugged in as well.
    """
    operator, confirm, start = new_process(), slot.confirm(), len(guest.monitor.events)
    group = plugged.group_path(hands)
    with (
        open_device(process, plugged, mode) as opened,
        edu_of(opened.device) as registers,
        process.mmap(process.page_size) as page,
        _ask_when_to_let_go(process, opened.device) as event,
    ):
        opened.device.enable_dma()
        opened.space.map(IOVA, page)
        page.write(0, WORD)
        slot.press_the_button(plugged)
        going = operator.start(Program(setup=confirm), timeout=60)
        assert _came(event), "nobody was asked to let the device go"
        assert not going.done(within=0.2)
        assert _moves(registers, lambda: page.read(0, 2 * len(WORD)))
        assert not slot.is_empty()
        assert not guest.monitor.wait_for(DELETED, plugged.role, Deadline.after(0.0), start=start)
    closed, deadline = time.monotonic(), Deadline.after(SOON)
    _leaves(slot)
    record_property("seconds from the close", round(time.monotonic() - closed, 2))
    assert guest.monitor.wait_for(DELETED, plugged.role, deadline, start=start)
    assert all(result.ok for result in going.wait().rounds[0].setup)
    with raises_errno(ENOENT):
        Group.open(hands, group)


@contract("LIFE-2")
def test_device_that_is_gone_during_a_transfer_harms_nobody(
    process: Process, guest: Guest, slot: Slot, plugged: Device, mode: Mode
) -> None:
    """Power is cut without a question. The transfer ends there, the file stays good for what needs
    no device, and its close still lets the kernel's own half of the device go."""
    start, before = len(guest.monitor.events), guest.fault_count
    with (
        open_device(process, plugged, mode) as opened,
        edu_of(opened.device) as registers,
        process.mmap(process.page_size) as page,
        _ask_when_to_let_go(process, opened.device) as event,
    ):
        opened.device.enable_dma()
        opened.space.map(IOVA, page)
        page.write(0, WORD)
        assert _moves(registers, lambda: page.read(0, 2 * len(WORD)))
        page.write(0, bytes(2 * len(WORD)))
        words = (
            (Register.SOURCE, BUFFER),
            (Register.DESTINATION, IOVA),
            (Register.COUNT, len(WORD)),
            (Register.COMMAND, Command.RUN | Command.TO_MEMORY),
        )
        begun = [Store(Imm(registers.address_of(place)), 8, Imm(value)) for place, value in words]
        assert all(result.ok for result in process.batch([*begun, *slot.cut_power()]))
        deadline = Deadline.after(SOON)
        assert guest.monitor.wait_for(DELETED, plugged.role, deadline, start=start)
        time.sleep(TRANSFER)
        assert page.read(0, len(WORD)) == bytes(len(WORD))
        assert _came(event), "nobody was asked to let the device go"
        assert registers.inverted(1) != 0xFFFF_FFFE
        opened.device.info()
        assert opened.space.unmap(IOVA, page.length) == page.length
        assert not slot.is_empty()
    _leaves(slot)
    assert guest.faults(before) == []
