# SPDX-License-Identifier: GPL-2.0-only
"""IRQ: interrupts of a device as events of user space.

Source: drivers/vfio/pci/vfio_pci_intrs.c. A test that nothing comes holds the event that does.
"""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from errno import EBADF, EINVAL, ENOTTY
from select import POLLIN
from struct import pack, unpack

import pytest

from lab.agent.file import RemoteFile
from lab.agent.process import Process
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract, lacking, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import Edu, edu_of
from lab.vfio.files import DeviceFile
from lab.vfio.modes import open_device
from lab.vfio.uapi import DeviceRequest, IrqSetFlag, PciCommand, PciIrq, VfioIrqSet

INTX, MSI = PciIrq.VFIO_PCI_INTX_IRQ_INDEX, PciIrq.VFIO_PCI_MSI_IRQ_INDEX
MSIX = PciIrq.VFIO_PCI_MSIX_IRQ_INDEX
TRIGGER = IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER
MASK, UNMASK = IrqSetFlag.VFIO_IRQ_SET_ACTION_MASK, IrqSetFlag.VFIO_IRQ_SET_ACTION_UNMASK
SOON = 2000  # milliseconds within which an event comes
NEVER = 100  # milliseconds in which none came; one that does comes within two


@contextmanager
def _opened(process: Process, device: Device, mode: Mode) -> Iterator[tuple[DeviceFile, Edu]]:
    with open_device(process, device, mode) as opened, edu_of(opened.device) as registers:
        yield opened.device, registers


def _set(file: DeviceFile, head: VfioIrqSet, data: bytes) -> None:
    """SET_IRQS with whatever stands in its argument."""
    file.call(DeviceRequest.VFIO_DEVICE_SET_IRQS, bytes(head) + data)


def _set_bools(
    file: DeviceFile, index: PciIrq, action: IrqSetFlag, values: list[bool], *, start: int = 0
) -> None:
    head = VfioIrqSet(
        argsz=ctypes.sizeof(VfioIrqSet) + len(values),
        flags=IrqSetFlag.VFIO_IRQ_SET_DATA_BOOL | action,
        index=index,
        start=start,
        count=len(values),
    )
    _set(file, head, bytes(values))


def _events(eventfd: RemoteFile, wait: int = SOON) -> int:
    """How many events came; 0 when none did within `wait` milliseconds."""
    pollfd = bytearray(pack("<ihh", eventfd.fd, POLLIN, 0))
    if not eventfd.process.syscall(Syscall.POLL, pollfd, 1, wait):
        return 0
    return int(unpack("<Q", eventfd.read(8))[0])


