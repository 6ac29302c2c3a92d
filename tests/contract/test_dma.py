# SPDX-License-Identifier: GPL-2.0-only
"""DMA: what a device can reach, by transfers that really happen.

A test that nothing is moved holds its positive control: the same transfer, allowed, moves the
bytes. Blocked transfers are counted by QEMU's own trace of the virtual IOMMU, because the guest's
kernel limits how many it reports.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.agent.program import Call, Delay, Imm, Store
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.deadline import Deadline
from lab.expected import Announced
from lab.guest import DmarFault, Guest
from lab.testing import contract, lacking
from lab.vfio.device import Device
from lab.vfio.edu import BUFFER, BUFFER_SIZE, Command, Edu, Register, edu_of
from lab.vfio.files import DeviceFile, Iommufd
from lab.vfio.modes import Opened, open_device
from lab.vfio.uapi import PCI_COMMAND, MapFlag, PciCommand, PciRegion

IOVA = 0x10_0000
PAGE = 4096
WORD = b"sixteen bytes..."
TRANSFER = 100_000_000  # nanoseconds that edu takes
ATTEMPTS = 3  # on a busy host
TOLD = 30.0  # seconds


@contextmanager
def _working(process: Process, device: Device, mode: Mode) -> Iterator[tuple[Opened, Edu, Mapping]]:
    """An edu with bus mastering on and `WORD` in its buffer, and a page that is mapped at IOVA."""
    with (
        open_device(process, device, mode) as opened,
        edu_of(opened.device) as edu,
        process.mmap(process.page_size) as page,
    ):
        opened.space.map(IOVA, page)
        opened.device.enable_dma()
        page.write(0, WORD)
        edu.copy_in(IOVA, len(WORD))
        yield opened, edu, page


def _writes(edu: Edu, iova: int, page: Mapping) -> bool:
    """Whether the device's write of `WORD` to `iova` reaches the start of `page`."""
    page.write(0, bytes(len(WORD)))
    edu.copy_out(iova, len(WORD))
    found = page.read(0, len(WORD))
    assert found in {WORD, bytes(len(WORD))}, f"neither written nor left alone: {found!r}"
    return found == WORD


@contextmanager
def _only_blocked(
    expected: Announced, device: Device, iova: int, *, write: bool = True
) -> Iterator[None]:
    """The IOMMU reports in the block the transfer of `WORD` at `iova` and nothing else.

    QEMU breaks a transfer into accesses of 8 bytes, each of which faults.
    """
    with expected.dma_faults(device) as came:
        yield
    assert came[0] == DmarFault(device.requester, iova, write)
    touched = {DmarFault(device.requester, iova + byte, write) for byte in range(len(WORD))}
    assert set(came) <= touched


@contract("DMA-1")
def test_device_copies_through_mapped_memory(process: Process, edu: Device, mode: Mode) -> None:
    """Memory to device to memory, nearly the device's whole buffer, at two mappings."""
    data = bytes(range(256)) * 16
    size = BUFFER_SIZE - 1
    with (
        open_device(process, edu, mode) as opened,
        edu_of(opened.device) as registers,
        process.mmap(process.page_size) as source,
        process.mmap(process.page_size) as target,
    ):
        opened.device.enable_dma()
        opened.space.map(IOVA, source)
        opened.space.map(2 * IOVA, target)
        source.write(0, data[:size])
        registers.copy_in(IOVA, size)
        registers.copy_out(2 * IOVA, size)
        assert target.read(0, size) == data[:size]
        assert target.read(size, 1) == b"\0"


@contract("DMA-1")
def test_scattered_pages_are_each_mapped_where_they_are(
    process: Process, edu: Device, mode: Mode
) -> None:
    """batch_add_pfn() and vfio_pin_pages_remote() take pages for contiguous only where they are.

    Pages of two mappings are touched in turns, and so lie in turns in memory; both neighbours of
    a boundary are read in one transfer.
    """
    size, near = process.page_size, 32
    with (
        open_device(process, edu, mode) as opened,
        edu_of(opened.device) as registers,
        process.mmap(4 * size) as pages,
        process.mmap(4 * size) as others,
        process.mmap(size) as target,
    ):
        opened.device.enable_dma()
        for number in range(4):
            for memory, text in ((pages, b"page %d"), (others, b"other %d")):
                memory.write(number * size, (text % number).ljust(size, b"."))
        opened.space.map(IOVA, pages)
        opened.space.map(2 * IOVA, target)
        for boundary in range(size, 4 * size, size):
            registers.copy_in(IOVA + boundary - near, 2 * near)
            registers.copy_out(2 * IOVA, 2 * near)
            assert target.read(0, 2 * near) == pages.read(boundary - near, 2 * near)


