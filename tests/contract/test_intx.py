# SPDX-License-Identifier: GPL-2.0-only
"""IRQ-1: INTx of a device as an event of user space, which masks itself.

Source: drivers/vfio/pci/vfio_pci_intrs.c. A test that nothing comes holds the event that does.
"""

from struct import pack

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, lacking
from lab.vfio.device import Device
from lab.vfio.edu import opened_edu
from lab.vfio.interrupts import NEVER, events_of, set_bools
from lab.vfio.uapi import PCI_COMMAND, IrqSetFlag, PciCommand, PciIrq

INTX = PciIrq.VFIO_PCI_INTX_IRQ_INDEX
TRIGGER = IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER
MASK, UNMASK = IrqSetFlag.VFIO_IRQ_SET_ACTION_MASK, IrqSetFlag.VFIO_IRQ_SET_ACTION_UNMASK


@contract("IRQ-1")
def test_intx_comes_once_and_waits_for_its_unmask(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_intx_handler() masks the line; UNMASK with the line still up gives one more."""
    with opened_edu(process, edu, mode) as (file, registers), process.eventfd() as event:
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        registers.raise_interrupt()
        assert events_of(event) == 1
        assert events_of(event, NEVER) == 0
        file.set_irqs(INTX, UNMASK)
        assert events_of(event) == 1
        registers.acknowledge()
        file.set_irqs(INTX, UNMASK)
        assert events_of(event, NEVER) == 0
        registers.raise_interrupt()
        assert events_of(event) == 1
        registers.acknowledge()


@contract("IRQ-1")
def test_masked_intx_comes_with_its_unmask(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_pci_intx_mask() and vfio_pci_intx_unmask_handler(): nothing is lost meanwhile."""
    with opened_edu(process, edu, mode) as (file, registers), process.eventfd() as event:
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        file.set_irqs(INTX, MASK)
        registers.raise_interrupt()
        assert events_of(event, NEVER) == 0
        file.set_irqs(INTX, UNMASK)
        assert events_of(event) == 1
        registers.acknowledge()


@contract("IRQ-1")
def test_intx_is_masked_by_a_true_and_unmasked_by_a_true(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_set_intx_mask() and _unmask() with DATA_BOOL: a false changes nothing."""
    with opened_edu(process, edu, mode) as (file, registers), process.eventfd() as event:
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        set_bools(file, INTX, MASK, [False])
        registers.raise_interrupt()
        assert events_of(event) == 1
        set_bools(file, INTX, UNMASK, [False])
        assert events_of(event, NEVER) == 0
        set_bools(file, INTX, UNMASK, [True])
        assert events_of(event) == 1
        registers.acknowledge()
        set_bools(file, INTX, UNMASK, [True])
        set_bools(file, INTX, MASK, [True])
        registers.raise_interrupt()
        assert events_of(event, NEVER) == 0
        registers.acknowledge()


@contract("IRQ-1")
def test_intx_is_unmasked_by_an_eventfd(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_virqfd_enable(): each signal of the second eventfd is an UNMASK, until it is removed."""
    with (
        opened_edu(process, edu, mode) as (file, registers),
        process.eventfd() as event,
        process.eventfd() as unmask,
    ):
        file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        file.set_irqs(INTX, UNMASK, eventfds=[unmask.fd])
        registers.raise_interrupt()
        assert events_of(event) == 1
        unmask.write(pack("<Q", 1))
        assert events_of(event) == 1
        file.set_irqs(INTX, UNMASK, eventfds=[-1])
        unmask.write(pack("<Q", 1))
        assert events_of(event, NEVER) == 0
        registers.acknowledge()


@contract("IRQ-1")
def test_intx_disabled_in_config_space_is_masked_until_it_is_enabled_or_the_file_closed(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_basic_config_write() emulates the bit; vfio_pci_core_disable() forgets it."""
    with process.eventfd() as event:
        with opened_edu(process, edu, mode) as (file, registers):
            file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
            upper = PCI_COMMAND + 1
            file.set_config(upper, 1, file.config(upper, 1) | PciCommand.INTX_DISABLE >> 8)
            registers.raise_interrupt()
            assert events_of(event, NEVER) == 0
            file.set_irqs(INTX, TRIGGER)
            assert events_of(event, 0) == 0
            file.command &= ~PciCommand.INTX_DISABLE
            assert events_of(event) == 1
            registers.acknowledge()
            file.command |= PciCommand.INTX_DISABLE
        with opened_edu(process, edu, mode) as (file, registers):
            assert PciCommand.INTX_DISABLE not in file.command
            file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
            registers.raise_interrupt()
            assert events_of(event) == 1
            registers.acknowledge()


@contract("IRQ-1")
def test_intx_that_is_set_up_anew_is_not_masked(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_intx_enable(): neither by its user nor by itself, though it was when it was disabled."""
    with opened_edu(process, edu, mode) as (file, registers), process.eventfd() as event:
        for masked_by_itself in (False, True):
            file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
            if masked_by_itself:
                registers.raise_interrupt()
                assert events_of(event) == 1
                registers.acknowledge()
            else:
                file.set_irqs(INTX, MASK)
            file.set_irqs(INTX, TRIGGER, count=0)
            file.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
            registers.raise_interrupt()
            assert events_of(event) == 1
            registers.acknowledge()
            file.set_irqs(INTX, TRIGGER, count=0)


@contract("IRQ-1")
def test_interrupt_of_a_neighbour_on_the_line_is_not_ones_own(
    process: Process, hands: Process, edu: Device, other_sibling: Device, rng: Device, mode: Mode
) -> None:
    """vfio_intx_handler(), "may be shared": who is masked, and who has raised none, hears nothing
    of it."""
    with (
        rng.driven_by(hands, None),
        opened_edu(process, edu, mode) as (one, registers),
        opened_edu(process, other_sibling, mode) as (other, others),
        process.eventfd() as event,
        process.eventfd() as others_event,
    ):
        # a device that was never enabled has no line yet
        lines = {hands.read_text(f"{each.sysfs}/irq") for each in (edu, other_sibling)}
        if len(lines) != 1:
            raise lacking("two devices of the machine on one interrupt line")
        one.set_irqs(INTX, TRIGGER, eventfds=[event.fd])
        other.set_irqs(INTX, TRIGGER, eventfds=[others_event.fd])
        registers.raise_interrupt()
        assert (events_of(event), events_of(others_event, NEVER)) == (1, 0)
        others.raise_interrupt()
        assert (events_of(others_event), events_of(event, NEVER)) == (1, 0)
        for each in (registers, others):
            each.acknowledge()
