# SPDX-License-Identifier: GPL-2.0-only
"""Both flows as the calls of a program, for tests that need them within one round trip.

What `lab.vfio.modes` does in many: there a test holds files, here it holds what leads to them.
"""

from dataclasses import dataclass
from enum import IntEnum
from mmap import MAP_SHARED, PROT_READ, PROT_WRITE

from lab.agent.calls import close, openat
from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Field, Imm, Reg
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.vfio.device import Device
from lab.vfio.files import READ_WRITE, Iommufd
from lab.vfio.modes import IOMMU_TYPES, container_path
from lab.vfio.uapi import (
    ContainerRequest,
    DeviceRequest,
    GroupRequest,
    IoasMapFlag,
    IommufdRequest,
    IommuIoasAlloc,
    IommuIoasMap,
    IommuIoasUnmap,
    VfioDeviceAttachIommufdPt,
    VfioDeviceBindIommufd,
    VfioDeviceDetachIommufdPt,
    VfioDeviceInfo,
    VfioIommuType1DmaMap,
    VfioIommuType1DmaUnmap,
)


class Place(IntEnum):
    """Registers of such a program; those from FREE on are the test's own."""

    CONTEXT = 0  # the iommufd, or the container
    DEVICE = 1
    IOAS = 2
    GROUP = 3
    BAR = 4
    FREE = 5


@dataclass(frozen=True)
class Step:
    """One call of a flow."""

    name: str
    call: Call


def info() -> Call:
    """GET_INFO of the device."""
    return _ioctl(Place.DEVICE, DeviceRequest.VFIO_DEVICE_GET_INFO, Buf(bytes(VfioDeviceInfo())))


def map_bar(process: Process) -> Call:
    """The first page of BAR 0."""
    words = Imm(0), Imm(process.page_size), Imm(PROT_READ | PROT_WRITE), Imm(MAP_SHARED)
    return Call(Syscall.MMAP, (*words, Reg(Place.DEVICE), Imm(0)), Place.BAR)


def unmap_bar(process: Process, place: int = Place.BAR) -> Call:
    return Call(Syscall.MUNMAP, (Reg(place), Imm(process.page_size)))


def closes() -> tuple[Call, ...]:
    """Of all that the steps may have left open."""
    return tuple(map(close, (Place.DEVICE, Place.GROUP, Place.CONTEXT)))


def way_in(
    process: Process, device: Device, mode: Mode, iova: int, memory: Mapping
) -> tuple[Step, ...]:
    """From the first open to a device that is operational and sees `memory` at `iova`."""
    if mode is Mode.IOMMUFD:
        return _cdev_way_in(device.cdev_path(process), iova, memory)
    return _group_way_in(process, device, mode, iova, memory)


def way_back(mode: Mode, iova: int, length: int) -> tuple[Step, ...]:
    """What can be undone before the closes."""
    if mode is not Mode.IOMMUFD:
        request = Buf(bytes(VfioIommuType1DmaUnmap(iova=iova, size=length)))
        call = _ioctl(Place.CONTEXT, ContainerRequest.VFIO_IOMMU_UNMAP_DMA, request)
        return (Step("UNMAP_DMA", call),)
    ioas = (Field(4, 4, Place.IOAS),)
    request = Buf(bytes(IommuIoasUnmap(iova=iova, length=length)), inputs=ioas)
    detach = Buf(bytes(VfioDeviceDetachIommufdPt()))
    return (
        Step("IOAS_UNMAP", _ioctl(Place.CONTEXT, IommufdRequest.IOMMU_IOAS_UNMAP, request)),
        Step("DETACH", _ioctl(Place.DEVICE, DeviceRequest.VFIO_DEVICE_DETACH_IOMMUFD_PT, detach)),
    )


def _ioctl(place: int, request: IntEnum, argument: Buf | Imm, into: int | None = None) -> Call:
    return Call(Syscall.IOCTL, (Reg(place), Imm(request), argument), into)


def _cdev_way_in(path: str, iova: int, memory: Mapping) -> tuple[Step, ...]:
    flags = (
        IoasMapFlag.IOMMU_IOAS_MAP_FIXED_IOVA
        | IoasMapFlag.IOMMU_IOAS_MAP_READABLE
        | IoasMapFlag.IOMMU_IOAS_MAP_WRITEABLE
    )
    ioas = (Field(8, 4, Place.IOAS),)
    bind = Buf(bytes(VfioDeviceBindIommufd()), inputs=(Field(8, 4, Place.CONTEXT),))
    alloc = Buf(bytes(IommuIoasAlloc()), outputs=ioas)
    attach = Buf(bytes(VfioDeviceAttachIommufdPt()), inputs=ioas)
    mapped = IommuIoasMap(flags=flags, user_va=memory.address, length=memory.length, iova=iova)
    map_ = Buf(bytes(mapped), inputs=ioas)
    return (
        Step("open of the iommufd", openat(Iommufd.PATH, Place.CONTEXT)),
        Step("open of the cdev", openat(path, Place.DEVICE)),
        Step("BIND", _ioctl(Place.DEVICE, DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, bind)),
        Step("IOAS_ALLOC", _ioctl(Place.CONTEXT, IommufdRequest.IOMMU_IOAS_ALLOC, alloc)),
        Step("ATTACH", _ioctl(Place.DEVICE, DeviceRequest.VFIO_DEVICE_ATTACH_IOMMUFD_PT, attach)),
        Step("IOAS_MAP", _ioctl(Place.CONTEXT, IommufdRequest.IOMMU_IOAS_MAP, map_)),
    )


def _group_way_in(
    process: Process, device: Device, mode: Mode, iova: int, memory: Mapping
) -> tuple[Step, ...]:
    context, group = Place.CONTEXT, Place.GROUP
    fd = Buf(size=4, inputs=(Field(0, 4, context),))
    mapped = VfioIommuType1DmaMap(
        flags=READ_WRITE, vaddr=memory.address, iova=iova, size=memory.length
    )
    map_, kind = Buf(bytes(mapped)), Imm(IOMMU_TYPES[mode])
    name = Buf(device.address.encode() + b"\0")
    get = _ioctl(group, GroupRequest.VFIO_GROUP_GET_DEVICE_FD, name, Place.DEVICE)
    return (
        Step("open of the container", openat(container_path(process, mode), context)),
        Step("open of the group", openat(device.group_path(process), group)),
        Step("SET_CONTAINER", _ioctl(group, GroupRequest.VFIO_GROUP_SET_CONTAINER, fd)),
        Step("SET_IOMMU", _ioctl(context, ContainerRequest.VFIO_SET_IOMMU, kind)),
        Step("MAP_DMA", _ioctl(context, ContainerRequest.VFIO_IOMMU_MAP_DMA, map_)),
        Step("GET_DEVICE_FD", get),
    )
