# SPDX-License-Identifier: GPL-2.0-only
"""IRQ-1 and IRQ-2: eventfds that are exchanged, taken away, and heard.

Source: drivers/vfio/pci/vfio_pci_intrs.c and drivers/vfio/virqfd.c. What the kernel does with an
eventfd it does before the call returns, so nothing has to be waited for.
"""

from errno import EBADF, EBUSY, EINVAL, ENOTTY
from struct import pack

import pytest

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import opened_edu
from lab.vfio.interrupts import events_of, set_bools
from lab.vfio.modes import open_device
from lab.vfio.uapi import IrqSetFlag, PciIrq

INTX = PciIrq.VFIO_PCI_INTX_IRQ_INDEX
TRIGGER = IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER
MASK, UNMASK = IrqSetFlag.VFIO_IRQ_SET_ACTION_MASK, IrqSetFlag.VFIO_IRQ_SET_ACTION_UNMASK
SIGNAL = pack("<Q", 1)


def _closed(process: Process) -> int:
    """The number of a file that is closed."""
    with process.eventfd() as file:
        return file.fd


@contract("IRQ-1")
def test_eventfd_of_intx_is_exchanged_and_taken_away(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_intx_set_signal(): the new one alone is signalled, a bad one changes nothing, and
    without any nobody is."""
    with (
        opened_edu(process, edu, mode) as (file, registers),
        process.eventfd() as first,
        process.eventfd() as second,
    ):
        file.set_irqs(INTX, TRIGGER, eventfds=[first.fd])
        file.set_irqs(INTX, TRIGGER, eventfds=[second.fd])
        registers.raise_interrupt()
        assert (events_of(second), events_of(first, 0)) == (1, 0)
        with raises_errno(EBADF):
            file.set_irqs(INTX, TRIGGER, eventfds=[_closed(process)])
        file.set_irqs(INTX, UNMASK)
        assert events_of(second) == 1
        file.set_irqs(INTX, TRIGGER, eventfds=[-1])
        file.set_irqs(INTX, TRIGGER)
        file.set_irqs(INTX, TRIGGER, eventfds=[first.fd])
        assert (events_of(second, 0), events_of(first, 0)) == (0, 0)
        file.set_irqs(INTX, UNMASK)
        assert (events_of(first), events_of(second, 0)) == (1, 0)
        registers.acknowledge()


@contract("IRQ-1")
def test_eventfd_that_unmasks_intx_is_heard_until_it_is_gone(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_virqfd_enable() and virqfd_wakeup(): a signal that was there before counts, one that is
    heard is taken; a second eventfd is EBUSY until the first is closed, and none outlives the
    type."""
    with (
        opened_edu(process, edu, mode) as (file, registers),
        process.eventfd() as event,
        process.eventfd(1) as first,
        process.eventfd() as second,
    ):
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        registers.raise_interrupt()
        assert events_of(event) == 1
        for bad, errno in ((_closed(process), EBADF), (file.fd, EINVAL)):
            with raises_errno(errno):
                file.set_irqs(INTX, UNMASK, eventfds=[bad])
        file.set_irqs(INTX, UNMASK, eventfds=[first.fd])
        assert events_of(event) == 1
        with raises_errno(EBUSY):
            file.set_irqs(INTX, UNMASK, eventfds=[second.fd])
        first.write(SIGNAL)
        assert (events_of(event), events_of(first, 0)) == (1, 0)
        first.close()
        file.set_irqs(INTX, UNMASK, eventfds=[second.fd])
        second.write(SIGNAL)
        assert (events_of(event), events_of(second, 0)) == (1, 0)
        registers.acknowledge()
        file.set_irqs(INTX, TRIGGER, count=0)
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        second.write(SIGNAL)
        assert events_of(second, 0) == 1


@contract("IRQ-2")
@pytest.mark.parametrize(
    ("role", "index"),
    [
        pytest.param("edu0", PciIrq.VFIO_PCI_REQ_IRQ_INDEX, id="request"),
        pytest.param("igb0", PciIrq.VFIO_PCI_ERR_IRQ_INDEX, id="error"),
    ],
)
def test_events_that_are_no_interrupts_have_one_eventfd(
    process: Process, device: Device, mode: Mode, index: PciIrq
) -> None:
    """vfio_pci_set_ctx_trigger_single(): user space can trigger them, exchange the eventfd and take
    it away; vfio_pci_core_close_device() does so for the next user."""
    with process.eventfd() as first, process.eventfd() as second:
        with open_device(process, device, mode) as opened:
            file = opened.device
            with raises_errno(EINVAL):
                file.set_irqs(index, TRIGGER)
            file.set_irqs(index, TRIGGER, eventfds=[first.fd])
            file.set_irqs(index, TRIGGER)
            assert events_of(first, 0) == 1
            set_bools(file, index, TRIGGER, [False])
            assert events_of(first, 0) == 0
            set_bools(file, index, TRIGGER, [True])
            assert events_of(first, 0) == 1
            with raises_errno(ENOTTY):
                file.set_irqs(index, MASK)
            with raises_errno(EBADF):
                file.set_irqs(index, TRIGGER, eventfds=[_closed(process)])
            file.set_irqs(index, TRIGGER, eventfds=[second.fd])
            file.set_irqs(index, TRIGGER)
            assert (events_of(first, 0), events_of(second, 0)) == (0, 1)
            file.set_irqs(index, TRIGGER, count=0)
            with raises_errno(EINVAL):
                file.set_irqs(index, TRIGGER)
            file.set_irqs(index, TRIGGER, eventfds=[second.fd])
            file.set_irqs(index, TRIGGER, eventfds=[-1])
            with raises_errno(EINVAL):
                file.set_irqs(index, TRIGGER)
            file.set_irqs(index, TRIGGER, eventfds=[second.fd])
        with open_device(process, device, mode) as opened, raises_errno(EINVAL):
            opened.device.set_irqs(index, TRIGGER)
        assert (events_of(first, 0), events_of(second, 0)) == (0, 0)
