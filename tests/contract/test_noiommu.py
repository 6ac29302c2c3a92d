# SPDX-License-Identifier: GPL-2.0-only
"""NOIO-1: a device without an IOMMU behind it, for those who ask for that by name.

Source: drivers/vfio/container.c and drivers/vfio/group.c, `VFIO_NO_IOMMU`; vfio_compat.c,
`no_iommu_mode`. The device's DMA is never switched on: nothing would hold it back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL, ENODEV, ENOTTY, EPERM
from struct import pack, unpack

import pytest

from lab.agent.process import Process
from lab.agent.syscalls import Syscall
from lab.testbed import Testbed
from lab.testing import contract, not_applicable, on_machine, raises_errno
from lab.vfio.device import CDEVS, VFIO_PCI, Device
from lab.vfio.edu import edu_of
from lab.vfio.files import Container, Group, Iommufd
from lab.vfio.parameter import parameter, turned_on
from lab.vfio.uapi import (
    ContainerRequest,
    Extension,
    IommufdRequest,
    IommuType,
    IommuVfioIoas,
    VfioIoasOp,
)

MACHINE = "no-iommu"
UNSAFE = parameter("vfio", "enable_unsafe_noiommu_mode")
TYPE1 = "/sys/module/vfio_iommu_type1"
NOIOMMU = Extension.VFIO_NOIOMMU_IOMMU
IOVA = 0x10_0000
TAINT_USER = 1 << 6  # include/linux/panic.h
CAP_SYS_RAWIO = 17
CAP_VERSION_3 = 0x20080522
CONTAINERS = [
    pytest.param(Container.PATH, id="container"),
    pytest.param(Iommufd.PATH, id="iommufd"),
]


@pytest.fixture(autouse=True)
def _kernel_has_noiommu(hands: Process) -> None:
    if not hands.exists(UNSAFE):
        raise not_applicable("this kernel has no noiommu mode")


@pytest.fixture
def group_path(hands: Process, edu: Device) -> Iterator[str]:
    """The node of edu's noiommu group, for as long as the test lasts."""
    with turned_on(hands, UNSAFE), edu.driven_by(hands, VFIO_PCI):
        yield f"/dev/vfio/noiommu-{edu.group_number(hands)}"


@pytest.fixture
def container(process: Process, path: str) -> Iterator[Container]:
    """What the group shall be set in."""
    if not process.exists(path):
        raise not_applicable(f"this kernel has no {path}")
    if path == Container.PATH and not process.exists(TYPE1):
        raise not_applicable("this kernel has no type1: an iommufd, if any, plays the container")
    with Container.open(process, path) as opened:
        yield opened


def _set_rawio(process: Process, *, effective: bool) -> None:
    """capset(2). It stays permitted, so that the process may take it again."""
    head = pack("<Ii", CAP_VERSION_3, 0)
    data = bytearray(24)
    process.syscall(Syscall.CAPGET, head, data)
    low, *rest = unpack("<6I", data)
    low = low | 1 << CAP_SYS_RAWIO if effective else low & ~(1 << CAP_SYS_RAWIO)
    process.syscall(Syscall.CAPSET, head, pack("<6I", low, *rest))


@contextmanager
def _without_rawio(process: Process) -> Iterator[None]:
    """Without the capability as long as the block lasts, in which a call is refused with EPERM."""
    _set_rawio(process, effective=False)
    with raises_errno(EPERM):
        yield
    _set_rawio(process, effective=True)


@contract("NOIO-1")
@on_machine(MACHINE)
def test_no_group_unless_it_is_asked_for(hands: Process, edu: Device) -> None:
    """group.c: vfio_group_find_or_alloc(): vfio-pci takes no device, until the parameter is on."""
    before = hands.listdir("/dev/vfio")
    try:
        with raises_errno(ENODEV):
            edu.set_driver(hands, VFIO_PCI)
        assert hands.listdir("/dev/vfio") == before
        with turned_on(hands, UNSAFE):
            edu.set_driver(hands, VFIO_PCI)
            assert f"noiommu-{edu.group_number(hands)}" in hands.listdir("/dev/vfio")
    finally:
        edu.set_driver(hands, None)
    assert hands.listdir("/dev/vfio") == before


