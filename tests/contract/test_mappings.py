# SPDX-License-Identifier: GPL-2.0-only
"""MAP: what can be mapped for a device, and what unmapping takes away.

Source: drivers/iommu/iommufd/io_pagetable.c, drivers/iommu/iommufd/vfio_compat.c and
drivers/vfio/vfio_iommu_type1.c. Every refusal stands beside a mapping that is granted.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from errno import EEXIST, EFAULT, EINVAL, ENOENT, EOPNOTSUPP, EOVERFLOW
from mmap import PROT_READ

import pytest

from lab.agent.inherit import forked, take_fd
from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.agent.syscalls import Syscall
from lab.config import Machine
from lab.contract import Mode
from lab.expected import Announced
from lab.testing import contract, raises_errno
from lab.vfio.device import Device, pinned_pages
from lab.vfio.edu import Edu, edu_of
from lab.vfio.files import READ_WRITE, DeviceFile, Iommufd
from lab.vfio.modes import CONTAINER_MODES, AddressSpace, open_device
from lab.vfio.uapi import IoasMapFlag, IommufdRequest, IommuIoasMap, MapFlag

IOVA = 0x10_0000
PAGE = 4096
PAGES = 4
MSI_WINDOW, MSI_END = 0xFEE0_0000, 0xFEF0_0000
TOP = 2**64 - PAGE
UNKNOWN_FLAG = MapFlag(1 << 20)
LAST_OF_39_BITS = 2**39 - PAGE
BEYOND_ANY_WIDTH = 2**57


@contextmanager
def _space(
    process: Process, device: Device, mode: Mode
) -> Iterator[tuple[AddressSpace, Edu, Mapping]]:
    """The address space of an attached device, the device, and four pages to map."""
    with (
        open_device(process, device, mode) as opened,
        edu_of(opened.device) as registers,
        process.mmap(PAGES * PAGE) as memory,
    ):
        opened.device.enable_dma()
        yield opened.space, registers, memory


@contract("MAP-1")
@pytest.mark.parametrize(
    ("page", "pages"),
    [
        pytest.param(0, 4, id="whole"),
        pytest.param(0, 1, id="head"),
        pytest.param(3, 1, id="tail"),
        pytest.param(1, 2, id="middle"),
        pytest.param(-1, 2, id="from-before"),
        pytest.param(3, 2, id="beyond"),
        pytest.param(-1, 6, id="around"),
    ],
)
def test_mappings_do_not_overlap(
    process: Process, edu: Device, mode: Mode, page: int, pages: int
) -> None:
    """EEXIST, and the first mapping stays: the same pages go once it has been unmapped."""
    with _space(process, edu, mode) as (space, _, memory), process.mmap(pages * PAGE) as other:
        space.map(IOVA, memory)
        place = IOVA + page * PAGE
        with raises_errno(EEXIST):
            space.map(place, other)
        assert space.unmap(IOVA, memory.length) == memory.length
        space.map(place, other)


@contract("MAP-1")
def test_neighbours_do_not_overlap(process: Process, edu: Device, mode: Mode) -> None:
    """Where one mapping ends the next may begin; then each is in the way of another."""
    places = IOVA, IOVA + PAGE, IOVA - PAGE
    with _space(process, edu, mode) as (space, _, memory):
        for place in places:
            space.map_range(place, memory.address, PAGE)
        for place in places:
            with raises_errno(EEXIST):
                space.map_range(place, memory.address, PAGE)


@contract("MAP-2")
@pytest.mark.parametrize(
    ("iova", "offset", "length"),
    [
        pytest.param(IOVA + 1, 0, PAGE, id="iova"),
        pytest.param(IOVA, 1, PAGE, id="address"),
        pytest.param(IOVA, 0, PAGE + 1, id="length"),
        pytest.param(IOVA, 0, 0, id="empty"),
        pytest.param(MSI_WINDOW, 0, PAGE, id="msi-window"),
        pytest.param(MSI_WINDOW - PAGE, 0, 2 * PAGE, id="into-the-msi-window"),
        pytest.param(MSI_END - PAGE, 0, 2 * PAGE, id="out-of-the-msi-window"),
        pytest.param(BEYOND_ANY_WIDTH, 0, PAGE, id="beyond-the-width"),
    ],
)
def test_mapping_is_aligned_and_inside_the_allowed_ranges(
    process: Process, edu: Device, mode: Mode, iova: int, offset: int, length: int
) -> None:
    """EINVAL; aligned pages right below and above the MSI window are mapped."""
    with _space(process, edu, mode) as (space, _, memory):
        with raises_errno(EINVAL):
            space.map_range(iova, memory.address + offset, length)
        space.map_range(MSI_WINDOW - PAGE, memory.address, PAGE)
        space.map_range(MSI_END, memory.address, PAGE)


@contract("MAP-2")
def test_mapping_ends_with_the_address_width(
    process: Process, edu: Device, mode: Mode, machine: Machine
) -> None:
    """EINVAL from the first address that the IOMMU cannot translate; the page below is mapped."""
    assert machine.iommu
    end = 2**machine.iommu.iova_width
    with _space(process, edu, mode) as (space, _, memory):
        for iova in (end, 2**57):
            with raises_errno(EINVAL):
                space.map_range(iova, memory.address, PAGE)
        with raises_errno(EINVAL):
            space.map_range(end - PAGE, memory.address, 2 * PAGE)
        space.map_range(end - PAGE, memory.address, PAGE)


@contract("MAP-3")
def test_mapping_allows_a_read_or_a_write(process: Process, edu: Device, mode: Mode) -> None:
    """Neither is EINVAL; either is enough."""
    with _space(process, edu, mode) as (space, _, memory):
        with raises_errno(EINVAL):
            space.map(IOVA, memory, MapFlag(0))
        space.map_range(IOVA, memory.address, PAGE, MapFlag.VFIO_DMA_MAP_FLAG_READ)
        space.map_range(IOVA + PAGE, memory.address, PAGE, MapFlag.VFIO_DMA_MAP_FLAG_WRITE)


@contract("MAP-3", Mode.IOMMUFD)
def test_ioas_without_a_device_refuses_a_mapping_without_rights(process: Process) -> None:
    """ioas.c: iommufd_ioas_map() itself, before any IOMMU is asked."""
    with Iommufd.open(process, Iommufd.PATH) as iommufd, process.mmap(PAGE) as page:
        ioas = iommufd.ioas_alloc()
        with raises_errno(EINVAL):
            iommufd.ioas_map(ioas, IOVA, page.address, PAGE, MapFlag(0))
        iommufd.ioas_map(ioas, IOVA, page.address, PAGE)


@contract("MAP-4")
def test_unknown_flag_is_refused(process: Process, edu: Device, mode: Mode) -> None:
    """ioas.c: iommufd_ioas_map(); vfio_compat.c: iommufd_vfio_map_dma(); type1 likewise.

    Each bit by itself. Of type1 bit 2 is known, and not together with rights: vfio_dma_do_map().
    """
    expected, first = (EOPNOTSUPP, 3) if mode is Mode.IOMMUFD else (EINVAL, 2)
    both = MapFlag.VFIO_DMA_MAP_FLAG_READ | MapFlag.VFIO_DMA_MAP_FLAG_WRITE
    with _space(process, edu, mode) as (space, _, memory):
        for bit in range(first, 32):
            with raises_errno(expected):
                space.map(IOVA, memory, both | MapFlag(1 << bit))
        space.map(IOVA, memory, both)


@contract("MAP-4", Mode.IOMMUFD)
def test_reserved_field_is_refused(process: Process) -> None:
    """ioas.c: iommufd_ioas_map(), `cmd->__reserved`."""
    flags = IoasMapFlag.IOMMU_IOAS_MAP_FIXED_IOVA | IoasMapFlag.IOMMU_IOAS_MAP_READABLE
    with Iommufd.open(process, Iommufd.PATH) as iommufd, process.mmap(PAGE) as page:
        request = IommuIoasMap(
            ioas_id=iommufd.ioas_alloc(),
            flags=flags,
            user_va=page.address,
            length=PAGE,
            iova=IOVA,
            __reserved=1,
        )
        with raises_errno(EOPNOTSUPP):
            iommufd.call(IommufdRequest.IOMMU_IOAS_MAP, request)
        request = IommuIoasMap(
            ioas_id=request.ioas_id, flags=flags, user_va=page.address, length=PAGE, iova=IOVA
        )
        iommufd.call(IommufdRequest.IOMMU_IOAS_MAP, request)


@contract("MAP-5")
def test_address_without_memory_is_refused(process: Process, edu: Device, mode: Mode) -> None:
    """pages.c: pfn_reader_user_pin(); vfio_iommu_type1.c: vaddr_get_pfns(). Nothing stays."""
    with _space(process, edu, mode) as (space, _, memory):
        with process.mmap(PAGE) as gone:
            address = gone.address
        with raises_errno(EFAULT):
            space.map_range(IOVA, address, PAGE)
        space.map(IOVA, memory)


@contract("MAP-5")
def test_memory_that_may_only_be_read_is_not_mapped_for_writing(
    process: Process, edu: Device, mode: Mode
) -> None:
    """FOLL_WRITE, vaddr_get_pfns() and pfn_reader_user_init(). For reading it is mapped."""
    with _space(process, edu, mode) as (space, _, _), process.mmap(PAGE, PROT_READ) as page:
        with raises_errno(EFAULT):
            space.map(IOVA, page)
        space.map(IOVA, page, MapFlag.VFIO_DMA_MAP_FLAG_READ)


@contract("MAP-5")
def test_memory_that_ends_in_a_hole_is_refused(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """Nothing of what was there stays pinned: vfio_pin_map_dma() and pages.c unwind."""
    with _space(process, edu, mode) as (space, _, memory):
        process.syscall(Syscall.MUNMAP, memory.address + 3 * PAGE, PAGE)
        before = pinned_pages(hands)
        with raises_errno(EFAULT):
            space.map(IOVA, memory)
        assert pinned_pages(hands) == before
        space.map_range(IOVA, memory.address, 3 * PAGE)
        assert pinned_pages(hands) == before + 3


@contract("MAP-6")
def test_iova_and_size_do_not_wrap(
    process: Process, edu: Device, mode: Mode, release: tuple[int, int]
) -> None:
    """EOVERFLOW. type1 answered EINVAL before 6.18, which a stable kernel may still do."""
    expected = [EOVERFLOW]
    if mode in CONTAINER_MODES and release < (6, 18):
        expected.append(EINVAL)
    with _space(process, edu, mode) as (space, _, memory):
        with raises_errno(*expected):
            space.map_range(TOP, memory.address, 2 * PAGE)
        with raises_errno(EINVAL):  # the last page does not wrap, it is only too high
            space.map_range(TOP, memory.address, PAGE)
        space.map(IOVA, memory)


@contract("MAP-7", Mode.IOMMUFD, Mode.TYPE1V2, Mode.COMPAT_TYPE1V2)
@pytest.mark.parametrize(
    ("page", "pages"), [(0, 1), (1, 2), (3, 1)], ids=["head", "middle", "tail"]
)
def test_part_of_a_mapping_cannot_be_unmapped(
    process: Process, edu: Device, mode: Mode, page: int, pages: int
) -> None:
    """io_pagetable.c: iopt_unmap_iova_range(); vfio_dma_do_unmap(): "must fully cover"."""
    expected = EINVAL if mode is Mode.TYPE1V2 else ENOENT
    with _space(process, edu, mode) as (space, registers, memory):
        space.map(IOVA, memory)
        with raises_errno(expected):
            space.unmap(IOVA + page * PAGE, pages * PAGE)
        assert _reached(registers, memory) == [True] * PAGES
        assert space.unmap(IOVA, memory.length) == memory.length


@contract("MAP-7", Mode.TYPE1)
def test_type1_unmaps_the_whole_mapping_with_its_head(
    expected: Announced, process: Process, edu: Device
) -> None:
    """vfio_dma_do_unmap(), the comment on v1: the head takes all, the middle nothing, not even of
    what comes after it."""
    with _space(process, edu, Mode.TYPE1) as (space, registers, memory):
        space.map(IOVA, memory)
        behind = IOVA + memory.length
        space.map(behind, memory)
        assert space.unmap(IOVA + PAGE, PAGE) == 0
        assert space.unmap(IOVA + PAGE, 2 * memory.length) == 0
        assert _reached(registers, memory) == [True] * PAGES
        assert space.unmap(behind, PAGE) == memory.length
        assert space.unmap(IOVA, PAGE) == memory.length
        _reaches_only(expected, edu, registers, memory)


@contract("MAP-7", Mode.COMPAT_TYPE1)
def test_compat_type1_splits_a_mapping(expected: Announced, process: Process, edu: Device) -> None:
    """vfio_compat.c: iopt_cut_iova() before the unmap, since large pages are disabled; where one
    end of the range is in a hole there is nothing to cut."""
    with _space(process, edu, Mode.COMPAT_TYPE1) as (space, registers, memory):
        space.map(IOVA, memory)
        assert space.unmap(IOVA + PAGE, PAGE) == PAGE
        _reaches_only(expected, edu, registers, memory, 0, 2, 3)
        assert space.unmap(IOVA, PAGE) == PAGE
        _reaches_only(expected, edu, registers, memory, 2, 3)
        assert space.unmap(IOVA + 3 * PAGE, 4 * PAGE) == PAGE
        _reaches_only(expected, edu, registers, memory, 2)
        space.map_range(IOVA + 3 * PAGE, memory.address + 3 * PAGE, PAGE)
        assert space.unmap(IOVA + PAGE, 2 * PAGE) == PAGE
        _reaches_only(expected, edu, registers, memory, 3)


@contract("MAP-8", Mode.IOMMUFD)
def test_unmapping_a_hole_of_an_ioas_is_an_error(process: Process, edu: Device) -> None:
    """ioas.c: iommufd_ioas_unmap() and iopt_unmap_iova_range(): ENOENT."""
    with _space(process, edu, Mode.IOMMUFD) as (space, registers, memory):
        space.map(IOVA, memory)
        for hole in _holes():
            with raises_errno(ENOENT):
                space.unmap(hole, PAGE)
        assert _reached(registers, memory) == [True] * PAGES


@contract("MAP-8", Mode.TYPE1V2, Mode.TYPE1, Mode.COMPAT_TYPE1V2, Mode.COMPAT_TYPE1)
def test_unmapping_a_hole_of_a_container_removes_nothing(
    process: Process, edu: Device, mode: Mode
) -> None:
    """0 with size 0."""
    with _space(process, edu, mode) as (space, registers, memory):
        space.map(IOVA, memory)
        for hole in _holes():
            assert space.unmap(hole, PAGE) == 0
        assert _reached(registers, memory) == [True] * PAGES


def _holes() -> tuple[int, ...]:
    """Far away, right before and right behind the pages at IOVA."""
    return 2 * IOVA, IOVA - PAGE, IOVA + PAGES * PAGE


@contract("MAP-9")
def test_unmapping_a_superset_removes_what_is_there(
    expected: Announced, process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """Two mappings and the holes before, between and behind them: the bytes of the two, and their
    pages. vfio_find_dma_first_node() and iopt_area_iter_first() find the first from a hole."""
    with _space(process, edu, mode) as (space, registers, memory):
        before = pinned_pages(hands)
        space.map_range(IOVA, memory.address, PAGE)
        space.map_range(IOVA + 3 * PAGE, memory.address + 3 * PAGE, PAGE)
        _reaches_only(expected, edu, registers, memory, 0, 3)
        assert space.unmap(IOVA - PAGE, (PAGES + 2) * PAGE) == 2 * PAGE
        assert pinned_pages(hands) == before
        _reaches_only(expected, edu, registers, memory)


@contract("MAP-9")
def test_unmapping_nothing_is_refused(process: Process, edu: Device, mode: Mode) -> None:
    """A length of 0 is EINVAL, and neither everything nor what is there: iopt_unmap_iova(),
    vfio_dma_do_unmap()."""
    with _space(process, edu, mode) as (space, registers, memory):
        space.map(IOVA, memory)
        for place in (0, IOVA):
            with raises_errno(EINVAL):
                space.unmap(place, 0)
        assert _reached(registers, memory) == [True] * PAGES


@contract("MAP-9")
def test_unmapping_one_mapping_leaves_its_neighbours(
    expected: Announced, process: Process, edu: Device, mode: Mode
) -> None:
    """The loops of vfio_dma_do_unmap() and iopt_unmap_iova_range() end with the range."""
    with _space(process, edu, mode) as (space, registers, memory):
        for page in range(PAGES):
            space.map_range(IOVA + page * PAGE, memory.address + page * PAGE, PAGE)
        assert space.unmap(IOVA + PAGE, PAGE) == PAGE
        _reaches_only(expected, edu, registers, memory, 0, 2, 3)


@contract("MAP-9")
def test_everything_can_be_unmapped_at_once(
    expected: Announced, process: Process, edu: Device, mode: Mode
) -> None:
    """At both ends of what a 39-bit IOMMU can translate, too; also when there is nothing."""
    with _space(process, edu, mode) as (space, registers, memory):
        for iova in (0, IOVA, LAST_OF_39_BITS):
            space.map_range(iova, memory.address, PAGE)
        assert space.unmap_all() == 3 * PAGE
        _reaches_only(expected, edu, registers, memory)
        assert space.unmap_all() == 0
        for iova in (0, IOVA, LAST_OF_39_BITS):
            space.map_range(iova, memory.address, PAGE)


@contract("MAP-11")
@pytest.mark.parametrize(
    "rights", [READ_WRITE, MapFlag.VFIO_DMA_MAP_FLAG_READ], ids=["read-write", "read-only"]
)
def test_memory_that_nobody_touched_is_pinned_as_the_processs_own(
    process: Process, edu: Device, mode: Mode, rights: MapFlag
) -> None:
    """Not the zero page, which the first write would replace. Where the device may only read that
    is up to FOLL_LONGTERM: mm/gup.c, gup_must_unshare()."""
    with _space(process, edu, mode) as (space, registers, memory), process.mmap(PAGE) as target:
        space.map(IOVA, memory, rights)
        space.map(2 * IOVA, target)
        memory.write(0, b"written later")
        registers.copy_in(IOVA, 13)
        registers.copy_out(2 * IOVA, 13)
        assert target.read(0, 13) == b"written later"


@contract("MAP-11")
def test_mapping_pins_the_page_and_not_the_address(
    process: Process, edu: Device, mode: Mode
) -> None:
    """After munmap, and after other memory took the address, the device reads the old bytes."""
    with _space(process, edu, mode) as (space, registers, memory):
        with process.mmap(PAGE) as page:
            page.write(0, b"the old bytes")
            space.map(IOVA, page)
        with process.mmap(PAGE) as other:
            other.write(0, b"other memory!")
            space.map(2 * IOVA, memory)
            registers.copy_in(IOVA, 13)
            registers.copy_out(2 * IOVA, 13)
            assert memory.read(0, 13) == b"the old bytes"


@contract("MAP-11")
def test_mapping_outlives_the_process_that_made_it(
    process: Process, new_process: Callable[[], Process], edu: Device, mode: Mode
) -> None:
    """dma->mm and pages->source_mm are references: who has the files goes on, and may unmap."""
    heir = new_process()
    with ExitStack() as stack:
        opened = stack.enter_context(open_device(process, edu, mode))
        with process.mmap(PAGE) as page:
            page.write(0, b"the old bytes")
            opened.space.map(IOVA, page)
        space = stack.enter_context(opened.space.taken_by(heir))
        file = DeviceFile(heir, take_fd(heir, opened.device), opened.device.name)
        stack.enter_context(file)
        process.close()
        file.enable_dma()
        registers = stack.enter_context(edu_of(file))
        memory = stack.enter_context(heir.mmap(PAGE))
        space.map(2 * IOVA, memory)
        registers.copy_in(IOVA, 13)
        registers.copy_out(2 * IOVA, 13)
        assert memory.read(0, 13) == b"the old bytes"
        assert space.unmap(IOVA, PAGE) == PAGE


@contract("MAP-11")
def test_mapping_stays_with_the_parent_after_a_fork(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """mm/memory.c: copy_present_ptes() gives the child a copy of what may be pinned at once.

    It asks folio_needs_cow_for_dma(); a page that the two shared would leave the device to
    whoever writes last, and the parent's first write would go to another page.
    """
    with _space(process, edu, mode) as (space, registers, memory):
        memory.write(0, b"before".ljust(PAGE) * PAGES)  # present, so that gup takes its fast path
        space.map(IOVA, memory)
        with forked(process) as child, hands.open(f"/proc/{child}/mem") as childs:
            childs.pwrite(b"the child's.", memory.address)
            memory.write(0, b"the parent's")
            registers.copy_in(IOVA, 12)
            registers.copy_out(IOVA + PAGE, 12)
            assert memory.read(PAGE, 12) == b"the parent's"
            assert childs.pread(12, memory.address) == b"the child's."
            assert childs.pread(12, memory.address + PAGE) == b"before      "


def _reached(registers: Edu, memory: Mapping, pages: Iterable[int] = range(PAGES)) -> list[bool]:
    """Which of the pages of `memory` the device reaches where they were mapped from IOVA on."""
    found = []
    for page in pages:
        place = page * PAGE
        memory.write(place, b"host")
        registers.copy_out(IOVA + place, 4)
        written = memory.read(place, 4)
        found.append(written != b"host")
    return found


def _reaches_only(
    expected: Announced, device: Device, registers: Edu, memory: Mapping, *pages: int
) -> None:
    """It reaches these pages; at each of the others it is blocked."""
    assert all(_reached(registers, memory, pages))
    for page in set(range(PAGES)) - set(pages):
        with expected.dma_faults(device):
            assert _reached(registers, memory, [page]) == [False]
