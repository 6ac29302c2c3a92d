# SPDX-License-Identifier: GPL-2.0-only
"""CON: the container of the group flow, type1's own or an iommufd that plays its part.

Source: drivers/vfio/container.c, drivers/vfio/group.c and drivers/iommu/iommufd/vfio_compat.c.
"""

from contextlib import ExitStack
from errno import EBADF, EBADFD, EBUSY, EINVAL, ENODEV

import pytest

from lab.agent.process import Process
from lab.contract import Mode
from lab.expected import Announced
from lab.testing import contract, raises_errno
from lab.vfio.device import Device, pinned_pages
from lab.vfio.edu import edu_of
from lab.vfio.files import Iommufd
from lab.vfio.modes import (
    COMPAT_MODES,
    CONTAINER_MODES,
    GROUP_MODES,
    IOMMU_TYPES,
    ContainerSpace,
    joined_group,
    open_container,
    open_device,
)
from lab.vfio.uapi import ContainerRequest, Extension, GroupRequest, IommuType

IOVA = 0x10_0000
UNKNOWN_TYPE = 99


@contract("CON-1", *GROUP_MODES)
def test_check_extension_before_set_iommu(
    process: Process, mode: Mode, release: tuple[int, int]
) -> None:
    """container.c: vfio_container_ioctl_check_extension() asks every driver that it has. The
    interface has a version, VFIO_API_VERSION.

    An iommufd has no address space for it before a group has joined: ENODEV for coherency.
    """
    nesting = (0,) if mode in COMPAT_MODES or release >= (6, 13) else (0, 1)
    with open_container(process, mode) as container:
        assert container.call(ContainerRequest.VFIO_GET_API_VERSION) == 0
        for there in (*IommuType, Extension.VFIO_UNMAP_ALL):
            assert container.check_extension(there) == 1
        assert container.check_extension(Extension.VFIO_TYPE1_NESTING_IOMMU) in nesting
        expected = 1 if mode in COMPAT_MODES else 0
        assert container.check_extension(Extension.VFIO_NOIOMMU_IOMMU) == expected
        assert container.check_extension(Extension.VFIO_UPDATE_VADDR) == 0
        if mode in COMPAT_MODES:
            with raises_errno(ENODEV):
                container.check_extension(Extension.VFIO_DMA_CC_IOMMU)
        else:
            assert container.check_extension(Extension.VFIO_DMA_CC_IOMMU) == 0


@contract("CON-2", *GROUP_MODES)
def test_set_iommu_needs_a_group(process: Process, edu: Device, mode: Mode) -> None:
    """EINVAL from a container, ENODEV from an iommufd; with a group it succeeds."""
    kind = IOMMU_TYPES[mode]
    with open_container(process, mode) as container:
        with raises_errno(ENODEV if mode in COMPAT_MODES else EINVAL):
            container.set_iommu(kind)
        with edu.open_group(process) as group:
            group.set_container(container)
            container.set_iommu(kind)


@contract("CON-2", *GROUP_MODES)
@pytest.mark.parametrize("kind", [UNKNOWN_TYPE, Extension.VFIO_TYPE1_NESTING_IOMMU])
def test_set_iommu_needs_a_type_that_the_kernel_has(
    process: Process, edu: Device, mode: Mode, kind: int, release: tuple[int, int]
) -> None:
    """ENODEV: no driver of a container takes it; EINVAL from an iommufd, and from 6.12's type1
    for nesting, which it still knows and the virtual IOMMU has not."""
    expected = [EINVAL if mode in COMPAT_MODES else ENODEV]
    if kind != UNKNOWN_TYPE and release < (6, 13):
        expected.append(EINVAL)
    with open_container(process, mode) as container, edu.open_group(process) as group:
        group.set_container(container)
        with raises_errno(*expected):
            container.call(ContainerRequest.VFIO_SET_IOMMU, kind)
        container.set_iommu(IOMMU_TYPES[mode])


@contract("CON-2", *GROUP_MODES)
def test_nothing_is_mapped_before_set_iommu(process: Process, edu: Device, mode: Mode) -> None:
    """EINVAL without a driver: container.c: vfio_fops_unl_ioctl(). An iommufd has no address space
    before a group has joined: ENODEV."""
    errno = ENODEV if mode in COMPAT_MODES else EINVAL
    with (
        open_container(process, mode) as container,
        edu.open_group(process) as group,
        process.mmap(4096) as page,
    ):
        space = ContainerSpace(container)
        with raises_errno(errno):
            space.map(IOVA, page)
        group.set_container(container)
        if mode in CONTAINER_MODES:
            with raises_errno(errno):
                space.map(IOVA, page)
        container.set_iommu(IOMMU_TYPES[mode])
        space.map(IOVA, page)