@contract("NOIO-1")
@on_machine(MACHINE)
def test_noiommu_taints_the_kernel_and_makes_no_cdev(
    testbed: Testbed, hands: Process, edu: Device
) -> None:
    """vfio_group_find_or_alloc(): add_taint(); vfio.h: vfio_device_add(). Newer kernels have a cdev
    for it, which says by its name what it is."""
    printed = testbed.guest.console.size
    with turned_on(hands, UNSAFE), edu.driven_by(hands, VFIO_PCI):
        assert int(hands.read_text("/proc/sys/kernel/tainted")) & TAINT_USER
        said = testbed.printed_since(printed)
        assert f"{edu.address}: Adding kernel taint for vfio-noiommu group on device" in said
        cdevs = hands.listdir(CDEVS) if hands.exists(CDEVS) else []
        assert all(name.startswith("noiommu-") for name in cdevs)


@contract("NOIO-1")
@on_machine(MACHINE)
@pytest.mark.parametrize("path", CONTAINERS)
def test_a_device_without_translation(
    process: Process, edu: Device, group_path: str, path: str, container: Container
) -> None:
    """vfio_iommu_driver_allowed(), vfio_noiommu_ioctl(); iommufd_vfio_set_iommu().

    Type1 is refused and nothing can be mapped, but the device is there.
    """
    iommufd = path == Iommufd.PATH
    with Group.open(process, group_path) as group, process.mmap(4096) as page:
        group.set_container(container)
        assert container.check_extension(NOIOMMU) == 1
        for kind in IommuType:
            assert container.check_extension(kind) == 0
            with raises_errno(EINVAL if iommufd else ENODEV):
                container.set_iommu(kind)
        container.call(ContainerRequest.VFIO_SET_IOMMU, NOIOMMU)
        with raises_errno(ENODEV if iommufd else ENOTTY):
            container.map_dma(IOVA, page.address, page.length)
        with group.get_device(edu.address) as device, edu_of(device) as registers:
            assert registers.inverted(0x1234_5678) == 0xEDCB_A987


@contract("NOIO-1")
@on_machine(MACHINE)
@pytest.mark.parametrize("path", CONTAINERS)
def test_every_step_needs_the_capability(
    process: Process, edu: Device, group_path: str, path: str, container: Container
) -> None:
    """CAP_SYS_RAWIO at each step that leads to the device, and each succeeds with it.

    An iommufd does not ask for it in SET_CONTAINER, which gives nothing yet.
    """
    with _without_rawio(process):
        Group.open(process, group_path)
    with Group.open(process, group_path) as group:
        if path == Container.PATH:
            with _without_rawio(process):
                group.set_container(container)
        group.set_container(container)
        with _without_rawio(process):
            container.call(ContainerRequest.VFIO_SET_IOMMU, NOIOMMU)
        container.call(ContainerRequest.VFIO_SET_IOMMU, NOIOMMU)
        with _without_rawio(process), group.get_device(edu.address):
            pass
        with group.get_device(edu.address) as device:
            device.info()


@contract("NOIO-1")
@on_machine(MACHINE)
def test_an_iommufd_with_an_address_space_is_refused(
    process: Process, edu: Device, group_path: str
) -> None:
    """Whoever has an IOAS for a container's ioctls expects a translation.

    EINVAL from SET_CONTAINER, iommufd_vfio_compat_set_no_iommu(); EPERM from GET_DEVICE_FD,
    vfio_df_group_open().
    """
    if not process.exists(Iommufd.PATH):
        raise not_applicable(f"this kernel has no {Iommufd.PATH}")

    with Iommufd.open(process, Iommufd.PATH) as iommufd, Group.open(process, group_path) as group:
        ioas = iommufd.ioas_alloc()

        def serve(op: VfioIoasOp) -> None:
            iommufd.call(IommufdRequest.IOMMU_VFIO_IOAS, IommuVfioIoas(op=op, ioas_id=ioas))

        serve(VfioIoasOp.IOMMU_VFIO_IOAS_SET)
        with raises_errno(EINVAL):
            group.set_container(iommufd)
        serve(VfioIoasOp.IOMMU_VFIO_IOAS_CLEAR)
        group.set_container(iommufd)
        serve(VfioIoasOp.IOMMU_VFIO_IOAS_SET)
        # closed where it opens: the driver's unbind would wait for it
        with raises_errno(EPERM), group.get_device(edu.address):
            pass
        serve(VfioIoasOp.IOMMU_VFIO_IOAS_CLEAR)
        with group.get_device(edu.address) as device:
            device.info()