@contract("IRQ-1")
def test_intx_comes_once_and_waits_for_its_unmask(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_intx_handler() masks the line; UNMASK with the line still up gives one more."""
    with _opened(process, edu, mode) as (file, registers), process.eventfd() as event:
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        registers.raise_interrupt()
        assert _events(event) == 1
        assert _events(event, NEVER) == 0
        file.set_irqs(INTX, UNMASK)
        assert _events(event) == 1
        registers.acknowledge()
        file.set_irqs(INTX, UNMASK)
        assert _events(event, NEVER) == 0
        registers.raise_interrupt()
        assert _events(event) == 1
        registers.acknowledge()


@contract("IRQ-1")
def test_masked_intx_comes_with_its_unmask(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_pci_intx_mask() and vfio_pci_intx_unmask_handler(): nothing is lost meanwhile."""
    with _opened(process, edu, mode) as (file, registers), process.eventfd() as event:
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        file.set_irqs(INTX, MASK)
        registers.raise_interrupt()
        assert _events(event, NEVER) == 0
        file.set_irqs(INTX, UNMASK)
        assert _events(event) == 1
        registers.acknowledge()


@contract("IRQ-1")
def test_intx_is_masked_by_a_true_and_unmasked_by_a_true(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_set_intx_mask() and _unmask() with DATA_BOOL: a false changes nothing."""
    with _opened(process, edu, mode) as (file, registers), process.eventfd() as event:
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        _set_bools(file, INTX, MASK, [False])
        registers.raise_interrupt()
        assert _events(event) == 1
        _set_bools(file, INTX, UNMASK, [False])
        assert _events(event, NEVER) == 0
        _set_bools(file, INTX, UNMASK, [True])
        assert _events(event) == 1
        registers.acknowledge()
        _set_bools(file, INTX, UNMASK, [True])
        _set_bools(file, INTX, MASK, [True])
        registers.raise_interrupt()
        assert _events(event, NEVER) == 0
        registers.acknowledge()


@contract("IRQ-1")
def test_intx_is_unmasked_by_an_eventfd(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_virqfd_enable(): each signal of the second eventfd is an UNMASK, until it is removed."""
    with (
        _opened(process, edu, mode) as (file, registers),
        process.eventfd() as event,
        process.eventfd() as unmask,
    ):
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        file.set_irqs(INTX, UNMASK, eventfds=[unmask.fd])
        registers.raise_interrupt()
        assert _events(event) == 1
        unmask.write(pack("<Q", 1))
        assert _events(event) == 1
        file.set_irqs(INTX, UNMASK, eventfds=[-1])
        unmask.write(pack("<Q", 1))
        assert _events(event, NEVER) == 0
        registers.acknowledge()


@contract("IRQ-1")
def test_intx_disabled_in_config_space_is_masked_until_it_is_enabled_or_the_file_closed(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_basic_config_write() emulates the bit; vfio_pci_core_disable() forgets it."""
    with process.eventfd() as event:
        with _opened(process, edu, mode) as (file, registers):
            file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
            file.command |= PciCommand.INTX_DISABLE
            registers.raise_interrupt()
            assert _events(event, NEVER) == 0
            file.command &= ~PciCommand.INTX_DISABLE
            assert _events(event) == 1
            registers.acknowledge()
            file.command |= PciCommand.INTX_DISABLE
        with _opened(process, edu, mode) as (file, registers):
            assert PciCommand.INTX_DISABLE not in file.command
            file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
            registers.raise_interrupt()
            assert _events(event) == 1
            registers.acknowledge()


@contract("IRQ-2")
def test_msi_comes_once_a_trigger(process: Process, edu: Device, mode: Mode) -> None:
    """From the device, three times, and no more once the type is disabled."""
    with _opened(process, edu, mode) as (file, registers), process.eventfd() as event:
        file.enable_dma()  # a message is a write of the device's
        file.set_irqs(MSI, TRIGGER, eventfds=[event.fd])
        for _ in range(3):
            registers.raise_interrupt()
            assert _events(event) == 1
            registers.acknowledge()
        file.set_irqs(MSI, TRIGGER, count=0)
        registers.raise_interrupt()
        assert _events(event, NEVER) == 0
        registers.acknowledge()


@contract("IRQ-2")
@pytest.mark.parametrize("index", [INTX, MSI], ids=["intx", "msi"])
def test_user_space_can_trigger(process: Process, edu: Device, mode: Mode, index: PciIrq) -> None:
    """DATA_NONE with ACTION_TRIGGER: one event, and no interrupt of the device's."""
    with _opened(process, edu, mode) as (file, _), process.eventfd() as event:
        file.set_irqs(index, TRIGGER, eventfds=[event.fd])
        assert _events(event, NEVER) == 0
        file.set_irqs(index, TRIGGER)
        assert _events(event) == 1
        assert _events(event, NEVER) == 0


@contract("IRQ-2")
def test_each_vector_signals_its_own_eventfd(
    process: Process, devices: Mapping[str, Device], mode: Mode
) -> None:
    """MSI-X of an igb: vector N signals eventfd N and no other; one of them is exchanged."""
    if "igb0" not in devices:
        raise lacking("igb")
    with open_device(process, devices["igb0"], mode) as opened, ExitStack() as stack:
        file = opened.device
        count = file.irq(MSIX).count
        assert count >= 3
        events = [stack.enter_context(process.eventfd()) for _ in range(count)]
        file.set_irqs(MSIX, TRIGGER, eventfds=[event.fd for event in events])
        for vector in range(count):
            file.set_irqs(MSIX, TRIGGER, start=vector)
            seen = [_events(event, 0) for event in events]
            assert seen == [int(number == vector) for number in range(count)]
        other = stack.enter_context(process.eventfd())
        file.set_irqs(MSIX, TRIGGER, start=1, eventfds=[other.fd])
        file.set_irqs(MSIX, TRIGGER, start=1)
        assert (_events(other), _events(events[1], 0)) == (1, 0)


@contract("IRQ-2")
def test_a_block_of_vectors_may_begin_anywhere(
    process: Process, devices: Mapping[str, Device], mode: Mode
) -> None:
    """vfio_pci_set_msi_trigger(): a block that does not begin at 0 enables the type; DATA_BOOL
    triggers some vectors of a block; -1 takes a vector's eventfd away."""
    with _three_vectors(process, devices, mode) as (file, events):
        _set_bools(file, MSIX, TRIGGER, [True, False], start=2)
        assert [_events(event, 0) for event in events] == [0, 1, 0]
        _set_bools(file, MSIX, TRIGGER, [False, True], start=2)
        assert [_events(event, 0) for event in events] == [0, 0, 1]
        file.set_irqs(MSIX, TRIGGER, start=2, eventfds=[-1])
        for vector in range(1, 4):
            file.set_irqs(MSIX, TRIGGER, start=vector)
        assert [_events(event, 0) for event in events] == [1, 0, 1]


@contextmanager
def _three_vectors(
    process: Process, devices: Mapping[str, Device], mode: Mode
) -> Iterator[tuple[DeviceFile, list[RemoteFile]]]:
    """An igb whose vectors 1, 2 and 3 signal an eventfd each; vector 0 has none."""
    if "igb0" not in devices:
        raise lacking("igb")
    with open_device(process, devices["igb0"], mode) as opened, ExitStack() as stack:
        events = [stack.enter_context(process.eventfd()) for _ in range(3)]
        fds = [event.fd for event in events]
        opened.device.set_irqs(MSIX, TRIGGER, start=1, eventfds=fds)
        yield opened.device, events


@contract("IRQ-3")
@pytest.mark.parametrize(("active", "second"), [(INTX, MSI), (MSI, INTX)], ids=["intx", "msi"])
def test_second_type_is_refused_while_one_is_active(
    process: Process, edu: Device, mode: Mode, active: PciIrq, second: PciIrq
) -> None:
    """`irq_is() || is_irq_none()`: EINVAL, until the first is disabled."""
    with _opened(process, edu, mode) as (file, _), process.eventfd() as event:
        file.set_irqs(active, TRIGGER, eventfds=[event.fd])
        with raises_errno(EINVAL):
            file.set_irqs(second, TRIGGER, eventfds=[event.fd])
        file.set_irqs(active, TRIGGER)
        assert _events(event) == 1
        file.set_irqs(active, TRIGGER, count=0)
        file.set_irqs(second, TRIGGER, eventfds=[event.fd])


@contract("IRQ-3")
def test_bad_eventfd_is_refused(process: Process, edu: Device, mode: Mode) -> None:
    """EBADF, and the type is not active afterwards."""
    with _opened(process, edu, mode) as (file, _), process.eventfd() as event:
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
    process: Process, devices: Mapping[str, Device], mode: Mode
) -> None:
    """vfio_msi_set_block(): EBADF, and none of the block's vectors signals; the others do."""
    with _three_vectors(process, devices, mode) as (file, events):
        closed = process.eventfd().detach()
        process.adopt(closed, "a closed file").close()
        with raises_errno(EBADF):
            file.set_irqs(MSIX, TRIGGER, start=1, eventfds=[events[0].fd, closed])
        for vector in range(1, 4):
            file.set_irqs(MSIX, TRIGGER, start=vector)
        assert [_events(event, 0) for event in events] == [0, 0, 1]


@contract("IRQ-3")
def test_set_irqs_checks_its_argument(
    process: Process, devices: Mapping[str, Device], mode: Mode
) -> None:
    """vfio_main.c: vfio_set_irqs_validate_and_prepare(). EINVAL each, and nothing has changed."""
    eventfd, none = IrqSetFlag.VFIO_IRQ_SET_DATA_EVENTFD, IrqSetFlag.VFIO_IRQ_SET_DATA_NONE
    with _three_vectors(process, devices, mode) as (file, events):
        vectors = file.irq(MSIX).count
        size = ctypes.sizeof(VfioIrqSet)
        bad = [
            {"argsz": size - 1, "flags": none | TRIGGER, "start": 1, "count": 1},
            {"argsz": size, "flags": eventfd | TRIGGER, "start": 1, "count": 1},
            {"argsz": size + 4, "flags": eventfd | TRIGGER, "start": 1, "count": 2},
            {"argsz": size, "flags": none | TRIGGER | 1 << 6, "start": 1, "count": 1},
            {"argsz": size, "flags": TRIGGER, "start": 1, "count": 1},
            {"argsz": size + 4, "flags": none | eventfd | TRIGGER, "start": 1, "count": 1},
            {"argsz": size, "flags": none | TRIGGER, "start": vectors, "count": 0},
            {"argsz": size, "flags": none | TRIGGER, "start": vectors, "count": 1},
            {"argsz": size, "flags": none | TRIGGER, "start": 1, "count": vectors},
            {"argsz": size, "flags": none | TRIGGER, "start": 1, "count": 2**32 - 1},
        ]
        for fields in bad:
            with raises_errno(EINVAL):
                _set(file, VfioIrqSet(index=MSIX, **fields), pack("<i", events[0].fd))
        with raises_errno(EINVAL):
            head = VfioIrqSet(argsz=size, flags=none | TRIGGER, index=len(PciIrq), count=1)
            _set(file, head, b"")
        file.set_irqs(MSIX, TRIGGER, start=1, count=3)
        assert [_events(event, 0) for event in events] == [1, 1, 1]


@contract("IRQ-3")
def test_what_the_device_has_not_is_refused(process: Process, edu: Device, mode: Mode) -> None:
    """A start and a count beyond the vectors, and a type that edu lacks."""
    with _opened(process, edu, mode) as (file, _), process.eventfd() as event:
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
    with _opened(process, edu, mode) as (file, _), process.eventfd() as event:
        file.set_irqs(MSI, TRIGGER, eventfds=[event.fd])
        for action in (MASK, UNMASK):
            with raises_errno(ENOTTY):
                file.set_irqs(MSI, action)
        file.set_irqs(MSI, TRIGGER)
        assert _events(event) == 1
