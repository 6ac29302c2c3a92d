# SPDX-License-Identifier: GPL-2.0-only
"""Both flows' calls, as they are read afterwards."""

import os
from ctypes import sizeof
from errno import EBUSY, EINVAL, ENOENT, ENOTTY

from lab.agent.program import Imm, Load, Read, Store, Write
from lab.agent.syscalls import Syscall
from lab.vfio.uapi import (
    ContainerRequest,
    DeviceRequest,
    DirtyFlag,
    Feature,
    FeatureFlag,
    GroupRequest,
    HotResetFlag,
    IoasMapFlag,
    IommufdRequest,
    IommuIoasAlloc,
    IommuIoasMap,
    IrqSetFlag,
    MapFlag,
    VfioBitmap,
    VfioDeviceAttachIommufdPt,
    VfioDeviceBindIommufd,
    VfioDeviceFeature,
    VfioDeviceInfo,
    VfioIommuType1DirtyBitmap,
    VfioIommuType1DirtyBitmapGet,
    VfioIommuType1DmaMap,
    VfioIrqSet,
    VfioPciDependentDevice,
    VfioPciHotReset,
    VfioPciHotResetInfo,
    VfioRegionInfo,
)

from .conftest import Guest

CDEV = "/dev/vfio/devices/vfio0"


def test_the_cdev_flow(guest: Guest) -> None:
    guest.open("/dev/iommu", 3)
    guest.open(CDEV, 4)
    bind = VfioDeviceBindIommufd(iommufd=3)
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, bind,
                after=VfioDeviceBindIommufd(iommufd=3, out_devid=1))  # fmt: skip
    guest.ioctl(3, IommufdRequest.IOMMU_IOAS_ALLOC, IommuIoasAlloc(),
                after=IommuIoasAlloc(out_ioas_id=2))  # fmt: skip
    attach = VfioDeviceAttachIommufdPt(pt_id=2)
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_ATTACH_IOMMUFD_PT, attach)
    guest.call(Syscall.MMAP, 0, 4096, 3, 0x22, -1, 0, returns=0x7F0000001000)
    request = IommuIoasMap(
        ioas_id=2, user_va=0x7F0000001000, length=0x1000, iova=0x100000,
        flags=IoasMapFlag.IOMMU_IOAS_MAP_FIXED_IOVA | IoasMapFlag.IOMMU_IOAS_MAP_READABLE,
    )  # fmt: skip
    guest.ioctl(3, IommufdRequest.IOMMU_IOAS_MAP, request)
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, bind, returns=-EINVAL)
    guest.call(Syscall.CLOSE, 4)
    guest.call(Syscall.CLOSE, 4, returns=-9)
    assert guest.calls == [
        'openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 3</dev/iommu>',
        f'openat(AT_FDCWD, "{CDEV}", O_RDWR) = 4<{CDEV}>',
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_BIND_IOMMUFD, "
        "{argsz=16, flags=0, iommufd=3</dev/iommu>} => {out_devid=1}) = 0",
        "ioctl(3</dev/iommu>, IOMMU_IOAS_ALLOC, {size=12, flags=0} => {out_ioas_id=2}) = 0",
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_ATTACH_IOMMUFD_PT, {{argsz=12, flags=0, pt_id=2}}) = 0",
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000001000",
        "ioctl(3</dev/iommu>, IOMMU_IOAS_MAP, {size=40, "
        "flags=IOMMU_IOAS_MAP_FIXED_IOVA|IOMMU_IOAS_MAP_READABLE, ioas_id=2, "
        "user_va=0x7f0000001000<memory+0x0>, length=0x1000, iova=0x100000}) = 0",
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_BIND_IOMMUFD, "
        "{argsz=16, flags=0, iommufd=3</dev/iommu>}) = -1 EINVAL (Invalid argument)",
        f"close(4<{CDEV}>) = 0",
        "close(4) = -1 EBADF (Bad file descriptor)",
    ]


