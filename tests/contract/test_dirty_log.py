# SPDX-License-Identifier: GPL-2.0-only
"""MAP-12: the dirty log of a container, which only type1v2 keeps.

Source: drivers/vfio/vfio_iommu_type1.c, vfio_iommu_type1_dirty_pages(). The IOMMU tells nothing of
what a device writes, so every page that is pinned for it counts as dirty: update_user_bitmap().
"""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EINVAL, ENOTTY

import pytest

from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.device import Device
from lab.vfio.files import Container
from lab.vfio.modes import ContainerSpace, open_device
from lab.vfio.uapi import DirtyFlag, UnmapFlag

IOVA = 0x10_0000
PAGE = 4096
PAGES = 70  # more than one word of the bitmap

START = DirtyFlag.VFIO_IOMMU_DIRTY_PAGES_FLAG_START
STOP = DirtyFlag.VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP
READ = DirtyFlag.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP


@contextmanager
def _mapped(process: Process, device: Device, mode: Mode) -> Iterator[tuple[Container, Mapping]]:
    """A container in which a device sees the pages at IOVA."""
    with open_device(process, device, mode) as opened, process.mmap(PAGES * PAGE) as memory:
        assert isinstance(opened.space, ContainerSpace)
        opened.space.map(IOVA, memory)
        yield opened.space.container, memory


@contract("MAP-12", Mode.TYPE1V2)
def test_log_starts_is_read_and_stops(process: Process, edu: Device) -> None:
    """Every pinned page is dirty, also when it is asked again, until STOP; both may be repeated."""
    with _mapped(process, edu, Mode.TYPE1V2) as (container, _):
        with raises_errno(EINVAL):
            container.dirty_pages(IOVA, PAGES)
        for _ in range(2):
            container.log_dirty(START)
            assert container.dirty_pages(IOVA, PAGES) == [True] * PAGES
        for _ in range(2):
            container.log_dirty(STOP)
        with raises_errno(EINVAL):
            container.dirty_pages(IOVA, PAGES)


@contract("MAP-12", Mode.TYPE1V2)
def test_log_knows_mappings_that_come_and_go(process: Process, edu: Device) -> None:
    """vfio_dma_do_map() gives a later mapping its bitmap; what is not mapped is not dirty."""
    with _mapped(process, edu, Mode.TYPE1V2) as (container, memory):
        container.log_dirty(START)
        # At the start of one of the bitmap's words: elsewhere update_user_bitmap() keeps what it
        # has shifted, and the next read also tells of pages behind the mapping.
        container.map_dma(IOVA + 128 * PAGE, memory.address, PAGE)
        expected = [True] * PAGES + [False] * (128 - PAGES) + [True, False]
        assert container.dirty_pages(IOVA, 130) == expected
        container.unmap_dma(IOVA, PAGES * PAGE)
        assert container.dirty_pages(IOVA, 130) == [False] * 128 + [True, False]


@contract("MAP-12", Mode.TYPE1V2)
def test_log_tells_of_several_mappings_at_once(process: Process, edu: Device) -> None:
    """vfio_dma_bitmap_alloc_all() gives each its bitmap; update_user_bitmap() keeps what another
    one has in the same word. Read once only: see above."""
    place = IOVA + 256 * PAGE
    with _mapped(process, edu, Mode.TYPE1V2) as (container, memory):
        container.map_dma(place, memory.address, 3 * PAGE)
        container.map_dma(place + 5 * PAGE, memory.address, 2 * PAGE)
        container.log_dirty(START)
        expected = [True] * 3 + [False] * 2 + [True] * 2 + [False]
        assert container.dirty_pages(place, 8) == expected
        assert container.dirty_pages(IOVA, PAGES) == [True] * PAGES


@contract("MAP-12", Mode.TYPE1V2)
@pytest.mark.parametrize("flags", [START | STOP, START | READ, DirtyFlag(8)], ids=str)
def test_log_does_one_thing_at_a_time(process: Process, edu: Device, flags: DirtyFlag) -> None:
    """EINVAL, and the log does not start."""
    with _mapped(process, edu, Mode.TYPE1V2) as (container, _):
        with raises_errno(EINVAL):
            container.log_dirty(flags)
        with raises_errno(EINVAL):
            container.dirty_pages(IOVA, PAGES)
        container.log_dirty(START)
        container.dirty_pages(IOVA, PAGES)


