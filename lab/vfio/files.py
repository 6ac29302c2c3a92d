# SPDX-License-Identifier: GPL-2.0-only
"""The files of both flows, each with the ioctls that it takes.

All are open files of a process in the guest; their calls raise RemoteError, whose errno is the
kernel's answer.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from lab.agent.agent import Argument
from lab.agent.file import RemoteFile
from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.vfio.uapi import (
    PCI_COMMAND,
    ContainerRequest,
    DeviceRequest,
    DirtyFlag,
    Feature,
    FeatureFlag,
    GroupFlag,
    GroupRequest,
    HotResetFlag,
    HwptFlag,
    InfoCapability,
    IoasMapFlag,
    IommuDestroy,
    IommufdRequest,
    IommuHwptAlloc,
    IommuIoasAlloc,
    IommuIoasIovaRanges,
    IommuIoasMap,
    IommuIoasUnmap,
    IommuIovaRange,
    IommuType,
    IrqSetFlag,
    MapFlag,
    PciCommand,
    PciIrq,
    PciRegion,
    UnmapFlag,
    VfioBitmap,
    VfioDeviceAttachIommufdPt,
    VfioDeviceBindIommufd,
    VfioDeviceDetachIommufdPt,
    VfioDeviceFeature,
    VfioDeviceInfo,
    VfioDeviceIoeventfd,
    VfioGroupStatus,
    VfioInfoCapHeader,
    VfioIommuType1DirtyBitmap,
    VfioIommuType1DirtyBitmapGet,
    VfioIommuType1DmaMap,
    VfioIommuType1DmaUnmap,
    VfioIommuType1Info,
    VfioIommuType1InfoCapIovaRange,
    VfioIovaRange,
    VfioIrqInfo,
    VfioIrqSet,
    VfioPciDependentDevice,
    VfioPciHotReset,
    VfioPciHotResetInfo,
    VfioRegionInfo,
)

_LINK = ctypes.sizeof(VfioInfoCapHeader)
NO_FLAG = UnmapFlag(0)
NO_HWPT_FLAG = HwptFlag(0)
READ_WRITE = MapFlag.VFIO_DMA_MAP_FLAG_READ | MapFlag.VFIO_DMA_MAP_FLAG_WRITE


@dataclass(frozen=True)
class Capability:
    """A link of the chain behind an answer: `struct vfio_info_cap_header` and what follows it.

    `data` reaches to the answer's end, where the kernel does not say how long it is.
    """

    id: int
    version: int
    data: bytes


def capabilities(answer: bytes, offset: int) -> list[Capability]:
    """The chain that begins at `offset` of an answer, 0 for none.

    Raises AssertionError for a chain that leaves the answer or comes back.
    """
    found: dict[int, Capability] = {}
    while offset:
        assert offset not in found, f"the chain of capabilities comes back to {offset:#x}"
        assert offset + _LINK <= len(answer), f"the chain leaves the answer, to {offset:#x}"
        link = VfioInfoCapHeader.from_buffer_copy(answer, offset)
        found[offset] = Capability(link.id, link.version, answer[offset + _LINK :])
        offset = link.next
    return list(found.values())


class VfioFile(RemoteFile):
    """A file whose requests have names."""

    process: Process

    @classmethod
    def open(cls, process: Process, path: str) -> Self:
        """Open a node under /dev. Raises RemoteError."""
        file = process.open(path)
        return cls(process, file.detach(), path)

    def call(self, request: IntEnum, arg: Argument = 0) -> int:
        """One ioctl, named in the error if it fails."""
        return self.ioctl(request, arg, what=request.name)


class Iommufd(VfioFile):
    """/dev/iommu: address spaces and what is mapped in them."""

    PATH = "/dev/iommu"

    def ioas_alloc(self) -> int:
        """A new, empty address space; its id."""
        alloc = IommuIoasAlloc()
        self.call(IommufdRequest.IOMMU_IOAS_ALLOC, alloc)
        return alloc.out_ioas_id

    def ioas_map(
        self, ioas: int, iova: int, address: int, length: int, rights: MapFlag = READ_WRITE
    ) -> None:
        """Let devices that are attached to `ioas` see `length` bytes of this process at `iova`.

        A bit of `rights` that is none goes to the kernel as the same unknown bit.
        """
        flags = IoasMapFlag.IOMMU_IOAS_MAP_FIXED_IOVA
        if rights & MapFlag.VFIO_DMA_MAP_FLAG_READ:
            flags |= IoasMapFlag.IOMMU_IOAS_MAP_READABLE
        if rights & MapFlag.VFIO_DMA_MAP_FLAG_WRITE:
            flags |= IoasMapFlag.IOMMU_IOAS_MAP_WRITEABLE
        unknown = int(rights) & ~int(READ_WRITE)
        request = IommuIoasMap(
            ioas_id=ioas, flags=flags | unknown, iova=iova, user_va=address, length=length
        )
        self.call(IommufdRequest.IOMMU_IOAS_MAP, request)

    def ioas_unmap(self, ioas: int, iova: int, length: int) -> int:
        """Bytes that were unmapped."""
        unmap = IommuIoasUnmap(ioas_id=ioas, iova=iova, length=length)
        self.call(IommufdRequest.IOMMU_IOAS_UNMAP, unmap)
        return unmap.length

    def iova_ranges(self, ioas: int, room: int = 16) -> list[tuple[int, int]]:
        """First and last address of each range that may be mapped, where `room` are enough."""
        ranges = (IommuIovaRange * room)()
        length = max(ctypes.sizeof(ranges), 1)
        with self.process.mmap(length) as memory:
            request = IommuIoasIovaRanges(
                ioas_id=ioas, num_iovas=room, allowed_iovas=memory.address
            )
            self.call(IommufdRequest.IOMMU_IOAS_IOVA_RANGES, request)
            ranges = type(ranges).from_buffer_copy(memory.read(0, ctypes.sizeof(ranges)))
        return [(each.start, each.last) for each in ranges[: request.num_iovas]]

    def hwpt_alloc(self, device: int, ioas: int, flags: HwptFlag = NO_HWPT_FLAG) -> int:
        """A page table of its own for a device, over an IOAS; its id."""
        request = IommuHwptAlloc(flags=flags, dev_id=device, pt_id=ioas)
        self.call(IommufdRequest.IOMMU_HWPT_ALLOC, request)
        return request.out_hwpt_id

    def destroy(self, identity: int) -> None:
        """Destroy an object by its id; EBUSY while it is in use."""
        self.call(IommufdRequest.IOMMU_DESTROY, IommuDestroy(id=identity))


class Container(VfioFile):
    """/dev/vfio/vfio, or an iommufd that plays its part: type1's ioctls."""

    PATH = "/dev/vfio/vfio"

    def check_extension(self, extension: int) -> int:
        return self.call(ContainerRequest.VFIO_CHECK_EXTENSION, extension)

    def set_iommu(self, kind: IommuType) -> None:
        self.call(ContainerRequest.VFIO_SET_IOMMU, kind)

    def map_dma(self, iova: int, address: int, length: int, rights: MapFlag = READ_WRITE) -> None:
        """Let the devices of this container's groups see `length` bytes of this process."""
        request = VfioIommuType1DmaMap(flags=rights, iova=iova, vaddr=address, size=length)
        self.call(ContainerRequest.VFIO_IOMMU_MAP_DMA, request)

    def iova_ranges(self) -> list[tuple[int, int]]:
        """First and last address of each range that may be mapped."""
        found = self._capability(InfoCapability.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
        whole = bytes(VfioInfoCapHeader()) + found
        head = VfioIommuType1InfoCapIovaRange.from_buffer_copy(whole)
        ranges = (VfioIovaRange * head.nr_iovas).from_buffer_copy(whole, ctypes.sizeof(head))
        return [(each.start, each.end) for each in ranges]

    def dma_avail(self) -> int:
        """How many more mappings it may have."""
        found = self._capability(InfoCapability.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
        return int.from_bytes(found[:4], "little")

    def _capability(self, wanted: InfoCapability) -> bytes:
        """The one with this id, without its header."""
        _, chain = self.info()
        (found,) = [each.data for each in chain if each.id == wanted]
        return found

    def info(self) -> tuple[VfioIommuType1Info, list[Capability]]:
        """GET_INFO with the chain behind it."""
        head = VfioIommuType1Info()
        self.call(ContainerRequest.VFIO_IOMMU_GET_INFO, head)
        answer = bytearray(bytes(VfioIommuType1Info(argsz=head.argsz)).ljust(head.argsz, b"\0"))
        self.call(ContainerRequest.VFIO_IOMMU_GET_INFO, answer)
        head = VfioIommuType1Info.from_buffer_copy(answer)
        return head, capabilities(bytes(answer), head.cap_offset)

    def unmap_dma(self, iova: int, length: int, flags: UnmapFlag = NO_FLAG) -> int:
        """Bytes that were unmapped."""
        unmap = VfioIommuType1DmaUnmap(flags=flags, iova=iova, size=length)
        self.call(ContainerRequest.VFIO_IOMMU_UNMAP_DMA, unmap)
        return unmap.size

    def unmap_dirty(
        self,
        iova: int,
        pages: int,
        page_size: int = 4096,
        *,
        also: UnmapFlag = NO_FLAG,
        room: int | None = None,
    ) -> tuple[int, list[bool]]:
        """Bytes that were unmapped, and which of so many pages the log called dirty. `room` is as
        for `dirty_pages`."""
        with self.process.mmap(-(-pages // 64) * 8) as bitmap:
            unmap = VfioIommuType1DmaUnmap(
                argsz=ctypes.sizeof(VfioIommuType1DmaUnmap) + ctypes.sizeof(VfioBitmap),
                flags=UnmapFlag.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | also,
                iova=iova,
                size=pages * page_size,
            )
            answer = bytearray(bytes(unmap) + bytes(_bitmap(bitmap, page_size, room)))
            self.call(ContainerRequest.VFIO_IOMMU_UNMAP_DMA, answer)
            unmap = VfioIommuType1DmaUnmap.from_buffer_copy(answer)
            return unmap.size, _bits(bitmap, pages)

    def log_dirty(self, flag: DirtyFlag) -> None:
        """Start or stop the log of dirty pages."""
        request = VfioIommuType1DirtyBitmap(flags=flag)
        self.call(ContainerRequest.VFIO_IOMMU_DIRTY_PAGES, request)

    def dirty_pages(
        self, iova: int, pages: int, page_size: int = 4096, *, room: int | None = None
    ) -> list[bool]:
        """Which of so many pages from `iova` on the log calls dirty. `room`: the bytes that the
        bitmap is said to have, where those are not enough."""
        with self.process.mmap(-(-pages // 64) * 8) as bitmap:
            wanted = VfioIommuType1DirtyBitmapGet(
                iova=iova, size=pages * page_size, bitmap=_bitmap(bitmap, page_size, room)
            )
            head = VfioIommuType1DirtyBitmap(
                argsz=ctypes.sizeof(VfioIommuType1DirtyBitmap) + ctypes.sizeof(wanted),
                flags=DirtyFlag.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
            )
            self.call(ContainerRequest.VFIO_IOMMU_DIRTY_PAGES, bytes(head) + bytes(wanted))
            return _bits(bitmap, pages)


def _bitmap(memory: Mapping, page_size: int, room: int | None) -> VfioBitmap:
    """Where the log of pages of that size goes."""
    size = memory.length if room is None else room
    return VfioBitmap(pgsize=page_size, size=size, data=memory.address)


def _bits(memory: Mapping, count: int) -> list[bool]:
    """So many of them, from the first one on."""
    bits = int.from_bytes(memory.read(), "little")
    return [bool(bits >> place & 1) for place in range(count)]


def irq_set(
    index: PciIrq,
    action: IrqSetFlag,
    *,
    start: int = 0,
    count: int = 1,
    eventfds: Sequence[int] = (),
) -> bytes:
    """The argument of SET_IRQS, as `DeviceFile.set_irqs` gives it."""
    data = b"".join(fd.to_bytes(4, "little", signed=True) for fd in eventfds)
    kind = IrqSetFlag.VFIO_IRQ_SET_DATA_NONE
    if eventfds:
        kind, count = IrqSetFlag.VFIO_IRQ_SET_DATA_EVENTFD, len(eventfds)
    head = VfioIrqSet(
        argsz=ctypes.sizeof(VfioIrqSet) + len(data),
        flags=kind | action,
        index=index,
        start=start,
        count=count,
    )
    return bytes(head) + data


class DeviceFile(VfioFile):
    """A device's file, however it was come by."""

    def info(self) -> VfioDeviceInfo:
        info = VfioDeviceInfo()
        self.call(DeviceRequest.VFIO_DEVICE_GET_INFO, info)
        return info

    def region(self, index: int) -> VfioRegionInfo:
        region = VfioRegionInfo(index=index)
        self.call(DeviceRequest.VFIO_DEVICE_GET_REGION_INFO, region)
        return region

    def region_capabilities(self, index: int) -> list[Capability]:
        """The chain behind a region's information."""
        size = self.region(index).argsz
        answer = bytearray(bytes(VfioRegionInfo(argsz=size, index=index)).ljust(size, b"\0"))
        self.call(DeviceRequest.VFIO_DEVICE_GET_REGION_INFO, answer)
        return capabilities(bytes(answer), VfioRegionInfo.from_buffer_copy(answer).cap_offset)

    def irq(self, index: PciIrq) -> VfioIrqInfo:
        info = VfioIrqInfo(index=index)
        self.call(DeviceRequest.VFIO_DEVICE_GET_IRQ_INFO, info)
        return info

    def set_irqs(
        self,
        index: PciIrq,
        action: IrqSetFlag,
        *,
        start: int = 0,
        count: int = 1,
        eventfds: Sequence[int] = (),
    ) -> None:
        """SET_IRQS with eventfds, -1 for none, or with no data and `count` vectors."""
        argument = irq_set(index, action, start=start, count=count, eventfds=eventfds)
        self.call(DeviceRequest.VFIO_DEVICE_SET_IRQS, argument)

    def reset(self) -> None:
        self.call(DeviceRequest.VFIO_DEVICE_RESET)

    def hot_reset_info(self, room: int = 32) -> tuple[HotResetFlag, list[VfioPciDependentDevice]]:
        """Whom a hot reset of this device touches, where `room` devices are enough."""
        head = ctypes.sizeof(VfioPciHotResetInfo)
        devices = (VfioPciDependentDevice * room)()
        argsz = head + ctypes.sizeof(devices)
        data = bytearray(bytes(VfioPciHotResetInfo(argsz=argsz)) + bytes(devices))
        self.call(DeviceRequest.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, data)
        info = VfioPciHotResetInfo.from_buffer_copy(data)
        devices = type(devices).from_buffer_copy(data, head)
        return HotResetFlag(info.flags), list(devices[: info.count])

    def hot_reset(self, groups: Sequence[int] = ()) -> None:
        """Reset the bus or slot; `groups` are files of all groups that are on it."""
        data = b"".join(fd.to_bytes(4, "little", signed=True) for fd in groups)
        argsz = ctypes.sizeof(VfioPciHotReset) + len(data)
        head = VfioPciHotReset(argsz=argsz, count=len(groups))
        self.call(DeviceRequest.VFIO_DEVICE_PCI_HOT_RESET, bytes(head) + data)

    def ioeventfd(self, offset: int, width: int, data: int, fd: int) -> None:
        """Let each signal of an eventfd write `width` bytes to a register; -1 for it ends that."""
        request = VfioDeviceIoeventfd(flags=width, offset=offset, data=data, fd=fd)
        self.call(DeviceRequest.VFIO_DEVICE_IOEVENTFD, request)

    def set_feature(self, feature: Feature, data: bytes) -> None:
        self._feature(FeatureFlag.VFIO_DEVICE_FEATURE_SET | feature, data)

    def get_feature(self, feature: Feature, length: int) -> bytes:
        """As many bytes of data."""
        return self._feature(FeatureFlag.VFIO_DEVICE_FEATURE_GET | feature, bytes(length))

    def _feature(self, flags: int, data: bytes) -> bytes:
        """One VFIO_DEVICE_FEATURE; the data as the kernel leaves them."""
        head = VfioDeviceFeature(argsz=ctypes.sizeof(VfioDeviceFeature) + len(data), flags=flags)
        argument = bytearray(bytes(head) + data)
        self.call(DeviceRequest.VFIO_DEVICE_FEATURE, argument)
        return bytes(argument[ctypes.sizeof(head) :])

    def map_bar(self, index: int) -> Mapping:
        """All of a BAR, to be loaded from and stored to."""
        region = self.region(index)
        return self.mmap(region.size, offset=region.offset)

    def config(self, offset: int, width: int) -> int:
        """`width` bytes of config space as the user sees it."""
        place = self.region(PciRegion.VFIO_PCI_CONFIG_REGION_INDEX).offset + offset
        return int.from_bytes(self.pread(width, place), "little")

    def set_config(self, offset: int, width: int, value: int) -> None:
        place = self.region(PciRegion.VFIO_PCI_CONFIG_REGION_INDEX).offset + offset
        self.pwrite(value.to_bytes(width, "little"), place)

    @property
    def command(self) -> PciCommand:
        """The command register as the user sees it."""
        return PciCommand(self.config(PCI_COMMAND, 2))

    @command.setter
    def command(self, value: PciCommand) -> None:
        self.set_config(PCI_COMMAND, 2, int(value))

    def enable_dma(self) -> None:
        """Set bus mastering, which is off when a device is opened (DMA-4)."""
        self.command |= PciCommand.MASTER | PciCommand.MEMORY


class Cdev(DeviceFile):
    """/dev/vfio/devices/vfioN: parked until it is bound."""

    def bind(self, iommufd: RemoteFile) -> int:
        """Become the device's owner; the device's id in that iommufd."""
        bind = VfioDeviceBindIommufd(iommufd=iommufd.fd)
        self.call(DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, bind)
        return bind.out_devid

    def attach(self, page_table: int) -> int:
        """Attach the device to an IOAS or HWPT of its iommufd; the id of the HWPT that it got."""
        request = VfioDeviceAttachIommufdPt(pt_id=page_table)
        self.call(DeviceRequest.VFIO_DEVICE_ATTACH_IOMMUFD_PT, request)
        return request.pt_id

    def detach_pt(self) -> None:
        """Detach it: its DMA is blocked again."""
        self.call(DeviceRequest.VFIO_DEVICE_DETACH_IOMMUFD_PT, VfioDeviceDetachIommufdPt())


class Group(VfioFile):
    """/dev/vfio/N: one owner for all devices of an IOMMU group."""

    def status(self) -> GroupFlag:
        status = VfioGroupStatus()
        self.call(GroupRequest.VFIO_GROUP_GET_STATUS, status)
        return GroupFlag(status.flags)

    def set_container(self, container: RemoteFile) -> None:
        fd = container.fd.to_bytes(4, "little", signed=True)
        self.call(GroupRequest.VFIO_GROUP_SET_CONTAINER, fd)

    def unset_container(self) -> None:
        self.call(GroupRequest.VFIO_GROUP_UNSET_CONTAINER)

    def get_device(self, name: str) -> DeviceFile:
        """VFIO_GROUP_GET_DEVICE_FD: bind and attach in one step (OWN-8)."""
        fd = self.call(GroupRequest.VFIO_GROUP_GET_DEVICE_FD, name.encode() + b"\0")
        return DeviceFile(self.process, fd, f"device {name}")
