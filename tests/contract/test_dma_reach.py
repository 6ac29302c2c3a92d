# SPDX-License-Identifier: GPL-2.0-only
"""DMA-5 to DMA-7: whose memory a device reaches, at which addresses, and under which name.

What the machine's IOMMU can translate is asked of the kernel, not assumed.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from mmap import MAP_ANONYMOUS, MAP_PRIVATE

import pytest

from lab.agent.memory import Mapping as Memory
from lab.agent.process import Process
from lab.contract import Mode
from lab.expected import Announced
from lab.testing import contract, lacking
from lab.vfio.device import Device
from lab.vfio.edu import BUFFER, BUFFER_SIZE, Command, Edu, edu_of
from lab.vfio.files import DeviceFile, Iommufd
from lab.vfio.modes import AddressSpace, open_device

IOVA = 0x10_0000
PAGE = 4096
FOUR_GIB = 1 << 32
MANY = 48  # mappings
HUGE_PAGE = 2 << 20
HUGE_PAGES = 4
MAP_HUGETLB = 0x40000
ON_HUGE_PAGES = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB
NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"


@contextmanager
def _ready(process: Process, device: Device, mode: Mode) -> Iterator[tuple[AddressSpace, Edu]]:
    """The address space of a device that may do DMA, and the device."""
    with open_device(process, device, mode) as opened, edu_of(opened.device) as registers:
        opened.device.enable_dma()
        yield opened.space, registers


def _copies(registers: Edu, source: int, target: int, count: int) -> None:
    """Let the device copy `count` bytes from one IOVA to another."""
    registers.copy_in(source, count)
    registers.copy_out(target, count)


# DMA-5


def _each_sees_its_own(files: list[DeviceFile], pages: list[Memory]) -> None:
    """Both devices copy at the same IOVA, at the same time."""
    with ExitStack() as stack:
        both = [stack.enter_context(edu_of(file)) for file in files]
        for file, page, text in zip(files, pages, (b"one's own", b"another's"), strict=True):
            file.enable_dma()
            page.write(0, text)
        for source, target, command in (
            (IOVA, BUFFER, Command.RUN),
            (BUFFER, IOVA + 64, Command.RUN | Command.TO_MEMORY),
        ):
            for edu in both:
                edu.start(source, target, 9, command)
            for edu in both:
                edu.wait()
    assert [page.read(64, 9) for page in pages] == [b"one's own", b"another's"]


@contract("DMA-5")
def test_two_address_spaces_keep_two_devices_apart(
    process: Process, edu: Device, resettable: Device, mode: Mode
) -> None:
    """Each device by a flow of its own: two iommufds, or two containers."""
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_device(process, each, mode)) for each in (edu, resettable)
        ]
        pages = [stack.enter_context(process.mmap(PAGE)) for _ in opened]
        for each, page in zip(opened, pages, strict=True):
            each.space.map(IOVA, page)
        _each_sees_its_own([each.device for each in opened], pages)


@contract("DMA-5", Mode.IOMMUFD)
def test_two_address_spaces_of_one_iommufd_keep_two_devices_apart(
    process: Process, edu: Device, resettable: Device
) -> None:
    """device.c: iommufd_device_auto_get_domain() looks for a page table in its own IOAS only."""
    with ExitStack() as stack:
        iommufd = stack.enter_context(Iommufd.open(process, Iommufd.PATH))
        files = [stack.enter_context(each.open_cdev(process)) for each in (edu, resettable)]
        pages = [stack.enter_context(process.mmap(PAGE)) for _ in files]
        for file, page in zip(files, pages, strict=True):
            file.bind(iommufd)
            ioas = iommufd.ioas_alloc()
            iommufd.ioas_map(ioas, IOVA, page.address, page.length)
            file.attach(ioas)
        _each_sees_its_own(list(files), pages)


# DMA-6


@contract("DMA-6")
def test_high_addresses_transfer(process: Process, edu: Device, mode: Mode) -> None:
    """From above 4 GiB to the last page that the machine can translate.

    The bytes at the same address below 4 GiB are others: nothing is cut off.
    """
    with _ready(process, edu, mode) as (space, registers), process.mmap(3 * PAGE) as memory:
        top = max(last for _, last in space.iova_ranges()) + 1
        if top <= FOUR_GIB + IOVA + PAGE:
            raise lacking("an IOMMU that translates addresses above 4 GiB")
        places = IOVA, FOUR_GIB + IOVA, top - PAGE
        for number, place in enumerate(places):
            space.map_range(place, memory.address + number * PAGE, PAGE)
            memory.write(number * PAGE, b"page %d" % number)
        _copies(registers, places[1], places[2] + PAGE - 6, 6)
        assert memory.read(3 * PAGE - 6, 6) == b"page 1"
        _copies(registers, places[2], places[1] + 64, 6)
        assert memory.read(PAGE + 64, 6) == b"page 2"
        assert memory.read(64, 6) == bytes(6)


@contract("DMA-6")
def test_many_small_mappings_transfer(process: Process, edu: Device, mode: Mode) -> None:
    """Pages whose IOVAs run upwards and whose addresses run downwards; transfers cross them."""
    size = BUFFER_SIZE - 1
    with (
        _ready(process, edu, mode) as (space, registers),
        process.mmap(MANY * PAGE) as memory,
        process.mmap(PAGE) as target,
    ):
        space.map(0, target)
        memory.write(0, b"".join(map(_filled, reversed(range(MANY)))))
        for number in range(MANY):
            space.map_range(IOVA + number * PAGE, memory.address + (MANY - 1 - number) * PAGE, PAGE)
        for number in (0, MANY - 2):
            _copies(registers, IOVA + number * PAGE + PAGE // 2, 0, size)
            expected = _filled(number)[PAGE // 2 :] + _filled(number + 1)[: PAGE // 2]
            assert target.read(0, size) == expected[:size], f"mapping {number}"


def _filled(number: int) -> bytes:
    """A page that tells its number everywhere."""
    return number.to_bytes(4, "little") * (PAGE // 4)


@pytest.fixture
def huge_pages(hands: Process) -> Iterator[None]:
    """The guest has huge pages for a test."""
    before = hands.read_text(NR_HUGEPAGES).strip() if hands.exists(NR_HUGEPAGES) else None
    if before is None:
        raise lacking("a kernel with CONFIG_HUGETLBFS")
    hands.write_text(NR_HUGEPAGES, str(int(before) + HUGE_PAGES))
    try:
        if int(hands.read_text(NR_HUGEPAGES)) < int(before) + HUGE_PAGES:
            raise lacking(f"{HUGE_PAGES} free huge pages")
        yield
    finally:
        hands.write_text(NR_HUGEPAGES, before)


@contract("DMA-6")
@pytest.mark.usefixtures("huge_pages")
def test_large_mappings_on_huge_pages_transfer(process: Process, edu: Device, mode: Mode) -> None:
    """Where IOVA and memory are aligned alike the IOMMU may use large pages too; shifted by a
    page it cannot. What crosses a huge page goes in through the one and out through the other.

    A small page that was there before has left its table: intel/iommu.c, switch_to_super_page().
    """
    length = HUGE_PAGES * HUGE_PAGE
    aligned, shifted = HUGE_PAGE, HUGE_PAGE + length + PAGE
    text = b"across two pages"
    with (
        _ready(process, edu, mode) as (space, registers),
        process.mmap(length, flags=ON_HUGE_PAGES) as memory,
        process.mmap(PAGE) as small,
    ):
        space.map(aligned, small)
        space.unmap(aligned, PAGE)
        space.map(aligned, memory)
        space.map(shifted, memory)
        memory.write(HUGE_PAGE - 8, text)
        _copies(registers, aligned + HUGE_PAGE - 8, shifted + 2 * HUGE_PAGE - 8, len(text))
        assert memory.read(2 * HUGE_PAGE - 8, len(text)) == text
        registers.copy_out(aligned + length - len(text), len(text))
        assert memory.read(length - len(text), len(text)) == text
        assert space.unmap(aligned, length) == length


@contract("MAP-7", Mode.COMPAT_TYPE1)
@pytest.mark.usefixtures("huge_pages")
def test_compat_type1_splits_a_huge_page(
    expected: Announced, process: Process, edu: Device
) -> None:
    """pages.c: batch_iommu_map_small(), since a large entry could not be split."""
    hole = HUGE_PAGE + PAGE
    with (
        _ready(process, edu, Mode.COMPAT_TYPE1) as (space, registers),
        process.mmap(HUGE_PAGE, flags=ON_HUGE_PAGES) as memory,
    ):
        space.map(HUGE_PAGE, memory)
        assert space.unmap(hole, PAGE) == PAGE
        memory.write(0, b"before it")
        _copies(registers, HUGE_PAGE, hole + PAGE, 9)
        assert memory.read(2 * PAGE, 9) == b"before it"
        with expected.dma_faults(edu):
            registers.copy_out(hole, 9)
        assert memory.read(PAGE, 9) == bytes(9)


# DMA-7


@contract("DMA-7")
def test_device_behind_a_bridge_transfers_under_the_bridges_alias(
    expected: Announced,
    process: Process,
    hands: Process,
    devices: Mapping[str, Device],
    sibling: Device,
    rng: Device,
    mode: Mode,
) -> None:
    """A PCIe-to-PCI bridge sends what is behind it as function 0 of its own bus.

    Nobody has that address: the entry of one who had it in the IOMMU's tables would let the others'
    transfers through.

    Source: drivers/pci/search.c, pci_for_each_dma_alias(); PCIe to PCI bridge specification, 2.3.
    """
    alias = sibling.requester & ~0xFF
    assert alias not in {device.requester for device in devices.values()}
    with (
        rng.driven_by(hands, None),
        _ready(process, sibling, mode) as (space, registers),
        process.mmap(PAGE) as page,
    ):
        space.map(IOVA, page)
        page.write(0, b"over the bridge")
        _copies(registers, IOVA, IOVA + 64, 15)
        assert page.read(64, 15) == b"over the bridge"

        with expected.dma_faults(alias) as faults:
            registers.copy_out(IOVA + PAGE, 8)
            registers.copy_in(IOVA + PAGE, 8)
        assert {(fault.address & -8, fault.write) for fault in faults} == {
            (IOVA + PAGE, True),
            (IOVA + PAGE, False),
        }


@contract("DMA-7", Mode.IOMMUFD)
def test_device_behind_a_bridge_reaches_nothing_after_detach(
    expected: Announced, process: Process, hands: Process, sibling: Device, rng: Device
) -> None:
    """intel/iommu.c: domain_context_clear_one(): the entry of each alias leaves the IOMMU's cache,
    and not the device's own only. The page table stays, with all that is mapped there."""
    with (
        rng.driven_by(hands, None),
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        sibling.open_cdev(process) as cdev,
        process.mmap(PAGE) as page,
    ):
        identity, ioas = cdev.bind(iommufd), iommufd.ioas_alloc()
        iommufd.ioas_map(ioas, IOVA, page.address, PAGE)
        cdev.attach(iommufd.hwpt_alloc(identity, ioas))
        cdev.enable_dma()
        page.write(0, b"behind a bridge")
        with edu_of(cdev) as registers:
            _copies(registers, IOVA, IOVA + 64, 15)
            assert page.read(64, 15) == b"behind a bridge"
            cdev.detach_pt()
            with expected.dma_faults(sibling.requester & ~0xFF):
                registers.copy_out(IOVA + 128, 15)
        assert page.read(128, 15) == bytes(15)
