# SPDX-License-Identifier: GPL-2.0-only
"""MAP and DMA-2 where page tables come and go: an IOAS may be mapped before a device is attached to
it, and may have several page tables (IOMMU_HWPT_ALLOC), which hold the same at any time.

Source: drivers/iommu/iommufd/io_pagetable.c, iopt_table_add_domain(), iopt_table_remove_domain(),
and drivers/iommu/iommufd/pages.c.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EADDRINUSE, EFAULT

import pytest

from lab.agent.inherit import take_fd
from lab.agent.process import Process
from lab.contract import Mode
from lab.expected import Announced
from lab.testing import contract, raises_errno
from lab.vfio.device import Device, pinned_pages
from lab.vfio.edu import Edu, edu_of
from lab.vfio.files import Cdev, Iommufd

IOVA = 0x10_0000
PAGE = 4096
MSI_WINDOW = 0xFEE0_0000
BEYOND_ANY_WIDTH = 2**57
EVERYTHING = [(0, 2**64 - 1)]
WORD = b"sixteen bytes..."


@contextmanager
def _bound(process: Process, device: Device) -> Iterator[tuple[Iommufd, Cdev, int]]:
    """An iommufd, a file that is bound to it, and the device's id there."""
    with Iommufd.open(process, Iommufd.PATH) as iommufd, device.open_cdev(process) as cdev:
        yield iommufd, cdev, cdev.bind(iommufd)


@contextmanager
def _second_table(process: Process, device: Device) -> Iterator[tuple[Iommufd, int, int, Edu]]:
    """An IOAS with two page tables: its id, that of the first, and a device on the second."""
    with _bound(process, device) as (iommufd, cdev, identity), edu_of(cdev) as registers:
        ioas = iommufd.ioas_alloc()
        first, second = (iommufd.hwpt_alloc(identity, ioas) for _ in range(2))
        cdev.attach(second)
        cdev.enable_dma()
        yield iommufd, ioas, first, registers


@contract("MAP-2", Mode.IOMMUFD)
@pytest.mark.parametrize(
    ("iova", "offset", "length"),
    [
        pytest.param(MSI_WINDOW, 0, PAGE, id="msi-window"),
        pytest.param(MSI_WINDOW - PAGE, 0, 2 * PAGE, id="into-the-msi-window"),
        pytest.param(BEYOND_ANY_WIDTH, 0, PAGE, id="beyond-the-width"),
        pytest.param(IOVA + 1, 0, PAGE, id="iova"),
        pytest.param(IOVA, 1, PAGE, id="address"),
        pytest.param(IOVA, 0, PAGE + 1, id="length"),
    ],
)
def test_device_is_not_attached_to_what_it_could_not_be_mapped(
    process: Process, edu: Device, iova: int, offset: int, length: int
) -> None:
    """iopt_reserve_iova() and iopt_check_iova_alignment(): EADDRINUSE, as the first attach and in
    the place of another IOAS, which stays. An attach that fails leaves nothing reserved."""
    with _bound(process, edu) as (iommufd, cdev, _), process.mmap(3 * PAGE) as memory:
        good, bad = iommufd.ioas_alloc(), iommufd.ioas_alloc()
        iommufd.ioas_map(bad, iova, memory.address + offset, length)
        with raises_errno(EADDRINUSE):
            cdev.attach(bad)
        assert iommufd.iova_ranges(bad) == EVERYTHING
        cdev.attach(good)
        with raises_errno(EADDRINUSE):
            cdev.attach(bad)
        assert iommufd.iova_ranges(bad) == EVERYTHING
        assert len(iommufd.iova_ranges(good)) == 2
        iommufd.ioas_unmap(bad, iova, length)
        cdev.attach(bad)


