# SPDX-License-Identifier: GPL-2.0-only
"""IRQ-2 and IRQ-3: a device's MSI and MSI-X as events of user space, and all that is refused.

Source: drivers/vfio/pci/vfio_pci_intrs.c. A test that nothing comes holds the event that does.
"""

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from errno import EBADF, EINVAL, ENOTTY
from functools import partial
from struct import pack

import pytest

from lab.agent.file import RemoteFile
from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio import config
from lab.vfio.device import Device
from lab.vfio.edu import opened_edu
from lab.vfio.files import DeviceFile
from lab.vfio.interrupts import NEVER, events_of, set_bools, set_raw
from lab.vfio.modes import open_device
from lab.vfio.uapi import (
    PCI_COMMAND,
    DeviceRequest,
    IrqInfoFlag,
    IrqSetFlag,
    PciCommand,
    PciIrq,
    PciRegion,
    VfioIrqInfo,
    VfioIrqSet,
)

INTX, MSI = PciIrq.VFIO_PCI_INTX_IRQ_INDEX, PciIrq.VFIO_PCI_MSI_IRQ_INDEX
MSIX, ERR = PciIrq.VFIO_PCI_MSIX_IRQ_INDEX, PciIrq.VFIO_PCI_ERR_IRQ_INDEX
REQ = PciIrq.VFIO_PCI_REQ_IRQ_INDEX
TRIGGER = IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER
MASK, UNMASK = IrqSetFlag.VFIO_IRQ_SET_ACTION_MASK, IrqSetFlag.VFIO_IRQ_SET_ACTION_UNMASK
NONE, BOOL = IrqSetFlag.VFIO_IRQ_SET_DATA_NONE, IrqSetFlag.VFIO_IRQ_SET_DATA_BOOL
EVENTFD = IrqSetFlag.VFIO_IRQ_SET_DATA_EVENTFD
NORESIZE = IrqInfoFlag.VFIO_IRQ_INFO_NORESIZE
IGB_GPIE, IGB_EICS, IGB_EIMS = 0x1514, 0x1520, 0x1524  # registers of an igb's BAR 0
IGB_MSIX_MODE = 1 << 4  # of GPIE


@contract("IRQ-2")
def test_msi_comes_once_a_trigger(process: Process, edu: Device, mode: Mode) -> None:
    """From the device, three times, and no more once the type is disabled."""
    with opened_edu(process, edu, mode) as (file, registers), process.eventfd() as event:
        file.enable_dma()  # a message is a write of the device's
        file.set_irqs(MSI, TRIGGER, eventfds=[event.fd])
        for _ in range(3):
            registers.raise_interrupt()
            assert events_of(event) == 1
            registers.acknowledge()
        file.set_irqs(MSI, TRIGGER, count=0)
        registers.raise_interrupt()
        assert events_of(event, NEVER) == 0
        registers.acknowledge()


@contract("IRQ-2")
@pytest.mark.parametrize("index", [INTX, MSI], ids=["intx", "msi"])
def test_user_space_can_trigger(process: Process, edu: Device, mode: Mode, index: PciIrq) -> None:
    """DATA_NONE with ACTION_TRIGGER: one event, and no interrupt of the device's."""
    with opened_edu(process, edu, mode) as (file, _), process.eventfd() as event:
        file.set_irqs(index, TRIGGER, eventfds=[event.fd])
        assert events_of(event, NEVER) == 0
        file.set_irqs(index, TRIGGER)
        assert events_of(event) == 1
        assert events_of(event, NEVER) == 0


@contract("IRQ-2")
def test_each_vector_signals_its_own_eventfd(process: Process, igb: Device, mode: Mode) -> None:
    """MSI-X of an igb: vector N signals eventfd N and no other; one of them is exchanged."""
    with open_device(process, igb, mode) as opened, ExitStack() as stack:
        file = opened.device
        count = file.irq(MSIX).count
        assert count >= 3
        events = [stack.enter_context(process.eventfd()) for _ in range(count)]
        file.set_irqs(MSIX, TRIGGER, eventfds=[event.fd for event in events])
        for vector in range(count):
            file.set_irqs(MSIX, TRIGGER, start=vector)
            seen = [events_of(event, 0) for event in events]
            assert seen == [int(number == vector) for number in range(count)]
        other = stack.enter_context(process.eventfd())
        file.set_irqs(MSIX, TRIGGER, start=1, eventfds=[other.fd])
        file.set_irqs(MSIX, TRIGGER, start=1)
        assert (events_of(other), events_of(events[1], 0)) == (1, 0)