@contract("DMA-2", Mode.IOMMUFD)
def test_kernel_says_who_was_blocked_and_where(
    guest: Guest, expected: Announced, process: Process, edu: Device
) -> None:
    """intel/dmar.c: dmar_fault_do_one(). It says ten things in five seconds, and what others caused
    before counts, too: so the transfer is repeated until it is told of."""
    _, _, name = edu.address.partition(":")
    with _working(process, edu, Mode.IOMMUFD) as (_, registers, _), expected.dma_faults(edu):
        elsewhere, start = IOVA + process.page_size, guest.console.size
        who = rf"Request device \[(?:0000:)?{re.escape(name)}\] fault addr {elsewhere:#x}\b"
        deadline = Deadline.after(TOLD)
        while not re.search(rf"\[DMA Write\b[^]]*\] {who}", guest.console.text(start)):
            assert not deadline.passed, f"the kernel does not say that {name} was blocked"
            registers.copy_out(elsewhere, len(WORD))


@contract("DMA-2")
def test_unmapped_address_is_blocked(
    expected: Announced, process: Process, edu: Device, mode: Mode
) -> None:
    """A page beside the mapped one does not exist for the device."""
    with _working(process, edu, mode) as (_, registers, page):
        elsewhere = IOVA + process.page_size
        with _only_blocked(expected, edu, elsewhere):
            assert not _writes(registers, elsewhere, page)
        assert _writes(registers, IOVA, page)


@contract("DMA-2")
def test_unmap_ends_the_devices_access(
    expected: Announced, process: Process, edu: Device, mode: Mode
) -> None:
    """The same address works before the unmap, and not after it: the IOTLB holds nothing back."""
    with _working(process, edu, mode) as (opened, registers, page):
        assert _writes(registers, IOVA, page)
        assert opened.space.unmap(IOVA, page.length) == page.length
        with _only_blocked(expected, edu, IOVA):
            assert not _writes(registers, IOVA, page)
        opened.space.map(IOVA, page)
        assert _writes(registers, IOVA, page)


@contract("DMA-2")
@pytest.mark.parametrize("boundary", [IOVA + 2 * PAGE, 2 << 30], ids=hex)
def test_unmap_ends_the_access_to_pages_that_no_power_of_two_holds(
    expected: Announced, process: Process, edu: Device, mode: Mode, boundary: int
) -> None:
    """intel/cache.c: calculate_psi_aligned_address(): the IOTLB forgets an aligned power of two,
    and of two pages of which the first is odd that takes four. cap_max_amask_val(): where it takes
    more than the hardware can, it forgets all of the address space."""
    across = boundary - len(WORD) // 2
    with (
        _working(process, edu, mode) as (opened, registers, _),
        process.mmap(2 * PAGE) as memory,
    ):
        place = PAGE - len(WORD) // 2
        opened.space.map(boundary - PAGE, memory)
        registers.copy_out(across, len(WORD))
        assert memory.read(place, len(WORD)) == WORD
        assert opened.space.unmap(boundary - PAGE, memory.length) == memory.length
        memory.write(place, bytes(len(WORD)))
        with _only_blocked(expected, edu, across):
            registers.copy_out(across, len(WORD))
        assert memory.read(place, len(WORD)) == bytes(len(WORD))


@contract("DMA-2")
def test_blocked_read_brings_nothing(
    expected: Announced, process: Process, edu: Device, mode: Mode
) -> None:
    """The device does not get the bytes that were there."""
    with _working(process, edu, mode) as (opened, registers, page):
        secret = b"not for devices!"
        page.write(0, secret)
        opened.space.unmap(IOVA, page.length)
        with _only_blocked(expected, edu, IOVA, write=False):
            registers.copy_in(IOVA, len(secret))
        opened.space.map(IOVA, page)
        registers.copy_out(IOVA, len(secret))
        assert page.read(0, len(secret)) != secret
        page.write(0, secret)
        registers.copy_in(IOVA, len(secret))
        registers.copy_out(IOVA + 64, len(secret))
        assert page.read(64, len(secret)) == secret


@contract("DMA-2", Mode.IOMMUFD)
def test_nothing_is_reached_before_the_first_attach_and_after_detach(
    expected: Announced, process: Process, edu: Device
) -> None:
    """A device that is bound and not attached sits in a blocking domain."""
    with (
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        edu.open_cdev(process) as cdev,
        process.mmap(process.page_size) as page,
    ):
        ioas = iommufd.ioas_alloc()
        iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        cdev.bind(iommufd)
        cdev.enable_dma()
        with edu_of(cdev) as registers:
            page.write(0, WORD)
            with _only_blocked(expected, edu, IOVA, write=False):
                registers.copy_in(IOVA, len(WORD))

            cdev.attach(ioas)
            page.write(0, WORD)
            registers.copy_in(IOVA, len(WORD))
            assert _writes(registers, IOVA, page)

            cdev.detach_pt()
            with _only_blocked(expected, edu, IOVA):
                assert not _writes(registers, IOVA, page)