@contract("CON-2", *CONTAINER_MODES)
def test_a_container_sets_its_iommu_once(process: Process, edu: Device, mode: Mode) -> None:
    """container.c: vfio_ioctl_set_iommu(), `container->iommu_driver`."""
    with joined_group(process, edu, mode) as (container, _):
        for kind in IommuType:
            with raises_errno(EINVAL):
                container.set_iommu(kind)


@contract("CON-2", *COMPAT_MODES)
def test_an_iommufd_may_set_its_type_again(process: Process, edu: Device, mode: Mode) -> None:
    """Type1 after type1v2 only while no device sees a mapping: iopt_disable_large_pages()."""
    with (
        joined_group(process, edu, mode) as (container, group),
        group.get_device(edu.address),
        process.mmap(4096) as page,
    ):
        container.set_iommu(IOMMU_TYPES[mode])
        container.set_iommu(IommuType.VFIO_TYPE1v2_IOMMU)
        space = ContainerSpace(container)
        space.map(IOVA, page)
        if mode is Mode.COMPAT_TYPE1V2:
            with raises_errno(EINVAL):
                container.set_iommu(IommuType.VFIO_TYPE1_IOMMU)
        space.unmap(IOVA, page.length)
        container.set_iommu(IommuType.VFIO_TYPE1_IOMMU)


@contract("CON-3", *GROUP_MODES)
def test_set_container_takes_a_container_once(process: Process, edu: Device, mode: Mode) -> None:
    """group.c: vfio_group_ioctl_set_container()."""
    with ExitStack() as stack:
        group = stack.enter_context(edu.open_group(process))
        container = stack.enter_context(open_container(process, mode))
        closed = process.open("/dev/null").detach()
        process.adopt(closed, "a closed file").close()
        with raises_errno(EBADF):
            group.call(GroupRequest.VFIO_GROUP_SET_CONTAINER, closed.to_bytes(4, "little"))
        with raises_errno(EBADFD):
            group.set_container(stack.enter_context(process.open("/dev/null")))
        group.set_container(container)
        with raises_errno(EINVAL):
            group.set_container(container)
        with raises_errno(EINVAL):
            group.set_container(stack.enter_context(open_container(process, mode)))


@contract("CON-4", *GROUP_MODES)
def test_unset_container_needs_one(process: Process, edu: Device, mode: Mode) -> None:
    """EINVAL with none; 0 with one; EINVAL again."""
    with edu.open_group(process) as group, open_container(process, mode) as container:
        with raises_errno(EINVAL):
            group.unset_container()
        group.set_container(container)
        group.unset_container()
        with raises_errno(EINVAL):
            group.unset_container()


@contract("CON-4", *GROUP_MODES)
def test_unset_container_with_a_device_open(process: Process, edu: Device, mode: Mode) -> None:
    """EBUSY from type1, `container_users`; an iommufd is held by the device itself: 0."""
    with (
        joined_group(process, edu, mode) as (_, group),
        group.get_device(edu.address) as device,
    ):
        if mode in CONTAINER_MODES:
            with raises_errno(EBUSY):
                group.unset_container()
            device.close()
        group.unset_container()
        if mode in COMPAT_MODES:
            device.info()


@contract("CON-4", *CONTAINER_MODES)
def test_unset_container_waits_for_every_device(
    process: Process,
    hands: Process,
    sibling: Device,
    other_sibling: Device,
    rng: Device,
    mode: Mode,
) -> None:
    """container.c: vfio_group_use_container() counts the group's devices: EBUSY until the last one
    is closed."""
    with (
        rng.driven_by(hands, None),
        joined_group(process, sibling, mode) as (_, group),
        group.get_device(sibling.address) as first,
        group.get_device(other_sibling.address) as second,
    ):
        with raises_errno(EBUSY):
            group.unset_container()
        first.close()
        with raises_errno(EBUSY):
            group.unset_container()
        second.info()
        second.close()
        group.unset_container()