@contract("IRQ-2")
def test_each_vector_of_the_device_signals_its_own_eventfd(
    process: Process, hands: Process, igb: Device, mode: Mode
) -> None:
    """The same by messages of the device's. They are set up while its memory does not decode, which
    vfio_pci_memory_lock_and_enable() changes for as long as it takes."""
    with open_device(process, igb, mode) as opened, ExitStack() as stack:
        file = opened.device
        count = file.irq(MSIX).count
        events = [stack.enter_context(process.eventfd()) for _ in range(count)]
        file.enable_dma()
        file.command &= ~PciCommand.MEMORY
        file.set_irqs(MSIX, TRIGGER, eventfds=[event.fd for event in events])
        assert PciCommand.MEMORY not in PciCommand(igb.config(hands, PCI_COMMAND, 2))
        file.command |= PciCommand.MEMORY
        registers = stack.enter_context(file.map_bar(PciRegion.VFIO_PCI_BAR0_REGION_INDEX))
        registers.store(IGB_GPIE, 4, IGB_MSIX_MODE)
        registers.store(IGB_EIMS, 4, (1 << count) - 1)
        for vector, event in enumerate(events):
            registers.store(IGB_EICS, 4, 1 << vector)
            assert events_of(event) == 1
            assert sum(events_of(each, 0) for each in events) == 0


@contract("IRQ-2")
def test_a_block_of_vectors_may_begin_anywhere(process: Process, igb: Device, mode: Mode) -> None:
    """vfio_pci_set_msi_trigger(): a block that does not begin at 0 enables the type; DATA_BOOL
    triggers some vectors of a block; -1 takes a vector's eventfd away."""
    with _three_vectors(process, igb, mode) as (file, events):
        set_bools(file, MSIX, TRIGGER, [True, False], start=2)
        assert [events_of(event, 0) for event in events] == [0, 1, 0]
        set_bools(file, MSIX, TRIGGER, [False, True], start=2)
        assert [events_of(event, 0) for event in events] == [0, 0, 1]
        file.set_irqs(MSIX, TRIGGER, start=2, eventfds=[-1])
        for vector in range(1, 4):
            file.set_irqs(MSIX, TRIGGER, start=vector)
        assert [events_of(event, 0) for event in events] == [1, 0, 1]


@contract("IRQ-2")
def test_vectors_are_added_where_they_can_be(process: Process, igb: Device, mode: Mode) -> None:
    """vfio_msi_alloc_irq(): more vectors than MSI-X was enabled with, unless GET_IRQ_INFO says that
    there are none to be had."""
    with (
        open_device(process, igb, mode) as opened,
        process.eventfd() as first,
        process.eventfd() as another,
    ):
        file = opened.device
        fixed = NORESIZE in IrqInfoFlag(file.irq(MSIX).flags)
        file.set_irqs(MSIX, TRIGGER, eventfds=[first.fd])
        if fixed:
            with raises_errno(EINVAL):
                file.set_irqs(MSIX, TRIGGER, start=2, eventfds=[another.fd])
        else:
            file.set_irqs(MSIX, TRIGGER, start=2, eventfds=[another.fd])
            file.set_irqs(MSIX, TRIGGER, start=2)
            assert events_of(another, 0) == 1
        file.set_irqs(MSIX, TRIGGER)
        assert (events_of(first, 0), events_of(another, 0)) == (1, 0)


@contextmanager
def _three_vectors(
    process: Process, igb: Device, mode: Mode
) -> Iterator[tuple[DeviceFile, list[RemoteFile]]]:
    """An igb whose vectors 1, 2 and 3 signal an eventfd each; vector 0 has none."""
    with open_device(process, igb, mode) as opened, ExitStack() as stack:
        events = [stack.enter_context(process.eventfd()) for _ in range(3)]
        fds = [event.fd for event in events]
        opened.device.set_irqs(MSIX, TRIGGER, start=1, eventfds=fds)
        yield opened.device, events


