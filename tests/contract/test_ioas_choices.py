# SPDX-License-Identifier: GPL-2.0-only
"""MAP-1, IOAS-4, MAP-5, MAP-11: where the kernel chooses an address, and where IOAS share pages.

Source: drivers/iommu/iommufd/ioas.c, iommufd_ioas_map() without IOMMU_IOAS_MAP_FIXED_IOVA,
iommufd_ioas_allow_iovas(), iommufd_ioas_copy(); io_pagetable.c, iopt_alloc_iova().
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EADDRINUSE, EFAULT, EINVAL, ENOENT, ENOSPC, EPERM
from itertools import pairwise
from mmap import PROT_READ
from struct import pack

from lab.agent.process import Process
from lab.contract import Mode
from lab.expected import Announced
from lab.testing import contract, raises_errno
from lab.vfio.device import Device, pinned_pages
from lab.vfio.edu import edu_of
from lab.vfio.files import Iommufd
from lab.vfio.modes import Ioas, Opened, open_device
from lab.vfio.uapi import (
    IoasMapFlag,
    IommufdRequest,
    IommuIoasAllowIovas,
    IommuIoasCopy,
    IommuIoasMap,
    MapFlag,
)

IOVA, TARGET = 0x10_0000, 0x20_0000
PAGE = 4096
MSI_WINDOW = 0xFEE0_0000
READ_WRITE = IoasMapFlag.IOMMU_IOAS_MAP_READABLE | IoasMapFlag.IOMMU_IOAS_MAP_WRITEABLE
WORD = b"sixteen bytes..."

Range = tuple[int, int]
"""First and last address."""


def _map_anywhere(iommufd: Iommufd, ioas: int, address: int, length: int) -> Range:
    """Where the kernel has put it."""
    request = IommuIoasMap(flags=READ_WRITE, ioas_id=ioas, user_va=address, length=length)
    iommufd.call(IommufdRequest.IOMMU_IOAS_MAP, request)
    return request.iova, request.iova + length - 1


def _allow(iommufd: Iommufd, ioas: int, ranges: Sequence[Range]) -> None:
    """What the kernel may choose from; and what no device may reserve."""
    with iommufd.process.mmap(PAGE) as memory:
        memory.write(0, b"".join(pack("<QQ", *each) for each in ranges))
        request = IommuIoasAllowIovas(
            ioas_id=ioas, num_iovas=len(ranges), allowed_iovas=memory.address
        )
        iommufd.call(IommufdRequest.IOMMU_IOAS_ALLOW_IOVAS, request)


@contract("MAP-1", Mode.IOMMUFD)
def test_address_that_the_kernel_chooses_is_free(process: Process, edu: Device) -> None:
    """Neither mapped nor reserved, right up to the MSI window; the device reaches what is there."""
    with (
        open_device(process, edu, Mode.IOMMUFD) as opened,
        edu_of(opened.device) as registers,
        process.mmap(16 * PAGE) as memory,
    ):
        assert isinstance(opened.space, Ioas)
        iommufd, ioas = opened.space.iommufd, opened.space.identity
        taken = [(place, place + PAGE - 1) for place in (2 * PAGE, 5 * PAGE)]
        for first, _ in taken:
            opened.space.map_range(first, memory.address, PAGE)
        chosen = [
            _map_anywhere(iommufd, ioas, memory.address, pages * PAGE) for pages in (1, 2, 3, 1, 16)
        ]
        _allow(iommufd, ioas, [(MSI_WINDOW - 3 * PAGE, MSI_WINDOW - 1)])
        chosen += [_map_anywhere(iommufd, ioas, memory.address, pages * PAGE) for pages in (1, 2)]
        with raises_errno(ENOSPC):
            _map_anywhere(iommufd, ioas, memory.address, PAGE)
        allowed = opened.space.iova_ranges()
        for first, last in chosen:
            assert first % PAGE == 0
            assert any(low <= first and last <= high for low, high in allowed)
        everything = sorted([*taken, *chosen])
        assert all(last < first for (_, last), (first, _) in pairwise(everything)), everything
        opened.device.enable_dma()
        memory.write(0, WORD)
        for first, _ in chosen:
            registers.copy_in(first, len(WORD))
            memory.write(0, bytes(len(WORD)))
            registers.copy_out(first, len(WORD))
            assert memory.read(0, len(WORD)) == WORD


@contract("IOAS-4", Mode.IOMMUFD)
def test_what_is_allowed_is_not_reserved(process: Process, edu: Device) -> None:
    """EADDRINUSE for a range that a device has reserved, and for the device that would. Ranges that
    overlap, or end before they begin, are EINVAL. What fails changes nothing; a later call
    replaces."""
    window = (MSI_WINDOW - PAGE, MSI_WINDOW + PAGE - 1)
    good = (IOVA, IOVA + 2 * PAGE - 1)
    with (
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        edu.open_cdev(process) as cdev,
        process.mmap(2 * PAGE) as memory,
    ):
        cdev.bind(iommufd)
        ioas = iommufd.ioas_alloc()
        _allow(iommufd, ioas, [window])
        with raises_errno(EADDRINUSE):
            cdev.attach(ioas)
        _allow(iommufd, ioas, [good])
        cdev.attach(ioas)
        for wrong, errno in (
            ([window], EADDRINUSE),
            ([good, window], EADDRINUSE),
            ([good, good], EINVAL),
            ([(good[1], good[0])], EINVAL),
        ):
            with raises_errno(errno):
                _allow(iommufd, ioas, wrong)
        assert _map_anywhere(iommufd, ioas, memory.address, 2 * PAGE) == good
        with raises_errno(ENOSPC):
            _map_anywhere(iommufd, ioas, memory.address, PAGE)


def _copy(
    source: Ioas, iova: int, length: int, target: Ioas, rights: IoasMapFlag = READ_WRITE
) -> None:
    """From `iova` of one IOAS to TARGET of another one."""
    request = IommuIoasCopy(
        flags=rights | IoasMapFlag.IOMMU_IOAS_MAP_FIXED_IOVA,
        dst_ioas_id=target.identity,
        src_ioas_id=source.identity,
        length=length,
        dst_iova=TARGET,
        src_iova=iova,
    )
    source.iommufd.call(IommufdRequest.IOMMU_IOAS_COPY, request)


@contextmanager
def _two_spaces(process: Process, device: Device) -> Iterator[tuple[Opened, Ioas, Ioas]]:
    """A device that is opened, another IOAS of its iommufd's, and its own."""
    with open_device(process, device, Mode.IOMMUFD) as opened:
        assert isinstance(opened.space, Ioas)
        iommufd = opened.space.iommufd
        yield opened, Ioas(iommufd, iommufd.ioas_alloc()), opened.space


