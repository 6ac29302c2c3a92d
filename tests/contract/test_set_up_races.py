# SPDX-License-Identifier: GPL-2.0-only
"""IRQ-2 and LIFE-4: two who set the same thing up at once, each of whom finds it whole.

Source: drivers/vfio/pci/vfio_pci_core.c, igate; drivers/iommu/iommufd/device.c, ioas->mutex.
"""

from collections.abc import Callable
from contextlib import ExitStack
from errno import EINVAL

import pytest

from lab.agent.calls import close, openat
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Field, Imm, Program, Reg
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract
from lab.vfio.device import Device
from lab.vfio.files import Iommufd, irq_set
from lab.vfio.interrupts import events_of
from lab.vfio.modes import open_device
from lab.vfio.uapi import (
    DeviceRequest,
    IommufdRequest,
    IommuIoasAlloc,
    IrqSetFlag,
    PciIrq,
    VfioDeviceAttachIommufdPt,
    VfioDeviceBindIommufd,
)

Recorder = Callable[[str, object], None]

TIMEOUT = 120.0  # seconds for all rounds
IOMMUFD, IOAS, ONE, OTHER = 0, 1, 2, 3  # registers


@contract("IRQ-2")
@pytest.mark.parametrize(
    ("index", "vectors"),
    [
        pytest.param(PciIrq.VFIO_PCI_INTX_IRQ_INDEX, 1, id="intx"),
        pytest.param(PciIrq.VFIO_PCI_MSIX_IRQ_INDEX, 3, id="msix"),
    ],
)
def test_interrupts_are_set_up_by_one_at_a_time(
    process: Process,
    igb: Device,
    mode: Mode,
    index: PciIrq,
    vectors: int,
    record_property: Recorder,
) -> None:
    """vfio_pci_ioctl_set_irqs(), igate. Two threads enable a type and disable it: where it is
    enabled already its eventfds are exchanged, where it is not there is nothing to disable, EINVAL.
    Then each vector signals its own."""
    repeats = 100
    trigger = IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER
    with open_device(process, igb, mode) as opened, ExitStack() as stack:
        events = [stack.enter_context(process.eventfd()) for _ in range(vectors)]
        file, fds = opened.device, [event.fd for event in events]

        def set_irqs(argument: bytes) -> Call:
            request = Imm(DeviceRequest.VFIO_DEVICE_SET_IRQS)
            return Call(Syscall.IOCTL, (Imm(file.fd), request, Buf(argument, returned=False)))

        enable = set_irqs(irq_set(index, trigger, eventfds=fds))
        disable = set_irqs(irq_set(index, trigger, count=0))
        both = (enable, disable) * repeats
        program = Program(setup=(), threads=(both, both), teardown=())
        (result,) = process.run(program, timeout=TIMEOUT).rounds
        enabled, disabled = (
            [each for thread in result.threads for each in thread[first::2]] for first in (0, 1)
        )
        assert {each.errno for each in enabled} == {0}
        assert {each.errno for each in disabled} <= {0, EINVAL}
        record_property("disabled", sum(each.ok for each in disabled))
        record_property("found nothing to disable", sum(not each.ok for each in disabled))
        file.set_irqs(index, trigger, eventfds=fds)
        for vector in range(vectors):
            file.set_irqs(index, trigger, start=vector)
            assert [events_of(event, 0) for event in events] == [
                int(number == vector) for number in range(vectors)
            ]


@contract("LIFE-4", Mode.IOMMUFD)
def test_devices_that_are_attached_at_once_share_a_page_table(
    process: Process,
    hands: Process,
    edu: Device,
    sibling: Device,
    rng: Device,
    record_property: Recorder,
) -> None:
    """iommufd_device_auto_get_domain(): the second finds in the IOAS what the first has made, and
    is told the same id."""

    def call(file: int, request: int, argument: Buf) -> Call:
        return Call(Syscall.IOCTL, (Reg(file), Imm(request), argument))

    def bind(file: int) -> Call:
        iommufd = (Field(8, 4, IOMMUFD),)
        argument = Buf(bytes(VfioDeviceBindIommufd()), inputs=iommufd)
        return call(file, DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, argument)

    def attach(file: int) -> Call:
        argument = Buf(bytes(VfioDeviceAttachIommufdPt()), inputs=(Field(8, 4, IOAS),))
        return call(file, DeviceRequest.VFIO_DEVICE_ATTACH_IOMMUFD_PT, argument)

    alloc = Buf(bytes(IommuIoasAlloc()), outputs=(Field(8, 4, IOAS),))
    program = Program(
        setup=(
            openat(Iommufd.PATH, IOMMUFD),
            openat(edu.cdev_path(hands), ONE),
            openat(sibling.cdev_path(hands), OTHER),
            bind(ONE),
            bind(OTHER),
            call(IOMMUFD, IommufdRequest.IOMMU_IOAS_ALLOC, alloc),
        ),
        threads=((attach(ONE),), (attach(OTHER),)),
        teardown=tuple(map(close, (ONE, OTHER, IOMMUFD))),
        rounds=60,
    )
    with rng.driven_by(hands, None):
        rounds = process.run(program, timeout=TIMEOUT).rounds
    for each in rounds:
        assert all(result.ok for result in (*each.setup, *each.teardown))
        attached = [thread[0] for thread in each.threads]
        assert all(result.ok for result in attached)
        told = [VfioDeviceAttachIommufdPt.from_buffer_copy(result.data) for result in attached]
        assert len({each.pt_id for each in told}) == 1, "each has a page table of its own"
    duels = [(one[0], other[0]) for one, other in (each.threads for each in rounds)]
    overlaps = [a.start_ns < b.end_ns and b.start_ns < a.end_ns for a, b in duels]
    record_property("at once", sum(overlaps))
