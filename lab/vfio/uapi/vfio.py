# SPDX-License-Identifier: GPL-2.0-only
"""include/uapi/linux/vfio.h: groups and devices."""

from ctypes import c_int32, c_uint8, c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag

from lab.vfio.uapi.layout import Layout, Structure, io


class GroupRequest(IntEnum):
    """ioctls of /dev/vfio/N."""

    VFIO_GROUP_GET_STATUS = io(103)
    VFIO_GROUP_SET_CONTAINER = io(104)
    VFIO_GROUP_UNSET_CONTAINER = io(105)
    VFIO_GROUP_GET_DEVICE_FD = io(106)


class DeviceRequest(IntEnum):
    """ioctls of a device's file, from the cdev or from the group."""

    VFIO_DEVICE_GET_INFO = io(107)
    VFIO_DEVICE_GET_REGION_INFO = io(108)
    VFIO_DEVICE_GET_IRQ_INFO = io(109)
    VFIO_DEVICE_SET_IRQS = io(110)
    VFIO_DEVICE_RESET = io(111)
    VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = io(112)
    VFIO_DEVICE_PCI_HOT_RESET = io(113)
    VFIO_DEVICE_IOEVENTFD = io(116)
    VFIO_DEVICE_FEATURE = io(117)
    VFIO_DEVICE_BIND_IOMMUFD = io(118)
    VFIO_DEVICE_ATTACH_IOMMUFD_PT = io(119)
    VFIO_DEVICE_DETACH_IOMMUFD_PT = io(120)
    UNKNOWN = io(255)  # no request of any file: what a kernel does with one is part of the rules


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
    VFIO_PCI_ROM_REGION_INDEX = 6
    VFIO_PCI_CONFIG_REGION_INDEX = 7
    VFIO_PCI_VGA_REGION_INDEX = 8


class DeviceFlag(IntFlag):
    VFIO_DEVICE_FLAGS_RESET = 1
    VFIO_DEVICE_FLAGS_PCI = 2


class Feature(IntEnum):
    """What VFIO_DEVICE_FEATURE is about."""

    VFIO_DEVICE_FEATURE_PCI_VF_TOKEN = 0
    VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY = 3
    VFIO_DEVICE_FEATURE_LOW_POWER_EXIT = 5


class FeatureFlag(IntFlag):
    """What it shall do with it."""

    VFIO_DEVICE_FEATURE_GET = 1 << 16
    VFIO_DEVICE_FEATURE_SET = 1 << 17
    VFIO_DEVICE_FEATURE_PROBE = 1 << 18


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


class IrqInfoFlag(IntFlag):
    """What GET_IRQ_INFO says that a type can do."""

    VFIO_IRQ_INFO_EVENTFD = 1
    VFIO_IRQ_INFO_MASKABLE = 2
    VFIO_IRQ_INFO_AUTOMASKED = 4
    VFIO_IRQ_INFO_NORESIZE = 8


class IrqSetFlag(IntFlag):
    """What SET_IRQS is given, and what it shall do with it."""

    VFIO_IRQ_SET_DATA_NONE = 1
    VFIO_IRQ_SET_DATA_BOOL = 2
    VFIO_IRQ_SET_DATA_EVENTFD = 4
    VFIO_IRQ_SET_ACTION_MASK = 8
    VFIO_IRQ_SET_ACTION_UNMASK = 16
    VFIO_IRQ_SET_ACTION_TRIGGER = 32


class BindFlag(IntFlag):
    """What VFIO_DEVICE_BIND_IOMMUFD may be given (6.17)."""

    VFIO_DEVICE_BIND_FLAG_TOKEN = 1


class VfioInfoCapHeader(Layout):
    """A link of the chain behind an answer; `next` is an offset in the answer, 0 at the end."""

    _fields_ = (("id", c_uint16), ("version", c_uint16), ("next", c_uint32))
    id: int
    version: int
    next: int


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


class VfioPciDependentDevice(Layout):
    """A device that a hot reset touches."""

    _fields_ = (
        ("group_id", c_uint32),
        ("segment", c_uint16),
        ("bus", c_uint8),
        ("devfn", c_uint8),
    )
    group_id: int
    segment: int
    bus: int
    devfn: int

    @property
    def id(self) -> int:
        """Its group's number, or its id in an iommufd: then the same bytes are called `devid`."""
        return self.group_id


class VfioPciHotResetInfo(Structure):
    """The devices stand behind it; their room counts in `argsz`."""

    _fields_ = (("argsz", c_uint32), ("flags", c_uint32), ("count", c_uint32))
    flags: int
    count: int


class VfioPciHotReset(Structure):
    """Files of groups, as numbers of 4 bytes, stand behind it and count in `argsz`."""

    _fields_ = (("argsz", c_uint32), ("flags", c_uint32), ("count", c_uint32))


class VfioDeviceIoeventfd(Structure):
    """`flags` is the number of bytes that are written, as one bit: 1, 2, 4 or 8."""

    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("offset", c_uint64),
        ("data", c_uint64),
        ("fd", c_int32),
        ("reserved", c_uint32),
    )


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

    struct = "vfio_device_bind_iommufd"
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
