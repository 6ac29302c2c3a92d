# SPDX-License-Identifier: GPL-2.0-only
"""DMA-2 where the kernel's own mapping lets everything through.

A group whose default domain is `identity` (iommu.passthrough=1, or a word written to the group's
`type`) reaches all of memory at its physical address, as long as the kernel has it. A user who
owns it must reach nothing by that.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from lab.agent.errors import RemoteError
from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.expected import Announced
from lab.guest import DmarFault, Guest
from lab.testing import contract, lacking, not_applicable
from lab.vfio.device import Device
from lab.vfio.edu import Edu, edu_of
from lab.vfio.files import Iommufd
from lab.vfio.modes import open_device
from lab.vfio.uapi import PCI_COMMAND, PciCommand

SECRET = b"not for devices!"
PFN = (1 << 55) - 1  # of an entry of /proc/PID/pagemap, proc_pid_pagemap(5)


@pytest.fixture
def passed_through(hands: Process, edu: Device) -> Iterator[Device]:
    """The device, in a group whose default domain is the identity.

    Source: drivers/iommu/iommu.c, iommu_group_store_type(): no host driver may be in the group.
    """
    path = f"{edu.sysfs}/iommu_group/type"
    if not hands.exists(path):
        raise not_applicable("this machine has no IOMMU")
    before = hands.read_text(path).strip()
    try:
        hands.write_text(path, "identity")
    except RemoteError as error:
        raise lacking("an IOMMU that can pass transfers through") from error
    try:
        yield edu
    finally:
        hands.write_text(path, before)


def _physical(hands: Process, page: Mapping) -> int:
    """Where the page, which is written to and locked, lies in memory."""
    with hands.open(f"/proc/{page.process.pid}/pagemap", 0) as pagemap:
        entry = int.from_bytes(pagemap.pread(8, page.address // page.length * 8), "little")
    return (entry & PFN) * page.length


@contextmanager
def _secret(process: Process, hands: Process) -> Iterator[tuple[Mapping, int]]:
    """A page with `SECRET` in it, and its physical address."""
    with process.mmap(process.page_size) as page:
        page.write(0, SECRET)
        process.syscall(Syscall.MLOCK, page.address, page.length)
        place = _physical(hands, page)
        yield page, place
        assert _physical(hands, page) == place, "the page has moved: nothing is proved"


def _fetches(guest: Guest, registers: Edu, place: int) -> bool:
    """Whether the device reads at `place`."""
    before = guest.fault_count
    registers.copy_in(place, len(SECRET))
    return guest.fault_count == before


def _is_kept_from(expected: Announced, device: Device, registers: Edu, place: int) -> None:
    """The device reads nothing at `place`: the IOMMU reports that, and only that."""
    with expected.dma_faults(device) as faults:
        registers.copy_in(place, len(SECRET))
    touched = {DmarFault(device.requester, place + at, False) for at in range(len(SECRET))}
    assert set(faults) <= touched


@contextmanager
def _in_the_kernels_hands(hands: Process, device: Device) -> Iterator[Edu]:
    """The device as sysfs gives it to root: nobody owns its DMA, the default domain is in force."""
    with ExitStack() as stack:
        config = stack.enter_context(hands.open(f"{device.sysfs}/config"))
        before = config.pread(2, PCI_COMMAND)
        command = PciCommand(int.from_bytes(before, "little"))
        on = command | PciCommand.MASTER | PciCommand.MEMORY
        config.pwrite(on.to_bytes(2, "little"), PCI_COMMAND)
        stack.callback(config.pwrite, before, PCI_COMMAND)
        resource = stack.enter_context(hands.open(f"{device.sysfs}/resource0"))
        length = 1 << 20
        yield Edu(stack.enter_context(resource.mmap(length)))


@contract("DMA-2", Mode.IOMMUFD)
def test_identity_is_no_way_around_the_attach(
    guest: Guest, expected: Announced, process: Process, hands: Process, passed_through: Device
) -> None:
    """__iommu_take_dma_ownership() and __iommu_group_set_core_domain(): an owned group that is not
    attached sits in the blocking domain, not in the default one.

    Two controls: in the default domain the device does fetch the bytes, and so does it where its
    owner has mapped them at that very address.
    """
    device = passed_through
    with _secret(process, hands) as (page, place):
        with _in_the_kernels_hands(hands, device) as registers:
            assert _fetches(guest, registers, place)
        with (
            Iommufd.open(process, Iommufd.PATH) as iommufd,
            device.open_cdev(process) as cdev,
        ):
            cdev.bind(iommufd)
            cdev.enable_dma()
            with edu_of(cdev) as registers:
                _is_kept_from(expected, device, registers, place)  # before the first attach
                ioas = iommufd.ioas_alloc()
                cdev.attach(ioas)
                _is_kept_from(expected, device, registers, place)  # attached, nothing mapped
                iommufd.ioas_map(ioas, place, page.address, page.length)
                assert _fetches(guest, registers, place)
                cdev.detach_pt()
                _is_kept_from(expected, device, registers, place)  # after detach


@contract("DMA-2")
def test_identity_is_no_way_around_the_mappings(
    guest: Guest,
    expected: Announced,
    process: Process,
    hands: Process,
    passed_through: Device,
    mode: Mode,
) -> None:
    """What is not mapped does not exist, wherever it lies in memory."""
    with (
        _secret(process, hands) as (page, place),
        open_device(process, passed_through, mode) as opened,
        edu_of(opened.device) as registers,
    ):
        opened.device.enable_dma()
        _is_kept_from(expected, passed_through, registers, place)
        opened.space.map(place, page)
        assert _fetches(guest, registers, place)