@contract("IRQ-3")
@pytest.mark.parametrize(
    ("role", "active", "second"),
    [
        pytest.param("edu0", INTX, MSI, id="intx"),
        pytest.param("edu0", MSI, INTX, id="msi"),
        pytest.param("igb0", INTX, MSIX, id="intx-msix"),
        pytest.param("igb0", MSI, MSIX, id="msi-msix"),
        pytest.param("igb0", MSIX, MSI, id="msix-msi"),
    ],
)
def test_second_type_is_refused_while_one_is_active(
    process: Process,
    device: Device,
    mode: Mode,
    active: PciIrq,
    second: PciIrq,
) -> None:
    """`irq_is() || is_irq_none()`: EINVAL, until the first is disabled."""
    with (
        open_device(process, device, mode) as opened,
        process.eventfd() as event,
    ):
        file = opened.device
        file.set_irqs(active, TRIGGER, eventfds=[event.fd])
        with raises_errno(EINVAL):
            file.set_irqs(second, TRIGGER, eventfds=[event.fd])
        file.set_irqs(active, TRIGGER)
        assert events_of(event) == 1
        file.set_irqs(active, TRIGGER, count=0)
        file.set_irqs(second, TRIGGER, eventfds=[event.fd])


@contract("IRQ-3")
def test_bad_eventfd_is_refused(process: Process, edu: Device, mode: Mode) -> None:
    """EBADF, and the type is not active afterwards."""
    with opened_edu(process, edu, mode) as (file, _), process.eventfd() as event:
        closed = process.eventfd().detach()
        process.adopt(closed, "a closed file").close()
        for index in (INTX, MSI):
            with raises_errno(EBADF):
                file.set_irqs(index, TRIGGER, eventfds=[closed])
            with raises_errno(EINVAL):
                file.set_irqs(index, TRIGGER)
        file.set_irqs(MSI, TRIGGER, eventfds=[event.fd])


@contract("IRQ-3")
def test_bad_eventfd_in_a_block_takes_the_block_away(
    process: Process, igb: Device, mode: Mode
) -> None:
    """vfio_msi_set_block(): EBADF, and none of the block's vectors signals; the others do."""
    with _three_vectors(process, igb, mode) as (file, events):
        closed = process.eventfd().detach()
        process.adopt(closed, "a closed file").close()
        with raises_errno(EBADF):
            file.set_irqs(MSIX, TRIGGER, start=1, eventfds=[events[0].fd, closed])
        for vector in range(1, 4):
            file.set_irqs(MSIX, TRIGGER, start=vector)
        assert [events_of(event, 0) for event in events] == [0, 0, 1]


