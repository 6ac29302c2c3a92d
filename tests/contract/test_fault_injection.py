# SPDX-License-Identifier: GPL-2.0-only
"""OWN-6, OWN-7 and IRQ-3: a step that runs out of memory, in each of its allocations in turn.

Source: Documentation/fault-injection/fault-injection.rst, "/proc/<pid>/task/<tid>/fail-nth". The
n-th allocation of one thread fails, n from 1 on, until a step makes fewer than n. A step that fails
has changed nothing: what can be asked is answered as before it, and the same step then succeeds,
as do all that follow.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from errno import EINVAL, ENOMEM
from itertools import count

import pytest

from lab.agent.calls import close, openat, write_file
from lab.agent.memory import Mapping as Memory
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Field, Imm, Program, Reg, Result
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract, not_applicable, raises_errno
from lab.vfio.device import VFIO_PCI, Device, pinned_pages
from lab.vfio.files import Iommufd, irq_set
from lab.vfio.interrupts import events_of
from lab.vfio.modes import COMPAT_MODES, GROUP_MODES, open_device
from lab.vfio.steps import (
    Place,
    Step,
    closes,
    info,
    map_bar,
    unmap_bar,
    way_back,
    way_in,
)
from lab.vfio.uapi import DeviceRequest, GroupRequest, IrqSetFlag, PciIrq

IOVA = 0x10_0000
PAGES = 16
SOON = 5.0  # seconds
MOST = 400  # allocations that no step comes near
NTH = "/proc/thread-self/fail-nth"
KNOBS: Mapping[str, str] = {
    "/sys/kernel/debug/failslab/ignore-gfp-wait": "N",
    "/sys/kernel/debug/failslab/verbose": "0",
    "/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait": "N",
    "/sys/kernel/debug/fail_page_alloc/min-order": "0",
    "/sys/kernel/debug/fail_page_alloc/verbose": "0",
    "/sys/kernel/debug/fail_iommufd/verbose": "0",
}
"""Allocations that may sleep fail, too, and single pages; the console tells of none. IOMMUFD_TEST
has a point of its own in each look-up of an object, which then fails with ENOENT."""
NEEDED = ("/proc/self/fail-nth", "/sys/kernel/debug/failslab", "/sys/kernel/debug/fail_page_alloc")


class Own(IntEnum):
    """Registers beside those of the steps."""

    FAILED = Place.FREE  # what the step that was to fail has got
    PROBE = Place.FREE + 1
    NTH = Place.FREE + 2
    OTHER_GROUP = Place.FREE + 3


@pytest.fixture
def awake(hands: Process, edu: Device, new_process: Callable[[], Process]) -> Iterator[Device]:
    """An edu that is enabled before vfio-pci gets it, as by a user of sysfs.

    Otherwise each open has ACPICA interpret _PRT to route INTx, hundreds of allocations that are
    not VFIO's, and 6.12's does not survive that all of them fail.

    The driver must be able to let it go afterwards: vfio_unregister_group_dev() waits for each
    reference that a failure has left.
    """

    def enable(value: int) -> None:
        with edu.driven_by(hands, None):
            hands.write_text(f"{edu.sysfs}/enable", str(value))

    enable(1)
    yield edu
    unbind = write_file(f"{edu.sysfs}/driver/unbind", edu.address.encode())
    going = new_process().start(Program(setup=unbind), timeout=60)
    assert going.done(within=SOON), "the driver cannot let the device go"
    edu.set_driver(hands, VFIO_PCI)
    enable(0)


@dataclass(frozen=True)
class Attempt:
    """A step whose n-th allocation was to fail, amid its flow."""

    before: tuple[tuple[int, int], ...]  # what the probes said: value and errno
    result: Result
    injected: bool  # it had an n-th allocation
    after: tuple[tuple[int, int], ...]
    rest: tuple[Result, ...]  # the same step again, and all that follow


@pytest.fixture(autouse=True)
def _memory_can_fail(hands: Process) -> Iterator[None]:
    """Set the knobs, and set them back."""
    if not all(map(hands.exists, NEEDED)):
        raise not_applicable("this kernel was built without fault injection")
    before = {path: hands.read_text(path) for path in KNOBS if hands.exists(path)}
    try:
        for path in before:
            hands.write_text(path, KNOBS[path])
        yield
    finally:
        for path, value in before.items():
            hands.write_text(path, value.strip())


def _flow(process: Process, device: Device, mode: Mode, memory: Memory) -> tuple[Step, ...]:
    """From the first open to the last step before the closes, one call at a time.

    A close cannot fail. What the IOMMU core does on its way without memory is a WARN:
    __iommu_group_set_domain_nofail() goes back to a domain that Intel's driver allocates for.
    """
    return (
        *way_in(process, device, mode, IOVA, memory),
        Step("mmap of a BAR", map_bar(process)),
        Step("munmap", unmap_bar(process)),
        *way_back(mode, IOVA, memory.length),
    )


def _probes(group: str) -> tuple[Call, ...]:
    """The lowest fd that is free; whether the device answers; whether the group opens."""
    return (
        Call(Syscall.EVENTFD2, (Imm(0), Imm(0)), Own.PROBE),
        close(Own.PROBE),
        info(),
        openat(group, Own.PROBE),
        close(Own.PROBE),
    )


def _set_nth(number: int) -> Call:
    """0: from now on none fails."""
    text = str(number).encode()
    words = Reg(Own.NTH), Buf(text, returned=False), Imm(len(text)), Imm(0)
    return Call(Syscall.PWRITE64, words)


def _unlucky(call: Call, nth: int) -> tuple[Call, Call, Call, Call]:
    """A call whose n-th allocation fails, between one that says so and one that asks for it."""
    words = Reg(Own.NTH), Buf(size=16), Imm(16), Imm(0)
    return _set_nth(nth), call, Call(Syscall.PREAD64, words), _set_nth(0)


def _was_injected(asked: Result) -> bool:
    """Whether the call had an n-th allocation."""
    return int(asked.data[: asked.value]) == 0


def _attempt(process: Process, flow: Sequence[Step], step: int, nth: int, group: str) -> Attempt:
    """Walk the flow; at `step` let the n-th allocation fail, then do that step again and go on.

    All of it is one program, because fail-nth is the thread's own.
    """

    call = flow[step].call
    spare = None if call.register is None else Own.FAILED
    probes = _probes(group)
    parts = (
        (openat(NTH, Own.NTH), *(each.call for each in flow[:step])),
        probes,
        _unlucky(replace(call, register=spare), nth),
        probes,
        tuple(each.call for each in flow[step:]),
        # All closes; a step that had succeeded was done twice, and may have got two of its kind.
        (
            *(unmap_bar(process, place) for place in (Own.FAILED, Place.BAR)),
            *map(close, (Own.FAILED, Own.NTH, Own.OTHER_GROUP)),
            *closes(),
        ),
    )
    results = iter(process.batch([op for part in parts for op in part], timeout=60.0))
    start, before, (set_, failed, asked, _), after, rest, _ = (
        tuple(next(results) for _ in part) for part in parts
    )
    assert all(result.ok for result in (*start, set_)), f"on the way to {flow[step].name}"
    return Attempt(_answers(before), failed, _was_injected(asked), _answers(after), rest)


def _answers(probes: Sequence[Result]) -> tuple[tuple[int, int], ...]:
    return tuple((result.value, result.errno) for result in probes)


def _sweep(
    process: Process, flow: Sequence[Step], group: str, start: int = 0
) -> tuple[Counter[str], int]:
    """Every step, or those from `start` on, with its 1st, 2nd, … allocation failing; failures by
    step, and how many allocations failed in all: the kernel can do without some."""
    failures: Counter[str] = Counter()
    injected = 0
    for number, step in enumerate(flow[start:], start):
        for nth in count(1):
            assert nth < MOST, f"{step.name} never gets through"
            attempt = _attempt(process, flow, number, nth, group)
            if not attempt.result.ok:
                assert attempt.injected, f"{step.name} failed, and not for want of memory"
                assert attempt.after == attempt.before, f"allocation {nth} of {step.name}"
                errnos = {
                    later.name: result.errno
                    for later, result in zip(flow[number:], attempt.rest, strict=True)
                    if not result.ok
                }
                assert not errnos, f"after allocation {nth} of {step.name} had failed"
                failures[step.name] += 1
            if not attempt.injected:
                break
            injected += 1
    return failures, injected


@contextmanager
def _same_memory(process: Process) -> Iterator[None]:
    """The process has as much memory locked and pinned after the block as before it."""

    def words() -> list[str]:
        lines = process.read_text("/proc/self/status").splitlines()
        return [line for line in lines if line.startswith(("VmLck", "VmPin"))]

    before = words()
    yield
    assert words() == before


def _is_as_before(process: Process, hands: Process, device: Device, mode: Mode) -> None:
    with open_device(process, device, mode) as opened:
        opened.device.info()
    if hands.exists(device.group_path(hands)):
        device.open_group(process).close()


def _report(record: Callable[[str, object], None], failures: Counter[str], injected: int) -> None:
    assert failures, "no allocation failed: nothing was injected"
    record("failed", ", ".join(f"{name} {number}" for name, number in failures.items()))
    record("borne", injected - failures.total())


@contract("OWN-7", Mode.IOMMUFD)
def test_step_of_the_cdev_flow_without_memory_changes_nothing(
    process: Process,
    hands: Process,
    awake: Device,
    record_property: Callable[[str, object], None],
) -> None:
    """The file is parked or bound as it was, the group can be opened or not as it could."""
    with process.mmap(PAGES * process.page_size) as memory:
        memory.write(0, b"\1")
        flow = _flow(process, awake, Mode.IOMMUFD, memory)
        with _same_memory(process):
            failures, injected = _sweep(process, flow, awake.group_path(hands))
    _is_as_before(process, hands, awake, Mode.IOMMUFD)
    _report(record_property, failures, injected)


@contract("OWN-6", *GROUP_MODES)
def test_step_of_the_group_flow_without_memory_changes_nothing(
    process: Process,
    hands: Process,
    awake: Device,
    mode: Mode,
    record_property: Callable[[str, object], None],
) -> None:
    """No fd is installed or reserved, and the group is as it was."""
    group = awake.group_path(hands)
    with process.mmap(PAGES * process.page_size) as memory:
        memory.write(0, b"\1")
        flow = _flow(process, awake, mode, memory)
        with _same_memory(process):
            failures, injected = _sweep(process, flow, group)
    _is_as_before(process, hands, awake, mode)
    _report(record_property, failures, injected)


@contract("OWN-6", *COMPAT_MODES)
@pytest.mark.usefixtures("both_flows")
def test_set_container_without_memory_lets_go_of_the_iommufd(
    process: Process, hands: Process, edu: Device, resettable: Device, mode: Mode
) -> None:
    """group.c: vfio_group_ioctl_set_container() puts it. A page table that user space made for
    another device keeps pinned what is mapped, until the last reference is gone."""
    before = pinned_pages(hands)
    with Iommufd.open(process, Iommufd.PATH) as iommufd, process.mmap(process.page_size) as page:
        with resettable.open_cdev(process) as cdev:
            ioas = iommufd.ioas_alloc()
            iommufd.hwpt_alloc(cdev.bind(iommufd), ioas)
            iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        with edu.open_group(process) as group:
            fd = Buf(iommufd.fd.to_bytes(4, "little"))
            request = Imm(group.fd), Imm(GroupRequest.VFIO_GROUP_SET_CONTAINER), fd
            join = Call(Syscall.IOCTL, request)
            ops = openat(NTH, Own.NTH), _set_nth(1), join, _set_nth(0), close(Own.NTH)
            assert process.batch(ops)[2].errno == ENOMEM
        assert pinned_pages(hands) == before + 1
        iommufd.close()
        assert pinned_pages(hands) == before, f"{mode}: somebody holds the iommufd"


@contract("CON-5", *GROUP_MODES)
def test_second_group_without_memory_stays_out(
    process: Process,
    hands: Process,
    awake: Device,
    resettable: Device,
    mode: Mode,
    record_property: Callable[[str, object], None],
) -> None:
    """container.c: vfio_container_attach_group(). Its DMA is not claimed, and the first one's works
    on in the container."""
    with process.mmap(PAGES * process.page_size) as memory:
        memory.write(0, b"\1")
        first = way_in(process, awake, mode, IOVA, memory)
        fd = Buf(size=4, inputs=(Field(0, 4, Place.CONTEXT),))
        join = Imm(GroupRequest.VFIO_GROUP_SET_CONTAINER), fd
        second = (
            Step("open of the second group", openat(resettable.group_path(hands), Own.OTHER_GROUP)),
            Step(
                "SET_CONTAINER of the second group",
                Call(Syscall.IOCTL, (Reg(Own.OTHER_GROUP), *join)),
            ),
        )
        group = awake.group_path(hands)
        failures, injected = _sweep(process, (*first, *second), group, len(first) + 1)
    _is_as_before(process, hands, resettable, mode)
    _report(record_property, failures, injected)


@contract("IRQ-3")
def test_intx_without_memory_is_not_set_up(
    process: Process, edu: Device, mode: Mode, record_property: Callable[[str, object], None]
) -> None:
    """vfio_intx_enable(): the type is not active, and can be set up.

    Not so MSI: what has no room in /proc when it is allocated is a WARN of the interrupt core's
    when it is freed, unregister_irq_proc().
    """
    index, trigger = PciIrq.VFIO_PCI_INTX_IRQ_INDEX, IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER
    failed = 0
    with open_device(process, edu, mode) as opened, process.eventfd() as event:
        file = opened.device
        argument = Buf(irq_set(index, trigger, eventfds=[event.fd]))
        words = Imm(file.fd), Imm(DeviceRequest.VFIO_DEVICE_SET_IRQS), argument
        for nth in count(1):
            assert nth < MOST, "INTx is never set up"
            ops = openat(NTH, Own.NTH), *_unlucky(Call(Syscall.IOCTL, words), nth), close(Own.NTH)
            _, _, result, asked, _, _ = process.batch(ops)
            if not result.ok:
                assert _was_injected(asked), "it failed, and not for want of memory"
                failed += 1
                with raises_errno(EINVAL):
                    file.set_irqs(index, trigger)
                file.set_irqs(index, trigger, eventfds=[event.fd])
            file.set_irqs(index, trigger)
            assert events_of(event, 0) == 1
            file.set_irqs(index, trigger, count=0)
            if not _was_injected(asked):
                break
    assert failed, "no allocation failed: nothing was injected"
    record_property("failed", failed)
