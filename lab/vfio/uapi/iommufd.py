# SPDX-License-Identifier: GPL-2.0-only
"""include/uapi/linux/iommufd.h."""

from ctypes import c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag

from lab.vfio.uapi.layout import Layout, Structure, io


class IommufdRequest(IntEnum):
    """ioctls of /dev/iommu."""

    IOMMU_DESTROY = io(0x80)
    IOMMU_IOAS_ALLOC = io(0x81)
    IOMMU_IOAS_ALLOW_IOVAS = io(0x82)
    IOMMU_IOAS_COPY = io(0x83)
    IOMMU_IOAS_IOVA_RANGES = io(0x84)
    IOMMU_IOAS_MAP = io(0x85)
    IOMMU_IOAS_UNMAP = io(0x86)
    IOMMU_OPTION = io(0x87)
    IOMMU_VFIO_IOAS = io(0x88)
    IOMMU_HWPT_ALLOC = io(0x89)


class HwptFlag(IntFlag):
    """What IOMMU_HWPT_ALLOC may be asked for."""

    IOMMU_HWPT_ALLOC_NEST_PARENT = 1
    IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 2


class VfioIoasOp(IntEnum):
    """What IOMMU_VFIO_IOAS does with the IOAS that serves a container's ioctls."""

    IOMMU_VFIO_IOAS_SET = 1
    IOMMU_VFIO_IOAS_CLEAR = 2


class OptionOp(IntEnum):
    """What IOMMU_OPTION does."""

    IOMMU_OPTION_OP_SET = 0
    IOMMU_OPTION_OP_GET = 1


class IoasMapFlag(IntFlag):
    IOMMU_IOAS_MAP_FIXED_IOVA = 1
    IOMMU_IOAS_MAP_WRITEABLE = 2
    IOMMU_IOAS_MAP_READABLE = 4


class IommuDestroy(Structure):
    _fields_ = (("size", c_uint32), ("id", c_uint32))


class IommuIoasAlloc(Structure):
    _fields_ = (("size", c_uint32), ("flags", c_uint32), ("out_ioas_id", c_uint32))
    out_ioas_id: int


class IommuIoasMap(Structure):
    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("ioas_id", c_uint32),
        ("__reserved", c_uint32),
        ("user_va", c_uint64),
        ("length", c_uint64),
        ("iova", c_uint64),
    )
    iova: int


class IommuIoasUnmap(Structure):
    _fields_ = (
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("iova", c_uint64),
        ("length", c_uint64),
    )
    length: int


class IommuIoasCopy(Structure):
    """`flags` are an IoasMapFlag's."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("dst_ioas_id", c_uint32),
        ("src_ioas_id", c_uint32),
        ("length", c_uint64),
        ("dst_iova", c_uint64),
        ("src_iova", c_uint64),
    )
    dst_iova: int


class IommuIoasAllowIovas(Structure):
    """`allowed_iovas` is the address of so many IommuIovaRange."""

    _fields_ = (
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("num_iovas", c_uint32),
        ("__reserved", c_uint32),
        ("allowed_iovas", c_uint64),
    )


class IommuIovaRange(Layout):
    """First and last address of a range that may be mapped."""

    _fields_ = (("start", c_uint64), ("last", c_uint64))
    start: int
    last: int


class IommuIoasIovaRanges(Structure):
    _fields_ = (
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("num_iovas", c_uint32),
        ("__reserved", c_uint32),
        ("allowed_iovas", c_uint64),
        ("out_iova_alignment", c_uint64),
    )
    num_iovas: int
    out_iova_alignment: int


class IommuOption(Structure):
    _fields_ = (
        ("size", c_uint32),
        ("option_id", c_uint32),
        ("op", c_uint16),
        ("__reserved", c_uint16),
        ("object_id", c_uint32),
        ("val64", c_uint64),
    )
    val64: int


class IommuVfioIoas(Structure):
    _fields_ = (
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("op", c_uint16),
        ("__reserved", c_uint16),
    )


class IommuHwptAlloc(Structure):
    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("dev_id", c_uint32),
        ("pt_id", c_uint32),
        ("out_hwpt_id", c_uint32),
        ("__reserved", c_uint32),
        ("data_type", c_uint32),
        ("data_len", c_uint32),
        ("data_uptr", c_uint64),
        ("fault_id", c_uint32),
        ("__reserved2", c_uint32),
    )
    out_hwpt_id: int