@contract("IRQ-3")
def test_intx_is_one_line(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_pci_set_intx_mask(), _unmask() and _trigger(): EINVAL for no line, and for what is not
    active; masking by an eventfd, no action and two are ENOTTY. Nothing has changed."""
    with opened_edu(process, edu, mode) as (file, _), process.eventfd() as event:
        for action in (MASK, UNMASK):
            with raises_errno(EINVAL):
                file.set_irqs(INTX, action)
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        size = ctypes.sizeof(VfioIrqSet)
        for flags in (
            *(data | action for action in (MASK, UNMASK) for data in (NONE, BOOL, EVENTFD)),
            BOOL | TRIGGER,
            EVENTFD | TRIGGER,
        ):
            with raises_errno(EINVAL):
                set_raw(file, VfioIrqSet(argsz=size, flags=flags, index=INTX, count=0))
        for flags in (NONE, NONE | MASK | UNMASK):
            with raises_errno(ENOTTY):
                set_raw(file, VfioIrqSet(argsz=size, flags=flags, index=INTX, count=1))
        with raises_errno(ENOTTY):
            file.set_irqs(INTX, MASK, eventfds=[event.fd])
        file.set_irqs(INTX, TRIGGER)
        assert events_of(event) == 1


@contract("IRQ-3")
@pytest.mark.parametrize("role", ["edu0", "igb0"])
def test_types_are_those_of_the_device(
    process: Process, hands: Process, device: Device, mode: Mode, role: str
) -> None:
    """vfio_pci_ioctl_get_irq_info(): as many vectors as config space says. Whether it
    tells of errors where there can be none depends on the kernel."""
    read = partial(device.config, hands)
    with open_device(process, device, mode) as opened:
        file = opened.device

        def told(index: PciIrq) -> tuple[int, IrqInfoFlag]:
            info = file.irq(index)
            return info.count, IrqInfoFlag(info.flags)

        event = IrqInfoFlag.VFIO_IRQ_INFO_EVENTFD
        masked = IrqInfoFlag.VFIO_IRQ_INFO_MASKABLE | IrqInfoFlag.VFIO_IRQ_INFO_AUTOMASKED
        assert told(INTX) == (1, event | masked)
        control = read(config.place_of(read, config.MSI) + 2, 2)
        assert told(MSI) == (1 << (control >> 1 & 7), event | NORESIZE)
        assert told(REQ) == (1, event | NORESIZE)
        if role == "igb0":
            assert told(ERR) == (1, event | NORESIZE)
            vectors = (read(config.place_of(read, config.MSIX) + 2, 2) & 0x7FF) + 1
        else:
            vectors = 0
        # NORESIZE, unless vectors can be allocated one by one
        assert told(MSIX) in {(vectors, event), (vectors, event | NORESIZE)}
        for wrong in ({"index": len(PciIrq)}, {"argsz": ctypes.sizeof(VfioIrqInfo) - 1}):
            with raises_errno(EINVAL):
                file.call(DeviceRequest.VFIO_DEVICE_GET_IRQ_INFO, VfioIrqInfo(**wrong))


@contract("IRQ-3")
def test_set_irqs_checks_its_argument(process: Process, igb: Device, mode: Mode) -> None:
    """vfio_main.c: vfio_set_irqs_validate_and_prepare(). EINVAL each, and nothing has changed."""
    with _three_vectors(process, igb, mode) as (file, events):
        vectors = file.irq(MSIX).count
        size = ctypes.sizeof(VfioIrqSet)
        bad = [
            {"argsz": size - 1, "flags": NONE | TRIGGER, "start": 1, "count": 1},
            {"argsz": size, "flags": EVENTFD | TRIGGER, "start": 1, "count": 1},
            {"argsz": size + 4, "flags": EVENTFD | TRIGGER, "start": 1, "count": 2},
            {"argsz": size, "flags": NONE | TRIGGER | 1 << 6, "start": 1, "count": 1},
            {"argsz": size, "flags": TRIGGER, "start": 1, "count": 1},
            {"argsz": size + 4, "flags": NONE | EVENTFD | TRIGGER, "start": 1, "count": 1},
            {"argsz": size, "flags": NONE | TRIGGER, "start": vectors, "count": 0},
            {"argsz": size, "flags": NONE | TRIGGER, "start": vectors, "count": 1},
            {"argsz": size, "flags": NONE | TRIGGER, "start": 1, "count": vectors},
            {"argsz": size, "flags": NONE | TRIGGER, "start": 1, "count": 2**32 - 1},
        ]
        for fields in bad:
            with raises_errno(EINVAL):
                set_raw(file, VfioIrqSet(index=MSIX, **fields), pack("<i", events[0].fd))
        with raises_errno(EINVAL):
            head = VfioIrqSet(argsz=size, flags=NONE | TRIGGER, index=len(PciIrq), count=1)
            set_raw(file, head)
        file.set_irqs(MSIX, TRIGGER, start=1, count=3)
        assert [events_of(event, 0) for event in events] == [1, 1, 1]


@contract("IRQ-3")
def test_what_the_device_has_not_is_refused(process: Process, edu: Device, mode: Mode) -> None:
    """A start and a count beyond the vectors, and a type that edu lacks."""
    with opened_edu(process, edu, mode) as (file, _), process.eventfd() as event:
        vectors = file.irq(MSI).count
        assert (vectors, file.irq(MSIX).count) == (1, 0)
        with raises_errno(EINVAL):
            file.set_irqs(MSI, TRIGGER, start=vectors, eventfds=[event.fd])
        with raises_errno(EINVAL):
            file.set_irqs(MSI, TRIGGER, eventfds=[event.fd] * (vectors + 1))
        with raises_errno(EINVAL):
            file.set_irqs(MSIX, TRIGGER, eventfds=[event.fd])
        file.set_irqs(MSI, TRIGGER, eventfds=[event.fd])


@contract("IRQ-3")
def test_msi_cannot_be_masked(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_pci_set_irqs_ioctl(): "Need masking support exported"."""
    with opened_edu(process, edu, mode) as (file, _), process.eventfd() as event:
        file.set_irqs(MSI, TRIGGER, eventfds=[event.fd])
        for action in (MASK, UNMASK):
            with raises_errno(ENOTTY):
                file.set_irqs(MSI, action)
        file.set_irqs(MSI, TRIGGER)
        assert events_of(event) == 1
