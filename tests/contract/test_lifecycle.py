# SPDX-License-Identifier: GPL-2.0-only
"""LIFE: a driver that goes while a file is open, and processes that are killed.

Source: drivers/vfio/vfio_main.c, vfio_unregister_group_dev(), and the files' release functions.
"""

import time
from collections.abc import Callable, Iterator
from errno import EINVAL, ENODEV, ENOENT, ENOTTY
from itertools import islice
from select import POLLIN
from signal import SIGKILL
from struct import pack

from lab.agent.calls import write_file
from lab.agent.file import RemoteFile
from lab.agent.process import Process
from lab.agent.program import Program
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.deadline import Deadline
from lab.guest import Guest
from lab.testing import contract, not_applicable, raises_errno
from lab.vfio.device import VFIO_PCI, Device, pinned_pages
from lab.vfio.edu import BUFFER, Command, Edu, edu_of
from lab.vfio.files import Cdev, Container, DeviceFile, Group, Iommufd
from lab.vfio.modes import (
    COMPAT_MODES,
    GROUP_MODES,
    IOMMU_TYPES,
    ContainerSpace,
    container_path,
    joined_group,
    open_container,
    open_device,
)
from lab.vfio.uapi import DeviceRequest, IrqSetFlag, PciCommand, PciIrq

IOVA = 0x10_0000
SOON = 5.0  # seconds


def _unbind(device: Device) -> Program:
    """Take the device from its driver; the write returns when the driver has let it go."""
    return Program(setup=write_file(f"{device.sysfs}/driver/unbind", device.address.encode()))


def _came(event: RemoteFile, within: float = SOON) -> bool:
    pollfd = bytearray(pack("<ihh", event.fd, POLLIN, 0))
    return event.process.syscall(Syscall.POLL, pollfd, 1, int(within * 1000)) == 1


@contract("LIFE-1")
def test_unbind_waits_for_the_file_that_is_open(
    process: Process, new_process: Callable[[], Process], hands: Process, edu: Device, mode: Mode
) -> None:
    """The request eventfd fires, the old file works, nobody gets a new one, closing ends it."""
    cdev_path, group_path = edu.cdev_path(hands), edu.group_path(hands)
    unbinder = new_process()
    try:
        with process.eventfd() as event, open_device(process, edu, mode) as opened:
            opened.device.set_irqs(
                PciIrq.VFIO_PCI_REQ_IRQ_INDEX,
                IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER,
                eventfds=[event.fd],
            )
            going = unbinder.start(_unbind(edu), timeout=60)
            assert _came(event), "nobody was asked to let the device go"
            assert not going.done(within=0.2)
            with edu_of(opened.device) as registers:
                assert registers.inverted(0) == 0xFFFF_FFFF
            with raises_errno(ENOENT):
                Cdev.open(hands, cdev_path)
            if opened.group:
                with raises_errno(ENODEV):
                    opened.group.get_device(edu.address)
            assert not going.done()
        results = going.wait().rounds[0].setup
        assert [result.errno for result in results] == [0, 0, 0]
        assert edu.driver(hands) is None
        with raises_errno(ENOENT):
            Group.open(hands, group_path)
    finally:
        edu.set_driver(hands, VFIO_PCI)


@contract("LIFE-1", Mode.IOMMUFD, Mode.TYPE1V2)  # one of each flow: it takes ten seconds
def test_user_is_asked_again(
    process: Process, new_process: Callable[[], Process], hands: Process, edu: Device, mode: Mode
) -> None:
    """vfio_unregister_group_dev() asks every ten seconds: also who was not to be asked before."""
    unbinder = new_process()
    try:
        with process.eventfd() as event, open_device(process, edu, mode) as opened:
            going = unbinder.start(_unbind(edu), timeout=60)
            assert not going.done(within=0.2)
            opened.device.set_irqs(
                PciIrq.VFIO_PCI_REQ_IRQ_INDEX,
                IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER,
                eventfds=[event.fd],
            )
            assert _came(event, within=10 + SOON), "nobody asks again"
        assert [result.errno for result in going.wait().rounds[0].setup] == [0, 0, 0]
    finally:
        edu.set_driver(hands, VFIO_PCI)