@contract("MAP-11", Mode.IOMMUFD)
def test_copy_shares_pages_and_goes_its_own_way(
    expected: Announced, process: Process, hands: Process, edu: Device
) -> None:
    """Part of a mapping, too, and whatever becomes of that one. Where there is a hole ENOENT."""
    before = pinned_pages(hands)
    with (
        _two_spaces(process, edu) as (opened, source, target),
        edu_of(opened.device) as registers,
        process.mmap(3 * PAGE) as memory,
    ):
        source.map(IOVA, memory)
        source.map_range(IOVA + 4 * PAGE, memory.address, PAGE)
        for hole, length in (
            (IOVA - PAGE, 2 * PAGE),
            (IOVA + 2 * PAGE, 2 * PAGE),
            (IOVA + 2 * PAGE, 3 * PAGE),
            (4 * IOVA, PAGE),
        ):
            with raises_errno(ENOENT):
                _copy(source, hole, length, target)
        _copy(source, IOVA + PAGE, 2 * PAGE, target)
        assert pinned_pages(hands) == before + 2
        assert source.unmap_all() == 4 * PAGE
        source.iommufd.destroy(source.identity)
        assert pinned_pages(hands) == before + 2
        opened.device.enable_dma()
        memory.write(PAGE, WORD)
        registers.copy_in(TARGET, len(WORD))
        registers.copy_out(TARGET + PAGE, len(WORD))
        assert memory.read(2 * PAGE, len(WORD)) == WORD
        assert target.unmap(TARGET, 2 * PAGE) == 2 * PAGE
        assert pinned_pages(hands) == before
        with expected.dma_faults(edu):
            registers.copy_out(TARGET, len(WORD))


@contract("MAP-5", Mode.IOMMUFD)
def test_copy_gives_no_right_that_the_memory_has_not(process: Process, edu: Device) -> None:
    """io_pagetable.c: iopt_insert_area(), `pages->writable`: EPERM."""
    with (
        _two_spaces(process, edu) as (_, source, target),
        process.mmap(PAGE, PROT_READ) as page,
    ):
        source.map(IOVA, page, MapFlag.VFIO_DMA_MAP_FLAG_READ)
        with raises_errno(EPERM):
            _copy(source, IOVA, PAGE, target)
        _copy(source, IOVA, PAGE, target, IoasMapFlag.IOMMU_IOAS_MAP_READABLE)


@contract("MAP-5", Mode.IOMMUFD)
def test_copy_that_fails_half_way_leaves_nothing(
    process: Process, hands: Process, edu: Device
) -> None:
    """iopt_fill_domains_pages() takes the pages out again that it has filled in before
    those that are gone."""
    with _two_spaces(process, edu) as (_, source, target), process.mmap(PAGE) as page:
        source.map(IOVA, page)
        with process.mmap(PAGE) as gone:
            source.map(IOVA + PAGE, gone)
        before = pinned_pages(hands)
        with raises_errno(EFAULT):
            _copy(source, IOVA, 2 * PAGE, target)
        assert pinned_pages(hands) == before
        _copy(source, IOVA, PAGE, target)
        assert target.unmap(TARGET, PAGE) == PAGE
