# SPDX-License-Identifier: GPL-2.0-only
"""OWN-10 and OWN-11: what ownership means for the other devices of the IOMMU group.

Source: drivers/iommu/iommu.c, the group's `owner` and `owner_cnt`, and
drivers/iommu/iommufd/device.c, where a group's devices share one page table.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from errno import EBUSY, EINVAL, EPERM

import pytest

from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import edu_of
from lab.vfio.files import Cdev, DeviceFile, Iommufd
from lab.vfio.modes import CONTAINER_MODES, joined_group, open_device

IOVA = 0x10_0000
EVERYTHING = [(0, 2**64 - 1)]
HOST_DRIVER = "virtio-pci"


# OWN-10


def _probe_fails(hands: Process, device: Device) -> None:
    """Neither the bus, when it is asked to probe, nor the driver itself binds the device."""
    hands.write_text(f"{device.sysfs}/driver_override", f"{HOST_DRIVER}\n")
    with raises_errno(EINVAL):  # bus.c: drivers_probe_store(), whatever the probe returned
        hands.write_text("/sys/bus/pci/drivers_probe", device.address)
    with raises_errno(EBUSY):
        hands.write_text(f"/sys/bus/pci/drivers/{HOST_DRIVER}/bind", device.address)
    assert device.driver(hands) is None


@contract("OWN-10")
def test_no_host_driver_binds_in_an_owned_group(
    process: Process, hands: Process, sibling: Device, rng: Device, mode: Mode
) -> None:
    """iommu_device_use_default_domain(), before every probe. Released, the group takes a driver."""
    with rng.driven_by(hands, None):
        with open_device(process, sibling, mode):
            _probe_fails(hands, rng)
        rng.set_driver(hands, HOST_DRIVER)


@contract("OWN-10", Mode.IOMMUFD)
def test_bound_device_keeps_host_drivers_away_before_it_is_attached(
    process: Process, hands: Process, sibling: Device, rng: Device
) -> None:
    """The claim comes with BIND."""
    with (
        rng.driven_by(hands, None),
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        sibling.open_cdev(process) as cdev,
    ):
        cdev.bind(iommufd)
        _probe_fails(hands, rng)
        cdev.close()
        rng.set_driver(hands, HOST_DRIVER)


@contract("OWN-10", *CONTAINER_MODES)
def test_container_keeps_host_drivers_away_before_a_device_is_opened(
    process: Process, hands: Process, sibling: Device, rng: Device, mode: Mode
) -> None:
    """vfio_container_attach_group(): the claim comes with SET_CONTAINER."""
    with rng.driven_by(hands, None):
        with joined_group(process, sibling, mode):
            _probe_fails(hands, rng)
        rng.set_driver(hands, HOST_DRIVER)


@contract("OWN-10")
def test_kernel_does_not_take_an_owned_group_back(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """iommu_group_store_type(): EPERM for another default domain; before 6.5 EBUSY, for any driver.
    Without an owner it succeeds: test_dma_blocking.py."""
    with open_device(process, edu, mode), raises_errno(EPERM, EBUSY):
        hands.write_text(f"{edu.sysfs}/iommu_group/type", "identity")


# OWN-11


@pytest.fixture
def lone_siblings(hands: Process, rng: Device) -> Iterator[None]:
    """No host driver is in the siblings' group."""
    with rng.driven_by(hands, None):
        yield


@contextmanager
def _two_bound(
    process: Process, sibling: Device, other: Device
) -> Iterator[tuple[Iommufd, Cdev, Cdev]]:
    """Both devices of the group, bound to one iommufd and not attached."""
    with (
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        sibling.open_cdev(process) as first,
        other.open_cdev(process) as second,
    ):
        first.bind(iommufd)
        second.bind(iommufd)
        yield iommufd, first, second