@contract("DMA-3")
def test_read_only_mapping_is_read_only_for_the_device(
    guest: Guest, expected: Announced, process: Process, edu: Device, mode: Mode
) -> None:
    """The device gets the bytes and cannot change them; mapped for both it can.

    The write comes first: QEMU reports none that its IOTLB, filled by a read, already forbids.
    """
    with _working(process, edu, mode) as (opened, registers, page):
        opened.space.unmap(IOVA, page.length)
        opened.space.map(IOVA, page, MapFlag.VFIO_DMA_MAP_FLAG_READ)
        page.write(0, WORD[::-1])
        with _only_blocked(expected, edu, IOVA):
            registers.copy_out(IOVA, len(WORD))
        assert page.read(0, len(WORD)) == WORD[::-1]

        before = guest.fault_count
        registers.copy_in(IOVA, len(WORD))
        assert guest.faults(before) == []
        page.write(0, bytes(len(WORD)))
        registers.copy_out(IOVA, len(WORD))
        assert page.read(0, len(WORD)) == bytes(len(WORD))

        opened.space.unmap(IOVA, page.length)
        opened.space.map(IOVA, page)
        registers.copy_out(IOVA, len(WORD))
        assert page.read(0, len(WORD)) == WORD[::-1]


@contract("DMA-4")
def test_bus_mastering_is_off_when_a_device_is_opened(
    guest: Guest, process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """Whoever left it on: a transfer moves nothing until it is set, and no fault tells of it."""
    with hands.open(f"{edu.sysfs}/config") as config:
        config.pwrite((_command(hands, edu) | PciCommand.MASTER).to_bytes(2, "little"), PCI_COMMAND)
    assert PciCommand.MASTER in _command(hands, edu)
    with (
        open_device(process, edu, mode) as opened,
        edu_of(opened.device) as registers,
        process.mmap(process.page_size) as page,
    ):
        opened.space.map(IOVA, page)
        assert PciCommand.MASTER not in opened.device.command
        before = guest.fault_count
        page.write(0, WORD)
        registers.copy_in(IOVA, len(WORD))
        registers.copy_out(IOVA + 64, len(WORD))
        assert page.read(64, len(WORD)) == bytes(len(WORD))
        assert guest.faults(before) == []

        opened.device.enable_dma()
        registers.copy_in(IOVA, len(WORD))
        registers.copy_out(IOVA + 64, len(WORD))
        assert page.read(64, len(WORD)) == WORD


@contract("DMA-4")
def test_bus_mastering_is_off_again_after_close(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """drivers/vfio/pci/vfio_pci_core.c: vfio_pci_core_close_device() disables the device."""
    with open_device(process, edu, mode) as opened:
        opened.device.enable_dma()
        assert PciCommand.MASTER in _command(hands, edu)
    assert PciCommand.MASTER not in _command(hands, edu)
    with open_device(process, edu, mode) as opened:
        assert PciCommand.MASTER not in opened.device.command


@contract("DMA-8")
def test_closing_the_file_stops_a_transfer(
    guest: Guest, process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_pci_core_disable() clears bus mastering first: nothing is written, no fault is reported.

    The control is the same transfer before it, whose end is waited for.
    """
    for _ in range(ATTEMPTS):
        before = guest.fault_count
        with (
            open_device(process, edu, mode) as opened,
            opened.device.map_bar(PciRegion.VFIO_PCI_BAR0_REGION_INDEX) as bar,
            process.mmap(process.page_size) as page,
        ):
            registers = Edu(bar)
            opened.space.map(IOVA, page)
            opened.device.enable_dma()
            page.write(0, WORD)
            registers.copy_in(IOVA, len(WORD))
            assert _writes(registers, IOVA, page)
            page.write(0, bytes(len(WORD)))
            in_time = _start_and_close(opened.device, bar)
            after = page.read(0, len(WORD))
        if in_time:
            assert after == bytes(len(WORD))
            assert guest.faults(before) == []
            return
    raise lacking("a host that closes a file within 100 ms")


def _start_and_close(device: DeviceFile, bar: Mapping) -> bool:
    """Start a write of `WORD` to IOVA, and let go of the device in the same breath.

    False when the transfer may have ended before. Returns when it would have ended.
    """
    writes = {
        Register.SOURCE: BUFFER,
        Register.DESTINATION: IOVA,
        Register.COUNT: len(WORD),
        Register.COMMAND: Command.RUN | Command.TO_MEMORY,
    }
    bar.closed = True  # the mapping is a reference to the file, too
    *_, started, _, closed, _ = device.process.batch(
        [
            *(Store(Imm(bar.address + place), 8, Imm(value)) for place, value in writes.items()),
            Call(Syscall.MUNMAP, (Imm(bar.address), Imm(bar.length))),
            Call(Syscall.CLOSE, (Imm(device.detach()),)),
            Delay(TRANSFER + TRANSFER // 2),
        ]
    )
    return closed.ok and closed.end_ns - started.start_ns < TRANSFER


def _command(hands: Process, device: Device) -> PciCommand:
    """The command register as the hardware has it, not as vfio-pci shows it."""
    with hands.open(f"{device.sysfs}/config", 0) as config:
        return PciCommand(int.from_bytes(config.pread(2, PCI_COMMAND), "little"))