@contract("LIFE-1", Mode.IOMMUFD)
def test_unbind_waits_for_a_parked_file(
    process: Process, new_process: Callable[[], Process], hands: Process, edu: Device
) -> None:
    """vfio_device_fops_cdev_open() takes the registration: a file is in use before it is bound."""
    unbinder = new_process()
    try:
        with edu.open_cdev(process) as cdev:
            going = unbinder.start(_unbind(edu), timeout=60)
            assert not going.done(within=0.2)
            with raises_errno(EINVAL):
                cdev.info()
        assert [result.errno for result in going.wait().rounds[0].setup] == [0, 0, 0]
        assert edu.driver(hands) is None
    finally:
        edu.set_driver(hands, VFIO_PCI)


@contract("LIFE-1")
def test_unbind_waits_although_it_is_killed(
    process: Process, new_process: Callable[[], Process], hands: Process, edu: Device, mode: Mode
) -> None:
    """vfio_unregister_group_dev(), `interrupted`: a signal ends the sleep and not the wait."""
    unbinder = new_process()
    with process.eventfd() as event, open_device(process, edu, mode) as opened:
        opened.device.set_irqs(
            PciIrq.VFIO_PCI_REQ_IRQ_INDEX,
            IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER,
            eventfds=[event.fd],
        )
        unbinder.start(_unbind(edu), timeout=60)
        assert _came(event), "nobody was asked to let the device go"
        hands.syscall(Syscall.KILL, unbinder.pid, SIGKILL)
        time.sleep(0.2)
        assert hands.exists(f"/proc/{unbinder.pid}"), "the driver went although a file is open"
        with edu_of(opened.device) as registers:
            assert registers.inverted(0) == 0xFFFF_FFFF
    _ends(hands, unbinder)
    assert edu.driver(hands) is None
    edu.set_driver(hands, VFIO_PCI)