@contract("MAP-12", Mode.TYPE1V2)
def test_part_of_a_mapping_cannot_be_read(process: Process, edu: Device) -> None:
    """vfio_iova_dirty_bitmap(): a range begins and ends where mappings do."""
    with _mapped(process, edu, Mode.TYPE1V2) as (container, _):
        container.log_dirty(START)
        for iova in (IOVA, IOVA + PAGE):
            with raises_errno(EINVAL):
                container.dirty_pages(iova, PAGES - 1)
        container.dirty_pages(IOVA, PAGES)


@contract("MAP-12", Mode.TYPE1V2)
def test_bitmap_has_a_bit_for_each_page(process: Process, edu: Device) -> None:
    """verify_bitmap_size(), in whole words, and vfio_iommu_type1_dirty_pages(): "allow only
    smallest supported pgsize"."""
    with _mapped(process, edu, Mode.TYPE1V2) as (container, _):
        container.log_dirty(START)
        for room in (0, 8):
            with raises_errno(EINVAL):
                container.dirty_pages(IOVA, PAGES, room=room)
        with raises_errno(EINVAL):
            container.dirty_pages(IOVA, PAGES // 2, 2 * PAGE)
        container.dirty_pages(IOVA, PAGES, room=16)


@contract("MAP-12", Mode.TYPE1V2)
def test_log_goes_on_when_one_of_two_groups_goes(
    process: Process, edu: Device, resettable: Device
) -> None:
    """vfio_iommu_type1_attach_group() counts each group whose devices say not themselves what they
    write, `num_non_pinned_groups`. What is dirty because of the one that goes is told once more."""
    with (
        _mapped(process, edu, Mode.TYPE1V2) as (container, _),
        resettable.open_group(process) as other,
    ):
        other.set_container(container)
        container.log_dirty(START)
        other.close()
        for _ in range(3):
            assert container.dirty_pages(IOVA, PAGES) == [True] * PAGES


@contract("MAP-12", Mode.TYPE1V2)
def test_unmap_tells_for_the_last_time(process: Process, edu: Device) -> None:
    """vfio_dma_do_unmap(): what is removed was dirty until then. Without a log, for a bitmap that
    is too small, and where only the address shall go, EINVAL and all stays mapped."""
    with _mapped(process, edu, Mode.TYPE1V2) as (container, _):
        with raises_errno(EINVAL):
            container.unmap_dirty(IOVA, 128)
        container.log_dirty(START)
        with raises_errno(EINVAL):
            container.unmap_dirty(IOVA, 128, room=8)
        with raises_errno(EINVAL):
            container.unmap_dirty(IOVA, 128, also=UnmapFlag.VFIO_DMA_UNMAP_FLAG_VADDR)
        assert container.dirty_pages(IOVA, PAGES) == [True] * PAGES
        expected = [True] * PAGES + [False] * (128 - PAGES)
        assert container.unmap_dirty(IOVA, 128) == (PAGES * PAGE, expected)
        assert container.dirty_pages(IOVA, 128) == [False] * 128


@contract("MAP-12", Mode.TYPE1, Mode.COMPAT_TYPE1V2, Mode.COMPAT_TYPE1)
@pytest.mark.parametrize("flag", DirtyFlag)
def test_other_modes_have_no_log(
    process: Process, edu: Device, mode: Mode, flag: DirtyFlag
) -> None:
    """EACCES: v1's unmap rules do not fit it; ENOTTY: vfio_compat.c does not implement it."""
    with _mapped(process, edu, mode) as (container, _):
        with raises_errno(EACCES if mode is Mode.TYPE1 else ENOTTY):
            container.log_dirty(flag)
        with raises_errno(EACCES if mode is Mode.TYPE1 else ENOTTY):
            container.dirty_pages(IOVA, PAGES)
