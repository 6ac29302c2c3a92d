# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's user-space interface: numbers and structures, under the kernel's own names.

Source: include/uapi/linux/vfio.h and include/uapi/linux/iommufd.h, Linux 6.12. Only what the
lab's tests use is here; a new ioctl is a line in an enum and a structure.
"""

import ctypes
from ctypes import c_int32, c_uint8, c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag


def _io(number: int) -> int:
    return (ord(";") << 8) | number


class ContainerRequest(IntEnum):
    """ioctls of /dev/vfio/vfio."""

    VFIO_GET_API_VERSION = _io(100)
    VFIO_CHECK_EXTENSION = _io(101)
    VFIO_SET_IOMMU = _io(102)
    VFIO_IOMMU_GET_INFO = _io(112)
    VFIO_IOMMU_MAP_DMA = _io(113)
    VFIO_IOMMU_UNMAP_DMA = _io(114)
    VFIO_IOMMU_DIRTY_PAGES = _io(117)


class GroupRequest(IntEnum):
    """ioctls of /dev/vfio/N."""

    VFIO_GROUP_GET_STATUS = _io(103)
    VFIO_GROUP_SET_CONTAINER = _io(104)
    VFIO_GROUP_UNSET_CONTAINER = _io(105)
    VFIO_GROUP_GET_DEVICE_FD = _io(106)


class DeviceRequest(IntEnum):
    """ioctls of a device's file, from the cdev or from the group."""

    VFIO_DEVICE_GET_INFO = _io(107)
    VFIO_DEVICE_GET_REGION_INFO = _io(108)
    VFIO_DEVICE_GET_IRQ_INFO = _io(109)
    VFIO_DEVICE_SET_IRQS = _io(110)
    VFIO_DEVICE_RESET = _io(111)
    VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = _io(112)
    VFIO_DEVICE_PCI_HOT_RESET = _io(113)
    VFIO_DEVICE_FEATURE = _io(117)
    VFIO_DEVICE_BIND_IOMMUFD = _io(118)
    VFIO_DEVICE_ATTACH_IOMMUFD_PT = _io(119)
    VFIO_DEVICE_DETACH_IOMMUFD_PT = _io(120)
    UNKNOWN = _io(255)  # no request of any file: what a kernel does with one is part of the rules


class IommufdRequest(IntEnum):
    """ioctls of /dev/iommu."""

    IOMMU_DESTROY = _io(0x80)
    IOMMU_IOAS_ALLOC = _io(0x81)
    IOMMU_IOAS_IOVA_RANGES = _io(0x84)
    IOMMU_IOAS_MAP = _io(0x85)
    IOMMU_IOAS_UNMAP = _io(0x86)
    IOMMU_VFIO_IOAS = _io(0x88)
    IOMMU_HWPT_ALLOC = _io(0x89)


class IommuType(IntEnum):
    """What VFIO_SET_IOMMU and VFIO_CHECK_EXTENSION take."""

    VFIO_TYPE1_IOMMU = 1
    VFIO_TYPE1v2_IOMMU = 3


class GroupFlag(IntFlag):
    VFIO_GROUP_FLAGS_VIABLE = 1
    VFIO_GROUP_FLAGS_CONTAINER_SET = 2


class RegionFlag(IntFlag):
    VFIO_REGION_INFO_FLAG_READ = 1
    VFIO_REGION_INFO_FLAG_WRITE = 2
    VFIO_REGION_INFO_FLAG_MMAP = 4
    VFIO_REGION_INFO_FLAG_CAPS = 8


class PciRegion(IntEnum):
    """Indices of a PCI device's regions."""

    VFIO_PCI_BAR0_REGION_INDEX = 0
    VFIO_PCI_CONFIG_REGION_INDEX = 7


class DeviceFlag(IntFlag):
    VFIO_DEVICE_FLAGS_RESET = 1
    VFIO_DEVICE_FLAGS_PCI = 2


class Feature(IntEnum):
    """What VFIO_DEVICE_FEATURE is about."""

    VFIO_DEVICE_FEATURE_PCI_VF_TOKEN = 0


class FeatureFlag(IntFlag):
    """What it shall do with it."""

    VFIO_DEVICE_FEATURE_SET = 1 << 17


class HotResetFlag(IntFlag):
    """What GET_PCI_HOT_RESET_INFO says of its list."""

    VFIO_PCI_HOT_RESET_FLAG_DEV_ID = 1
    VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED = 2


class DeviceId(IntEnum):
    """What stands in that list for a device that has no id in the caller's iommufd."""

    VFIO_PCI_DEVID_OWNED = 0
    VFIO_PCI_DEVID_NOT_OWNED = 0xFFFF_FFFF


class PciIrq(IntEnum):
    """Indices of a PCI device's interrupt types."""

    VFIO_PCI_INTX_IRQ_INDEX = 0
    VFIO_PCI_MSI_IRQ_INDEX = 1
    VFIO_PCI_MSIX_IRQ_INDEX = 2
    VFIO_PCI_ERR_IRQ_INDEX = 3
    VFIO_PCI_REQ_IRQ_INDEX = 4


class IrqSetFlag(IntFlag):
    """What SET_IRQS is given, and what it shall do with it."""

    VFIO_IRQ_SET_DATA_NONE = 1
    VFIO_IRQ_SET_DATA_BOOL = 2
    VFIO_IRQ_SET_DATA_EVENTFD = 4
    VFIO_IRQ_SET_ACTION_MASK = 8
    VFIO_IRQ_SET_ACTION_UNMASK = 16
    VFIO_IRQ_SET_ACTION_TRIGGER = 32