@contract("CON-4", *GROUP_MODES)
def test_unset_container_is_as_new_and_so_is_the_group(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """container.c: vfio_group_detach_container() takes the IOMMU and its mappings away with the
    last group; an iommufd keeps them, as long as its own file is open."""
    before = pinned_pages(hands)
    with joined_group(process, edu, mode) as (container, group), process.mmap(4096) as page:
        with group.get_device(edu.address):
            ContainerSpace(container).map(IOVA, page)
            assert pinned_pages(hands) == before + 1
        group.unset_container()
        if mode in CONTAINER_MODES:
            assert pinned_pages(hands) == before
            with raises_errno(EINVAL):
                container.set_iommu(IOMMU_TYPES[mode])
        group.set_container(container)
        container.set_iommu(IOMMU_TYPES[mode])
        with group.get_device(edu.address):
            place = IOVA if mode in CONTAINER_MODES else 2 * IOVA
            ContainerSpace(container).map(place, page)
        group.unset_container()
        container.close()
        assert pinned_pages(hands) == before


@contract("CON-4", *COMPAT_MODES)
def test_unset_container_gives_the_iommufd_back(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """iommufd_ctx_put(): what was mapped goes with the file. A page table that user space made
    keeps it pinned till then; the first objects are the IOAS and the device, in this order."""
    before = pinned_pages(hands)
    with (
        edu.open_group(process) as group,
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        process.mmap(4096) as page,
    ):
        group.set_container(iommufd)
        with group.get_device(edu.address):
            ioas, device = 1, 2
            iommufd.hwpt_alloc(device, ioas)
            iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        assert pinned_pages(hands) == before + 1
        group.unset_container()
        iommufd.close()
        assert pinned_pages(hands) == before, f"{mode}: somebody holds the iommufd"


@contract("CON-5", *GROUP_MODES)
@pytest.mark.parametrize("first_goes", [True, False], ids=["first-leaves", "second-leaves"])
def test_two_groups_share_a_containers_mappings(
    expected: Announced,
    process: Process,
    edu: Device,
    resettable: Device,
    mode: Mode,
    first_goes: bool,
) -> None:
    """One map call serves both devices, whether it came before the second group or after it; one
    of them goes, and the other's DMA still works: vfio_iommu_type1_attach_group(). So does what it
    reserves, of which vfio_iommu_resv_refresh() takes stock again, and so does an unmap: the IOTLB
    is flushed as long as one is there, intel/cache.c: cache_tag_unassign()."""
    with ExitStack() as stack:
        container, group = stack.enter_context(joined_group(process, edu, mode))
        page = stack.enter_context(process.mmap(4096))
        ContainerSpace(container).map(IOVA, page)
        other_group = stack.enter_context(resettable.open_group(process))
        other_group.set_container(container)
        ContainerSpace(container).map(2 * IOVA, page)
        files = [group.get_device(edu.address), other_group.get_device(resettable.address)]
        for file in files:
            stack.enter_context(file)
            file.enable_dma()
        ranges = ContainerSpace(container).iova_ranges()
        for number, file in enumerate(files):
            with edu_of(file) as registers:
                page.write(0, b"shared %d" % number)
                registers.copy_in(IOVA, 8)
                registers.copy_out(2 * IOVA + 64, 8)
                assert page.read(64, 8) == b"shared %d" % number
        goes, stays = files if first_goes else reversed(files)
        goes.close()
        (group if first_goes else other_group).close()
        assert ContainerSpace(container).iova_ranges() == ranges
        with edu_of(stays) as registers:
            registers.copy_out(IOVA + 128, 8)
            assert page.read(128, 8).startswith(b"shared")
            assert ContainerSpace(container).unmap(IOVA, page.length) == page.length
            with expected.dma_faults(resettable if first_goes else edu):
                registers.copy_out(IOVA + 192, 8)
            assert page.read(192, 8) == bytes(8)


@contract("CON-5", *GROUP_MODES)
def test_mappings_live_as_long_as_the_device(process: Process, edu: Device, mode: Mode) -> None:
    """Neither closing the container's file nor the group's takes the address space away."""
    with open_device(process, edu, mode) as opened, process.mmap(4096) as page:
        opened.device.enable_dma()
        opened.space.map(IOVA, page)
        page.write(0, b"still there")
        assert isinstance(opened.space, ContainerSpace)
        opened.space.container.close()
        with edu_of(opened.device) as registers:
            registers.copy_in(IOVA, 11)
            registers.copy_out(IOVA + 64, 11)
        assert page.read(64, 11) == b"still there"