@contract("OWN-11", Mode.IOMMUFD)
@pytest.mark.usefixtures("lone_siblings")
def test_group_has_one_iommufd(process: Process, sibling: Device, other_sibling: Device) -> None:
    """iommu_device_claim_dma_owner(): EPERM from another iommufd, and the same one succeeds."""
    with (
        Iommufd.open(process, Iommufd.PATH) as owner,
        Iommufd.open(process, Iommufd.PATH) as other,
        sibling.open_cdev(process) as first,
        other_sibling.open_cdev(process) as second,
    ):
        first.bind(owner)
        with raises_errno(EPERM):
            second.bind(other)
        with raises_errno(EINVAL):
            second.info()
        second.bind(owner)
        # The group belongs to the iommufd until the last of its devices has gone.
        first.close()
        with sibling.open_cdev(process) as again:
            with raises_errno(EPERM):
                again.bind(other)
            second.close()
            again.bind(other)


@contract("OWN-11", Mode.IOMMUFD)
@pytest.mark.usefixtures("lone_siblings")
def test_group_has_one_address_space(
    process: Process, sibling: Device, other_sibling: Device
) -> None:
    """iommufd_hw_pagetable_attach(): EINVAL for a second IOAS beside the first."""
    with _two_bound(process, sibling, other_sibling) as (iommufd, first, second):
        one, other = iommufd.ioas_alloc(), iommufd.ioas_alloc()
        first.attach(one)
        with raises_errno(EINVAL):
            second.attach(other)
        second.attach(one)
        second.detach_pt()
        first.detach_pt()
        second.attach(other)


@contract("OWN-11", Mode.IOMMUFD)
@pytest.mark.usefixtures("lone_siblings")
@pytest.mark.parametrize("first_goes", [True, False], ids=["first-closes", "second-detaches"])
def test_address_space_stays_until_the_groups_last_device_has_left_it(
    process: Process, sibling: Device, other_sibling: Device, first_goes: bool
) -> None:
    """iommufd_hw_pagetable_detach(): the group is detached with the last of `device_list`, whoever
    was attached first; what each device reserves goes with it."""
    with (
        _two_bound(process, sibling, other_sibling) as (iommufd, first, second),
        process.mmap(process.page_size) as page,
    ):
        ioas = iommufd.ioas_alloc()
        iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        first.attach(ioas)
        second.attach(ioas)
        stays = second if first_goes else first
        stays.enable_dma()
        if first_goes:
            first.close()
        else:
            second.detach_pt()
        assert _sees(stays, [page]) == [True]
        assert len(iommufd.iova_ranges(ioas)) == 2
        stays.detach_pt()
        assert iommufd.iova_ranges(ioas) == EVERYTHING


@contract("OWN-11", Mode.IOMMUFD)
@pytest.mark.usefixtures("lone_siblings")
def test_replacing_moves_the_whole_group(
    process: Process, sibling: Device, other_sibling: Device
) -> None:
    """iommufd_device_do_replace(): one device is attached anew, and the other one's DMA follows,
    with what it reserves."""
    with ExitStack() as stack:
        iommufd, first, second = stack.enter_context(_two_bound(process, sibling, other_sibling))
        pages = [stack.enter_context(process.mmap(process.page_size)) for _ in range(2)]
        spaces = [iommufd.ioas_alloc(), iommufd.ioas_alloc()]
        for ioas, page in zip(spaces, pages, strict=True):
            iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        for cdev in (first, second):
            cdev.attach(spaces[0])
            cdev.enable_dma()
        assert _sees(second, pages) == [True, False]
        first.attach(spaces[1])
        assert _sees(second, pages) == [False, True]
        assert iommufd.iova_ranges(spaces[0]) == EVERYTHING
        iommufd.destroy(spaces[0])
        first.detach_pt()
        assert len(iommufd.iova_ranges(spaces[1])) == 2
        second.detach_pt()
        assert iommufd.iova_ranges(spaces[1]) == EVERYTHING


def _sees(file: DeviceFile, pages: list[Mapping]) -> list[bool]:
    """Which of the pages the device writes to at IOVA."""
    for page in pages:
        page.write(0, b"host")
    with edu_of(file) as registers:
        registers.copy_out(IOVA, 4)
    return [page.read(0, 4) != b"host" for page in pages]