@contract("MAP-5", Mode.IOMMUFD)
def test_memory_that_is_gone_before_the_attach_is_refused(
    process: Process, hands: Process, edu: Device
) -> None:
    """iopt_fill_domain(), "On failure the domain is left unchanged": what it has filled by then is
    unpinned. Without that mapping the attach succeeds."""
    with _bound(process, edu) as (iommufd, cdev, identity), process.mmap(PAGE) as page:
        ioas = iommufd.ioas_alloc()
        iommufd.ioas_map(ioas, IOVA, page.address, PAGE)
        with process.mmap(PAGE) as gone:
            iommufd.ioas_map(ioas, 2 * IOVA, gone.address, PAGE)
        before = pinned_pages(hands)
        with raises_errno(EFAULT):
            cdev.attach(ioas)
        with raises_errno(EFAULT):
            iommufd.hwpt_alloc(identity, ioas)
        assert pinned_pages(hands) == before
        assert iommufd.iova_ranges(ioas) == EVERYTHING
        iommufd.ioas_unmap(ioas, 2 * IOVA, PAGE)
        cdev.attach(ioas)
        assert pinned_pages(hands) == before + 1


@contract("MAP-11", Mode.IOMMUFD)
def test_memory_is_that_of_who_mapped_it_and_not_of_who_attaches(
    process: Process, new_process: Callable[[], Process], edu: Device
) -> None:
    """pages.c: pfn_reader_user_pin(): what was mapped before is pinned with the attach, whoever
    makes that call, and is still the first one's."""
    other = new_process()
    with (
        _bound(process, edu) as (iommufd, cdev, _),
        process.mmap(2 * PAGE) as memory,
        edu_of(cdev) as registers,
    ):
        ioas = iommufd.ioas_alloc()
        iommufd.ioas_map(ioas, IOVA, memory.address, memory.length)
        memory.write(0, WORD)
        with Cdev(other, take_fd(other, cdev), cdev.name) as taken:
            taken.attach(ioas)
        cdev.enable_dma()
        registers.copy_in(IOVA, len(WORD))
        registers.copy_out(IOVA + PAGE, len(WORD))
        assert memory.read(PAGE, len(WORD)) == WORD


@contract("IOAS-2", Mode.IOMMUFD)
def test_other_page_table_of_an_ioas_keeps_what_is_reserved(process: Process, edu: Device) -> None:
    """device.c: iommufd_device_do_replace() gives back what the device reserves only where it goes
    to another IOAS. After DETACH the page tables are there, and the MSI window is not spared."""
    with _bound(process, edu) as (iommufd, cdev, identity):
        ioas = iommufd.ioas_alloc()
        tables = [iommufd.hwpt_alloc(identity, ioas) for _ in range(2)]
        cdev.attach(ioas)
        ranges = iommufd.iova_ranges(ioas)
        for table in tables:
            cdev.attach(table)
            assert iommufd.iova_ranges(ioas) == ranges
        cdev.detach_pt()
        assert iommufd.iova_ranges(ioas) == [(ranges[0][0], ranges[-1][1])]


@contract("DMA-2", Mode.IOMMUFD)
@pytest.mark.parametrize("other_goes", [False, True], ids=["both-stay", "one-goes"])
def test_every_page_table_has_what_is_mapped_until_it_is_not(
    expected: Announced, process: Process, hands: Process, edu: Device, other_goes: bool
) -> None:
    """iopt_area_fill_domains() and iopt_area_unfill_domains() go through all of them, and a page is
    pinned once, whatever their number. iopt_unfill_domain(): when the one goes that has been asked
    for the pages to unpin, it is another one from then on, and they stay pinned."""
    with (
        _second_table(process, edu) as (iommufd, ioas, first, registers),
        process.mmap(PAGE) as page,
    ):
        before = pinned_pages(hands)
        iommufd.ioas_map(ioas, IOVA, page.address, PAGE)
        if other_goes:
            iommufd.destroy(first)
        assert pinned_pages(hands) == before + 1
        page.write(0, WORD)
        registers.copy_in(IOVA, len(WORD))
        registers.copy_out(IOVA + 64, len(WORD))
        assert page.read(64, len(WORD)) == WORD
        iommufd.ioas_unmap(ioas, IOVA, PAGE)
        assert pinned_pages(hands) == before
        with expected.dma_faults(edu):
            registers.copy_out(IOVA + 128, len(WORD))
        assert page.read(128, len(WORD)) == bytes(len(WORD))
