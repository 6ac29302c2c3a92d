# SPDX-License-Identifier: GPL-2.0-only
"""MAP-4, MAP-9 and CON-1: what the calls on an address space make of their own argument.

Source: drivers/vfio/vfio_iommu_type1.c, vfio_iommu_type1_ioctl() and what it calls;
drivers/iommu/iommufd/vfio_compat.c; drivers/iommu/iommufd/main.c, iommufd_fops_ioctl().
"""

import ctypes
from errno import E2BIG, EINVAL, ENOENT

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.device import Device
from lab.vfio.files import READ_WRITE, Container, Iommufd
from lab.vfio.modes import CONTAINER_MODES, GROUP_MODES, ContainerSpace, open_device
from lab.vfio.uapi import (
    ContainerRequest,
    IoasMapFlag,
    IommufdRequest,
    IommuIoasMap,
    IommuIoasUnmap,
    UnmapFlag,
    VfioIommuType1DmaMap,
    VfioIommuType1DmaUnmap,
    VfioIommuType1Info,
)

IOVA = 0x10_0000
PAGE = 4096
ALL = UnmapFlag.VFIO_DMA_UNMAP_FLAG_ALL
BITMAP = UnmapFlag.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
VADDR = UnmapFlag.VFIO_DMA_UNMAP_FLAG_VADDR
OF_A_CONTAINER = {BITMAP, VADDR, ALL}
OF_AN_IOMMUFD = {ALL}
TAIL = 256  # bytes behind a structure, of which no kernel knows the last one


@contract("MAP-4", *GROUP_MODES)
def test_map_and_unmap_check_their_size_and_flags(
    process: Process, edu: Device, mode: Mode
) -> None:
    """EINVAL: an argsz that does not hold the fields, or not the bitmap that a flag asks for, and a
    flag of UNMAP_DMA that nobody knows. Nothing is mapped, or unmapped."""
    known = OF_A_CONTAINER if mode in CONTAINER_MODES else OF_AN_IOMMUFD
    with open_device(process, edu, mode) as opened, process.mmap(PAGE) as page:
        assert isinstance(opened.space, ContainerSpace)
        container = opened.space.container
        request = VfioIommuType1DmaMap(
            argsz=ctypes.sizeof(VfioIommuType1DmaMap) - 1,
            flags=READ_WRITE,
            vaddr=page.address,
            iova=IOVA,
            size=PAGE,
        )
        with raises_errno(EINVAL):
            container.call(ContainerRequest.VFIO_IOMMU_MAP_DMA, request)
        opened.space.map(IOVA, page)
        with raises_errno(EINVAL):
            _unmap(container, argsz=ctypes.sizeof(VfioIommuType1DmaUnmap) - 1)
        for flags in (1 << bit for bit in range(32)):
            if flags not in known:
                with raises_errno(EINVAL):
                    _unmap(container, flags=flags)
        with raises_errno(EINVAL):
            _unmap(container, flags=BITMAP)
        assert opened.space.unmap(IOVA, PAGE) == PAGE


def _unmap(container: Container, **members: int) -> None:
    """UNMAP_DMA of the page at IOVA, with members that are other than they should be."""
    request = VfioIommuType1DmaUnmap(**{"iova": IOVA, "size": PAGE, **members})
    container.call(ContainerRequest.VFIO_IOMMU_UNMAP_DMA, request)


@contract("MAP-9", *GROUP_MODES)
def test_everything_has_no_place_and_no_size(process: Process, edu: Device, mode: Mode) -> None:
    """UNMAP_ALL with an IOVA or a size is EINVAL, and unmaps nothing."""
    with open_device(process, edu, mode) as opened, process.mmap(PAGE) as page:
        assert isinstance(opened.space, ContainerSpace)
        opened.space.map(IOVA, page)
        for iova, size in ((IOVA, 0), (0, PAGE), (IOVA, PAGE)):
            with raises_errno(EINVAL):
                opened.space.container.unmap_dma(iova, size, ALL)
        assert opened.space.unmap_all() == PAGE


@contract("CON-1", *GROUP_MODES)
def test_info_tells_the_size_of_a_page(process: Process, edu: Device, mode: Mode) -> None:
    """GET_INFO: the smallest that the IOMMU can map is a page of memory's:
    vfio_update_pgsize_bitmap(), iommufd_get_pagesizes(). An argsz that does not hold the sizes is
    EINVAL."""
    with open_device(process, edu, mode) as opened:
        assert isinstance(opened.space, ContainerSpace)
        info, _ = opened.space.container.info()
        assert info.iova_pgsizes & -info.iova_pgsizes == process.page_size
        with raises_errno(EINVAL):
            short = VfioIommuType1Info(argsz=15)  # they end at 16
            opened.space.container.call(ContainerRequest.VFIO_IOMMU_GET_INFO, short)


@contract("MAP-4", Mode.IOMMUFD)
def test_ioas_takes_a_longer_argument_if_its_tail_is_zero(process: Process) -> None:
    """copy_struct_from_user(): a program that was built for a newer kernel may say what this one
    does not know, as long as it says nothing with it: E2BIG otherwise. Too short is EINVAL."""
    with Iommufd.open(process, Iommufd.PATH) as iommufd, process.mmap(PAGE) as page:
        ioas = iommufd.ioas_alloc()

        def do_map(size: int, tail: bytes) -> None:
            request = IommuIoasMap(
                size=size,
                flags=IoasMapFlag.IOMMU_IOAS_MAP_FIXED_IOVA
                | IoasMapFlag.IOMMU_IOAS_MAP_READABLE
                | IoasMapFlag.IOMMU_IOAS_MAP_WRITEABLE,
                ioas_id=ioas,
                user_va=page.address,
                length=PAGE,
                iova=IOVA,
            )
            iommufd.call(IommufdRequest.IOMMU_IOAS_MAP, bytes(request) + tail)

        def unmap(size: int, tail: bytes) -> None:
            request = IommuIoasUnmap(size=size, ioas_id=ioas, iova=IOVA, length=PAGE)
            iommufd.call(IommufdRequest.IOMMU_IOAS_UNMAP, bytes(request) + tail)

        for call, size in (
            (do_map, ctypes.sizeof(IommuIoasMap)),
            (unmap, ctypes.sizeof(IommuIoasUnmap)),
        ):
            with raises_errno(EINVAL):
                call(size - 1, bytes(TAIL))
            with raises_errno(E2BIG):
                call(size + TAIL, bytes(TAIL - 1) + b"\1")
            call(size + TAIL, bytes(TAIL))
        with raises_errno(ENOENT):
            iommufd.ioas_unmap(ioas, IOVA, PAGE)