@contract("LIFE-1", *GROUP_MODES)
def test_group_that_has_lost_its_last_device_is_empty(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """vfio_device_remove_group(): nobody waits for a group's file. It leaves its container, with
    what is mapped there, and nothing can be had from it any more. A device that comes back brings
    a group of its own."""
    before = pinned_pages(hands)
    with joined_group(process, edu, mode) as (container, group), process.mmap(4096) as page:
        ContainerSpace(container).map(IOVA, page)
        with edu.driven_by(hands, None):
            with raises_errno(ENODEV):
                group.get_device(edu.address)
            with raises_errno(ENODEV):
                group.status()
            assert pinned_pages(hands) == before
        edu.open_group(process).close()
    with open_container(process, mode) as container, edu.open_group(process) as group:
        with edu.driven_by(hands, None), raises_errno(ENODEV):
            group.set_container(container)
        edu.open_group(process).close()


def _iommufd_flow(process: Process, device: Device) -> Iterator[DeviceFile | None]:
    """The cdev flow, one step at a time. Nobody closes anything."""
    iommufd = Iommufd.open(process, Iommufd.PATH)
    yield None
    cdev = device.open_cdev(process)
    yield None
    cdev.bind(iommufd)
    yield cdev
    ioas = iommufd.ioas_alloc()
    yield cdev
    cdev.attach(ioas)
    yield cdev
    page = process.mmap(process.page_size)
    iommufd.ioas_map(ioas, IOVA, page.address, page.length)
    yield cdev


def _group_flow(process: Process, device: Device, mode: Mode) -> Iterator[DeviceFile | None]:
    """The group flow, likewise."""
    container = Container.open(process, container_path(process, mode))
    yield None
    group = device.open_group(process)
    yield None
    group.set_container(container)
    yield None
    container.set_iommu(IOMMU_TYPES[mode])
    yield None
    page = process.mmap(process.page_size)
    container.map_dma(IOVA, page.address, page.length)
    yield None
    yield group.get_device(device.address)


def _flow(process: Process, device: Device, mode: Mode) -> Iterator[None]:
    """All of a mode's steps, and then a transfer that is under way."""
    file: DeviceFile | None = None
    steps = (
        _iommufd_flow(process, device)
        if mode is Mode.IOMMUFD
        else _group_flow(process, device, mode)
    )
    for reached in steps:
        file = reached
        yield
    assert file is not None
    registers = file.map_bar(0)
    yield
    file.enable_dma()
    yield
    Edu(registers).start(BUFFER, IOVA, 64, Command.RUN | Command.TO_MEMORY)
    yield


def _kill(hands: Process, process: Process) -> None:
    """SIGKILL, and wait until the kernel has cleared up."""
    hands.syscall(Syscall.KILL, process.pid, SIGKILL)
    _ends(hands, process)


def _ends(hands: Process, process: Process) -> None:
    """Wait until it has."""
    deadline = Deadline.after(SOON)
    while hands.exists(f"/proc/{process.pid}"):
        assert not deadline.passed, "the killed process is still there"
        time.sleep(0.01)


@contract("LIFE-3", Mode.IOMMUFD)
def test_closed_device_gives_the_iommufd_back(
    process: Process, hands: Process, edu: Device
) -> None:
    """vfio_df_unbind_iommufd() puts it: what is mapped goes with its own file, and not before. A
    page table that user space made keeps it pinned till then."""
    before = pinned_pages(hands)
    with Iommufd.open(process, Iommufd.PATH) as iommufd, process.mmap(4096) as page:
        with edu.open_cdev(process) as cdev:
            ioas = iommufd.ioas_alloc()
            iommufd.hwpt_alloc(cdev.bind(iommufd), ioas)
            iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        assert pinned_pages(hands) == before + 1
        iommufd.close()
        assert pinned_pages(hands) == before, "somebody holds the iommufd"


@contract("LIFE-3", *COMPAT_MODES)
def test_closed_group_gives_the_iommufd_back(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """vfio_group_fops_release() puts it, although nobody has unset it. A page table that user space
    made keeps pinned what is mapped; the first objects are the IOAS and the device."""
    before = pinned_pages(hands)
    ioas, device = 1, 2
    with Iommufd.open(process, Iommufd.PATH) as iommufd, process.mmap(4096) as page:
        with edu.open_group(process) as group:
            group.set_container(iommufd)
            with group.get_device(edu.address):
                iommufd.hwpt_alloc(device, ioas)
                iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        assert pinned_pages(hands) == before + 1
        iommufd.close()
        assert pinned_pages(hands) == before, f"{mode}: somebody holds the iommufd"


@contract("LIFE-3")
def test_device_is_enabled_while_it_is_open(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """pci_enable_device() counts: vfio_pci_core_disable() takes back what vfio_pci_core_enable()
    has asked for."""
    count = f"{edu.sysfs}/enable"
    before = int(hands.read_text(count))
    with open_device(process, edu, mode):
        assert int(hands.read_text(count)) == before + 1
    assert int(hands.read_text(count)) == before


@contract("LIFE-3")
def test_closed_device_sleeps_again(
    process: Process, hands: Process, resettable: Device, mode: Mode
) -> None:
    """Whatever keeps a device awake is given back: vfio_pci_core_enable() and _disable(), the fops'
    vfio_device_pm_runtime_get(), and vfio_pci_dev_set_pm_runtime_get() of a hot reset."""
    status = f"{resettable.sysfs}/power/runtime_status"
    if not hands.exists(status):
        raise not_applicable("this kernel has no CONFIG_PM")
    _sleeps(hands, status)
    with open_device(process, resettable, mode) as opened:
        assert hands.read_text(status) == "active\n"
        opened.device.hot_reset([opened.group.fd] if opened.group else [])
        with raises_errno(ENOTTY):
            opened.device.call(DeviceRequest.UNKNOWN)
    _sleeps(hands, status)


def _sleeps(hands: Process, status: str) -> None:
    deadline = Deadline.after(SOON)
    while hands.read_text(status) != "suspended\n":
        assert not deadline.passed, "a device that nobody uses does not sleep"
        time.sleep(0.01)


@contract("LIFE-3")
def test_killed_process_leaves_nothing_behind(
    guest: Guest,
    new_process: Callable[[], Process],
    process: Process,
    hands: Process,
    edu: Device,
    mode: Mode,
    record_property: Callable[[str, object], None],
) -> None:
    """After each step of the flow: the device can be had in both flows, and is as it was new.

    Nothing is pinned, and its driver can let it go: nobody holds a reference to it.
    """
    number, finished, pinned = 0, False, pinned_pages(hands)
    before = guest.fault_count
    while not finished:
        number += 1
        victim = new_process()
        steps = _flow(victim, edu, mode)
        finished = len(list(islice(steps, number))) < number
        _kill(hands, victim)
        assert pinned_pages(hands) == pinned
        if hands.exists(edu.group_path(hands)):
            edu.open_group(process).close()
        with open_device(process, edu, mode) as opened:
            assert PciCommand.MASTER not in opened.device.command
    assert guest.faults(before) == []
    going = process.start(_unbind(edu), timeout=60)
    assert going.done(within=SOON), "the driver cannot let the device go"
    edu.set_driver(hands, VFIO_PCI)
    record_property("steps", number - 1)