def test_the_group_flow(guest: Guest) -> None:
    guest.open("/dev/vfio/vfio", 3)
    guest.open("/dev/vfio/7", 4)
    guest.ioctl(4, GroupRequest.VFIO_GROUP_SET_CONTAINER, (3).to_bytes(4, "little"))
    guest.ioctl(3, ContainerRequest.VFIO_SET_IOMMU, 3)
    request = VfioIommuType1DmaMap(
        vaddr=0x7F0000001000, iova=0x100000, size=0x1000, flags=MapFlag.VFIO_DMA_MAP_FLAG_READ
    )
    guest.ioctl(3, ContainerRequest.VFIO_IOMMU_MAP_DMA, request)
    guest.ioctl(4, GroupRequest.VFIO_GROUP_GET_DEVICE_FD, b"0000:00:05.0\0", returns=5)
    guest.ioctl(5, DeviceRequest.VFIO_DEVICE_GET_INFO, VfioDeviceInfo(),
                after=VfioDeviceInfo(flags=3, num_regions=9, num_irqs=5))  # fmt: skip
    guest.ioctl(5, DeviceRequest.VFIO_DEVICE_RESET, returns=-ENOTTY)
    assert guest.calls == [
        'openat(AT_FDCWD, "/dev/vfio/vfio", O_RDWR) = 3</dev/vfio/vfio>',
        'openat(AT_FDCWD, "/dev/vfio/7", O_RDWR) = 4</dev/vfio/7>',
        "ioctl(4</dev/vfio/7>, VFIO_GROUP_SET_CONTAINER, [3</dev/vfio/vfio>]) = 0",
        "ioctl(3</dev/vfio/vfio>, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) = 0",
        "ioctl(3</dev/vfio/vfio>, VFIO_IOMMU_MAP_DMA, {argsz=32, flags=VFIO_DMA_MAP_FLAG_READ, "
        "vaddr=0x7f0000001000, iova=0x100000, size=0x1000}) = 0",
        'ioctl(4</dev/vfio/7>, VFIO_GROUP_GET_DEVICE_FD, "0000:00:05.0") = 5<device 0000:00:05.0>',
        "ioctl(5<device 0000:00:05.0>, VFIO_DEVICE_GET_INFO, {argsz=24} => "
        "{flags=VFIO_DEVICE_FLAGS_RESET|VFIO_DEVICE_FLAGS_PCI, num_regions=9, num_irqs=5}) = 0",
        "ioctl(5<device 0000:00:05.0>, VFIO_DEVICE_RESET) = -1 ENOTTY "
        "(Inappropriate ioctl for device)",
    ]


def test_one_number_means_different_things_to_different_files(guest: Guest) -> None:
    """113 is MAP_DMA of a container and PCI_HOT_RESET of a device."""
    number = int(ContainerRequest.VFIO_IOMMU_MAP_DMA)
    assert number == DeviceRequest.VFIO_DEVICE_PCI_HOT_RESET
    guest.open(CDEV, 4)
    guest.open("/dev/vfio/7", 5)
    reset = bytes(VfioPciHotReset(argsz=16, count=1)) + (5).to_bytes(4, "little")
    guest.ioctl(4, number, reset)
    guest.ioctl(9, number, bytes(4))
    guest.ioctl(4, DeviceRequest.UNKNOWN)
    assert guest.calls[2:] == [
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_PCI_HOT_RESET, "
        "{argsz=16, flags=0, count=1, group_fds=[5</dev/vfio/7>]}) = 0",
        r"""ioctl(9, _IO(';', 113), "\0\0\0\0") = 0""",
        f"ioctl(4<{CDEV}>, _IO(';', 255)) = 0",
    ]


