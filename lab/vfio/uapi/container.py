# SPDX-License-Identifier: GPL-2.0-only
"""include/uapi/linux/vfio.h: containers, and type1 in them."""

from ctypes import c_uint32, c_uint64
from enum import IntEnum, IntFlag

from lab.vfio.uapi.layout import Layout, Structure, io
from lab.vfio.uapi.vfio import VfioInfoCapHeader


class ContainerRequest(IntEnum):
    """ioctls of /dev/vfio/vfio."""

    VFIO_GET_API_VERSION = io(100)
    VFIO_CHECK_EXTENSION = io(101)
    VFIO_SET_IOMMU = io(102)
    VFIO_IOMMU_GET_INFO = io(112)
    VFIO_IOMMU_MAP_DMA = io(113)
    VFIO_IOMMU_UNMAP_DMA = io(114)
    VFIO_IOMMU_DIRTY_PAGES = io(117)


class IommuType(IntEnum):
    """What VFIO_SET_IOMMU and VFIO_CHECK_EXTENSION take."""

    VFIO_TYPE1_IOMMU = 1
    VFIO_TYPE1v2_IOMMU = 3


class MapFlag(IntFlag):
    """Rights that a type1 mapping gives to the device; or that it stays, and its memory has a new
    address."""

    VFIO_DMA_MAP_FLAG_READ = 1
    VFIO_DMA_MAP_FLAG_WRITE = 2
    VFIO_DMA_MAP_FLAG_VADDR = 4


class UnmapFlag(IntFlag):
    """What a type1 unmap does beyond its range."""

    VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1
    VFIO_DMA_UNMAP_FLAG_ALL = 2
    VFIO_DMA_UNMAP_FLAG_VADDR = 4


class IommuInfoFlag(IntFlag):
    """What VFIO_IOMMU_GET_INFO has to tell."""

    VFIO_IOMMU_INFO_PGSIZES = 1
    VFIO_IOMMU_INFO_CAPS = 2


class DirtyFlag(IntFlag):
    """What VFIO_IOMMU_DIRTY_PAGES shall do, one at a time."""

    VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 2
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 4


class Extension(IntEnum):
    """What VFIO_CHECK_EXTENSION takes beside the types."""

    VFIO_DMA_CC_IOMMU = 4
    VFIO_TYPE1_NESTING_IOMMU = 6
    VFIO_NOIOMMU_IOMMU = 8
    VFIO_UNMAP_ALL = 9
    VFIO_UPDATE_VADDR = 10


class InfoCapability(IntEnum):
    """Ids in the capability chain of VFIO_IOMMU_GET_INFO."""

    VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1
    VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3


class VfioIommuType1DmaMap(Structure):
    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("vaddr", c_uint64),
        ("iova", c_uint64),
        ("size", c_uint64),
    )


class VfioIommuType1DmaUnmap(Structure):
    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("iova", c_uint64),
        ("size", c_uint64),
    )
    size: int


class VfioIommuType1Info(Structure):
    """Its capability chain stands behind it and counts in `argsz`."""

    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("iova_pgsizes", c_uint64),
        ("cap_offset", c_uint32),
        ("pad", c_uint32),
    )
    argsz: int
    flags: int
    iova_pgsizes: int
    cap_offset: int


class VfioIommuType1InfoCapIovaRange(Layout):
    """The ranges, each a VfioIovaRange, stand behind it."""

    _fields_ = (("header", VfioInfoCapHeader), ("nr_iovas", c_uint32), ("reserved", c_uint32))
    nr_iovas: int


class VfioIovaRange(Layout):
    """First and last address of a range that may be mapped."""

    _fields_ = (("start", c_uint64), ("end", c_uint64))
    start: int
    end: int


class VfioIommuType1DirtyBitmap(Structure):
    """For GET_BITMAP a VfioIommuType1DirtyBitmapGet stands behind it and counts in `argsz`."""

    _fields_ = (("argsz", c_uint32), ("flags", c_uint32))


class VfioBitmap(Layout):
    """Where the kernel puts a bitmap: `data` is an address, both sizes are in bytes."""

    _fields_ = (("pgsize", c_uint64), ("size", c_uint64), ("data", c_uint64))


class VfioIommuType1DirtyBitmapGet(Layout):
    """The range that is asked for, and where its bitmap goes."""

    _fields_ = (("iova", c_uint64), ("size", c_uint64), ("bitmap", VfioBitmap))