class MapFlag(IntFlag):
    """Rights that a type1 mapping gives to the device."""

    VFIO_DMA_MAP_FLAG_READ = 1
    VFIO_DMA_MAP_FLAG_WRITE = 2


class UnmapFlag(IntFlag):
    """What a type1 unmap does beyond its range."""

    VFIO_DMA_UNMAP_FLAG_ALL = 2


class IommuInfoFlag(IntFlag):
    """What VFIO_IOMMU_GET_INFO has to tell."""

    VFIO_IOMMU_INFO_PGSIZES = 1
    VFIO_IOMMU_INFO_CAPS = 2


class DirtyFlag(IntFlag):
    """What VFIO_IOMMU_DIRTY_PAGES shall do, one at a time."""

    VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 2
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 4


class BindFlag(IntFlag):
    """What VFIO_DEVICE_BIND_IOMMUFD may be given (6.17)."""

    VFIO_DEVICE_BIND_FLAG_TOKEN = 1


class Extension(IntEnum):
    """What VFIO_CHECK_EXTENSION takes beside the types."""

    VFIO_DMA_CC_IOMMU = 4
    VFIO_TYPE1_NESTING_IOMMU = 6
    VFIO_NOIOMMU_IOMMU = 8
    VFIO_UNMAP_ALL = 9


class InfoCapability(IntEnum):
    """Ids in the capability chain of VFIO_IOMMU_GET_INFO."""

    VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1


class HwptFlag(IntFlag):
    """What IOMMU_HWPT_ALLOC may be asked for."""

    IOMMU_HWPT_ALLOC_NEST_PARENT = 1
    IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 2


class IoasMapFlag(IntFlag):
    IOMMU_IOAS_MAP_FIXED_IOVA = 1
    IOMMU_IOAS_MAP_WRITEABLE = 2
    IOMMU_IOAS_MAP_READABLE = 4


class Structure(ctypes.LittleEndianStructure):
    """A structure whose first member, as the kernel wants, is its own size.

    A size that is given is kept: that is how a test passes a wrong one.
    """

    def __init__(self, **members: int) -> None:
        size = self._fields_[0][0]
        super().__init__(**{size: ctypes.sizeof(self), **members})


class VfioGroupStatus(Structure):
    _fields_ = (("argsz", c_uint32), ("flags", c_uint32))
    argsz: int
    flags: int


class VfioDeviceInfo(Structure):
    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("num_regions", c_uint32),
        ("num_irqs", c_uint32),
        ("cap_offset", c_uint32),
        ("pad", c_uint32),
    )
    argsz: int
    flags: int
    num_regions: int
    num_irqs: int
    cap_offset: int


class VfioRegionInfo(Structure):
    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("index", c_uint32),
        ("cap_offset", c_uint32),
        ("size", c_uint64),
        ("offset", c_uint64),
    )
    argsz: int
    flags: int
    index: int
    cap_offset: int
    size: int
    offset: int


class VfioIrqInfo(Structure):
    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("index", c_uint32),
        ("count", c_uint32),
    )
    flags: int
    count: int


class VfioIrqSet(Structure):
    """Its data, eventfds or booleans, stand behind it and count in `argsz`."""

    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("index", c_uint32),
        ("start", c_uint32),
        ("count", c_uint32),
    )


class VfioPciDependentDevice(ctypes.LittleEndianStructure):
    """A device that a hot reset touches; `id` is its group's number, or its id in an iommufd."""

    _fields_ = (
        ("id", c_uint32),
        ("segment", c_uint16),
        ("bus", c_uint8),
        ("devfn", c_uint8),
    )
    id: int
    segment: int
    bus: int
    devfn: int


class VfioPciHotResetInfo(Structure):
    """The devices stand behind it; their room counts in `argsz`."""

    _fields_ = (("argsz", c_uint32), ("flags", c_uint32), ("count", c_uint32))
    flags: int
    count: int


class VfioPciHotReset(Structure):
    """Files of groups, as numbers of 4 bytes, stand behind it and count in `argsz`."""

    _fields_ = (("argsz", c_uint32), ("flags", c_uint32), ("count", c_uint32))


class VfioDeviceBindIommufd(Structure):
    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("iommufd", c_int32),
        ("out_devid", c_uint32),
    )
    argsz: int
    flags: int
    iommufd: int
    out_devid: int


class VfioDeviceBindIommufdToken(Structure):
    """The same with the address of a UUID, the VF token, as from 6.17 on."""

    _fields_ = (*VfioDeviceBindIommufd._fields_, ("token_uuid_ptr", c_uint64))


class VfioDeviceFeature(Structure):
    """The feature's data stand behind it and count in `argsz`."""

    _fields_ = (("argsz", c_uint32), ("flags", c_uint32))


class VfioDeviceAttachIommufdPt(Structure):
    _fields_ = (("argsz", c_uint32), ("flags", c_uint32), ("pt_id", c_uint32))
    argsz: int
    flags: int
    pt_id: int


class VfioDeviceDetachIommufdPt(Structure):
    _fields_ = (("argsz", c_uint32), ("flags", c_uint32))
    argsz: int
    flags: int


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


class VfioIommuType1DirtyBitmap(Structure):
    """For GET_BITMAP the range and its bitmap follow; the others take argsz and flags alone."""

    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("iova", c_uint64),
        ("size", c_uint64),
        ("bitmap_pgsize", c_uint64),
        ("bitmap_size", c_uint64),
        ("bitmap_data", c_uint64),
    )


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


class IommuIovaRange(ctypes.LittleEndianStructure):
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


class PciCommand(IntFlag):
    """Bits of a PCI device's command register, at offset 4 of configuration space."""

    MEMORY = 2
    MASTER = 4
    INTX_DISABLE = 0x400


PCI_COMMAND = 4
"""Offset of the command register."""