def test_what_stands_behind_a_structure(guest: Guest) -> None:
    guest.open(CDEV, 4)
    guest.call(Syscall.EVENTFD2, 0, 0, returns=6)
    flags = IrqSetFlag.VFIO_IRQ_SET_DATA_EVENTFD | IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER
    head = VfioIrqSet(argsz=28, flags=flags, index=2, count=2)
    fds = (6).to_bytes(4, "little") + (-1).to_bytes(4, "little", signed=True)
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_SET_IRQS, bytes(head) + fds)
    feature = VfioDeviceFeature(
        argsz=24,
        flags=FeatureFlag.VFIO_DEVICE_FEATURE_SET | Feature.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
    )
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_FEATURE, bytes(feature) + b"a-token-of-16-by")
    asked = bytes(VfioPciHotResetInfo(argsz=20)) + bytes(sizeof(VfioPciDependentDevice))
    device = VfioPciDependentDevice(group_id=0xFFFFFFFF, bus=1, devfn=9)
    flag = HotResetFlag.VFIO_PCI_HOT_RESET_FLAG_DEV_ID
    answer = bytes(VfioPciHotResetInfo(argsz=20, flags=flag, count=1)) + bytes(device)
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, bytearray(asked), after=answer)
    bind = bytes(VfioDeviceBindIommufd(argsz=28, iommufd=-1)) + bytes(8) + b"tail"
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, bind)
    assert guest.calls[2:] == [
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_SET_IRQS, {{argsz=28, "
        "flags=VFIO_IRQ_SET_DATA_EVENTFD|VFIO_IRQ_SET_ACTION_TRIGGER, "
        "index=VFIO_PCI_MSIX_IRQ_INDEX, start=0, count=2, eventfds=[6<eventfd>, -1]}) = 0",
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_FEATURE, {{argsz=24, "
        "flags=VFIO_DEVICE_FEATURE_SET|VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, "
        '(16 bytes)="a-token-of-16-by"}) = 0',
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, {{argsz=20}} => "
        "{flags=VFIO_PCI_HOT_RESET_FLAG_DEV_ID, count=1, "
        "devices=[{0000:01:01.1, devid=-1}]}) = 0",
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_BIND_IOMMUFD, {{argsz=28, flags=0, iommufd=-1, "
        'token_uuid_ptr=NULL, (4 bytes)="tail"}) = 0',
    ]


def test_a_dirty_bitmap_is_asked_for(guest: Guest) -> None:
    guest.open("/dev/iommu", 3)
    head = VfioIommuType1DirtyBitmap(
        argsz=48, flags=DirtyFlag.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP
    )
    bitmap = VfioBitmap(pgsize=4096, size=8, data=0x7F0000001000)
    wanted = VfioIommuType1DirtyBitmapGet(iova=0x100000, size=0x2000, bitmap=bitmap)
    guest.ioctl(3, ContainerRequest.VFIO_IOMMU_DIRTY_PAGES, bytes(head) + bytes(wanted))
    assert guest.calls[1] == (
        "ioctl(3</dev/iommu>, VFIO_IOMMU_DIRTY_PAGES, {argsz=48, "
        "flags=VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, iova=0x100000, size=0x2000, "
        "bitmap={pgsize=0x1000, size=0x8, data=0x7f0000001000}}) = 0"
    )


def test_bad_pointers_short_structures_and_unknown_bits(guest: Guest) -> None:
    guest.open(CDEV, 4)
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, 0xDEAD0000, returns=-14)
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, bytes(VfioDeviceBindIommufd())[:8])
    guest.ioctl(4, DeviceRequest.VFIO_DEVICE_SET_IRQS,
                VfioIrqSet(flags=1 << 30 | 1, index=77, count=20_000))  # fmt: skip
    assert guest.calls[1:] == [
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_BIND_IOMMUFD, 0xdead0000) = -1 EFAULT (Bad address)",
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_BIND_IOMMUFD, {{argsz=16, flags=0}}) = 0",
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_SET_IRQS, {{argsz=20, "
        "flags=VFIO_IRQ_SET_DATA_NONE|0x40000000, index=77, start=0, count=0x4e20}) = 0",
    ]


def test_regions_are_known_by_what_the_kernel_said_of_them(guest: Guest) -> None:
    guest.open(CDEV, 4)
    bar, config = VfioRegionInfo(index=0), VfioRegionInfo(index=7)
    request = DeviceRequest.VFIO_DEVICE_GET_REGION_INFO
    guest.ioctl(4, request, bar, after=VfioRegionInfo(index=0, size=0x100000, offset=0, flags=7))
    offset = 7 << 40
    guest.ioctl(4, request, config, after=VfioRegionInfo(index=7, size=0x100, offset=offset))
    guest.call(Syscall.PREAD64, 4, bytearray(2), 2, offset + 4, returns=2, after=b"\x06\x10")
    guest.call(Syscall.MMAP, 0, 0x100000, 3, 1, 4, 0, returns=0x7F0000000000)
    guest.op(Load(Imm(0x7F0000000004), 4), 0xFFFFFFFA)
    guest.op(Store(Imm(0x7F0000000080), 8, Imm(0x40000)))
    guest.op(Load(Imm(0x7F0000000098), 8), 1)
    guest.op(Load(Imm(0x7F0000000098), 8), 1)
    guest.op(Load(Imm(0x7F0000000098), 8), 0)
    assert guest.calls[3:] == [
        f'pread64(4<{CDEV}>, "\\x06\\x10", 2, 0x70000000004<config+0x4>) = 2',
        f"mmap(NULL, 0x100000, PROT_READ|PROT_WRITE, MAP_SHARED, 4<{CDEV}>, 0) = 0x7f0000000000",
        "load32(0x7f0000000004<BAR 0+0x4>) = 0xfffffffa",
        "store64(0x7f0000000080<BAR 0+0x80>, 0x40000)",
        "load64(0x7f0000000098<BAR 0+0x98>) = 0x1",
        "... 2 times in a row, the last at 0.008000",
        "load64(0x7f0000000098<BAR 0+0x98>) = 0x0",
    ]


def test_files_are_followed_through_copies_and_other_processes(guest: Guest) -> None:
    guest.open(CDEV, 4)
    guest.call(Syscall.DUP, 4, returns=5)
    guest.call(Syscall.CLOSE, 4)
    guest.call(Syscall.PIDFD_OPEN, 70, 0, returns=6)
    guest.call(Syscall.PIDFD_GETFD, 6, 5, 0, returns=7)
    guest.ioctl(7, DeviceRequest.VFIO_DEVICE_RESET)
    assert guest.calls[1:] == [
        f"dup(4<{CDEV}>) = 5<{CDEV}>",
        f"close(4<{CDEV}>) = 0",
        "pidfd_open(70, 0) = 6<pidfd of 70>",
        f"pidfd_getfd(6<pidfd of 70>, 5, 0) = 7<{CDEV}>",
        f"ioctl(7<{CDEV}>, VFIO_DEVICE_RESET) = 0",
    ]


def test_small_files_and_directories(guest: Guest) -> None:
    guest.open("/sys/x", 3)
    guest.call(Syscall.READ, 3, bytearray(4096), 4096, returns=4, after=b"vfio")
    entries = b"".join(
        bytes(16) + (24).to_bytes(2, "little") + b"\0" + name.ljust(5, b"\0")
        for name in (b".", b"..", b"vfio0"[:4])
    )
    guest.call(Syscall.GETDENTS64, 3, bytearray(8192), 8192, returns=len(entries), after=entries)
    guest.call(Syscall.READLINKAT, -100, b"/sys/y\0", bytearray(4096), 4096, returns=-ENOENT)
    assert guest.calls[1:] == [
        'read(3</sys/x>, "vfio", 4096) = 4',
        "getdents64(3</sys/x>, [vfio], 8192) = 72",
        'readlinkat(AT_FDCWD, "/sys/y", ..., 4096) = -1 ENOENT (No such file or directory)',
    ]


def test_memory_is_abbreviated_and_never_acts_on_a_terminal(guest: Guest) -> None:
    guest.call(Syscall.MMAP, 0, 4096, 3, 0x22, -1, 0, returns=0x7F0000001000)
    guest.op(Write(Imm(0x7F0000001010), b"\x1b[31m\0\n" + bytes(4089)))
    guest.op(Read(Imm(0x7F0000001010), 4), after=b"")
    guest.open("/tmp/\x1b[2J\n", 3)
    guest.call(400, 1, 0x7F0000001000, b"odd", returns=-EBUSY)
    assert guest.calls[1:] == [
        r'memcpy(0x7f0000001010<memory+0x10>, "\x1b[31m\0\n' + 25 * r"\0" + '"..., 4096)',
        r'memcpy("\0\0\0\0", 0x7f0000001010<memory+0x10>, 4)',
        r'openat(AT_FDCWD, "/tmp/\x1b[2J\n", O_RDWR) = 3</tmp/\x1b[2J\n>',
        f'syscall_400(1, 0x7f0000001000<memory+0x0>, "odd") = -1 EBUSY ({os.strerror(EBUSY)})',
    ]
