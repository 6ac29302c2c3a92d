# SPDX-License-Identifier: GPL-2.0-only
"""OWN: who may drive a device, from when, until when.

Source: drivers/vfio/device_cdev.c, drivers/vfio/group.c and drivers/vfio/vfio_main.c. What happens
when two race for a device is in test_ownership_races.py, what happens to bad calls in
test_ownership_failures.py.
"""

from collections.abc import Callable
from contextlib import ExitStack
from errno import EBUSY, EINVAL, ENOTTY, EPERM
from select import POLLIN, POLLOUT
from struct import pack, unpack

import pytest

from lab.agent.process import Process
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract, not_applicable, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import edu_of
from lab.vfio.files import DeviceFile, Iommufd
from lab.vfio.modes import (
    COMPAT_MODES,
    CONTAINER_MODES,
    GROUP_MODES,
    ContainerSpace,
    has_type1,
    joined_group,
    open_container,
    open_device,
)
from lab.vfio.uapi import (
    DeviceRequest,
    Feature,
    FeatureFlag,
    GroupFlag,
    IrqSetFlag,
    PciIrq,
    VfioDeviceAttachIommufdPt,
    VfioDeviceFeature,
)

IOVA = 0x10_0000
NOBODY = -1  # instead of an eventfd

VIABLE = GroupFlag.VFIO_GROUP_FLAGS_VIABLE
CONTAINER_SET = GroupFlag.VFIO_GROUP_FLAGS_CONTAINER_SET

PROBE = (
    FeatureFlag.VFIO_DEVICE_FEATURE_PROBE
    | FeatureFlag.VFIO_DEVICE_FEATURE_SET
    | Feature.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY
)
TRIGGER = IrqSetFlag.VFIO_IRQ_SET_ACTION_TRIGGER

USES: dict[str, Callable[[DeviceFile], object]] = {
    "GET_INFO": lambda file: file.info(),
    "GET_REGION_INFO": lambda file: file.region(0),
    "GET_IRQ_INFO": lambda file: file.irq(PciIrq.VFIO_PCI_INTX_IRQ_INDEX),
    "SET_IRQS": lambda file: file.set_irqs(
        PciIrq.VFIO_PCI_REQ_IRQ_INDEX, TRIGGER, eventfds=[NOBODY]
    ),
    "FEATURE": lambda file: file.call(
        DeviceRequest.VFIO_DEVICE_FEATURE, VfioDeviceFeature(flags=PROBE)
    ),
    "GET_PCI_HOT_RESET_INFO": lambda file: file.hot_reset_info(),
    "read": lambda file: file.pread(4, 0),
    "write": lambda file: file.pwrite(b"\0\0\0\0", 4),
    "mmap": lambda file: file.mmap(4096).close(),
    "RESET": lambda file: file.reset(),
}
"""What works on an operational file of an edu that can be reset, and not on a parked one."""


@contract("OWN-1", Mode.IOMMUFD)
@pytest.mark.parametrize("use", USES)
def test_parked_file_can_only_bind(process: Process, resettable: Device, use: str) -> None:
    """EINVAL until BIND: vfio_main.c, the fops' `if (!access_granted)`."""
    with resettable.open_cdev(process) as cdev, Iommufd.open(process, Iommufd.PATH) as iommufd:
        with raises_errno(EINVAL):
            USES[use](cdev)
        cdev.bind(iommufd)
        USES[use](cdev)


@contract("OWN-1", Mode.IOMMUFD)
def test_parked_file_cannot_attach(process: Process, edu: Device) -> None:
    """ATTACH and DETACH come after the check of access, although they are the cdev's own."""
    with edu.open_cdev(process) as cdev, Iommufd.open(process, Iommufd.PATH) as iommufd:
        ioas = iommufd.ioas_alloc()
        with raises_errno(EINVAL):
            cdev.attach(ioas)
        with raises_errno(EINVAL):
            cdev.detach_pt()
        cdev.bind(iommufd)
        cdev.attach(ioas)
        cdev.detach_pt()


@contract("OWN-1", Mode.IOMMUFD)
def test_parked_file_is_no_way_to_a_device_that_another_has(
    process: Process, resettable: Device
) -> None:
    """Access is the file's, and not the device's: `df->access_granted`."""
    with (
        resettable.open_cdev(process) as owner,
        resettable.open_cdev(process) as parked,
        Iommufd.open(process, Iommufd.PATH) as iommufd,
    ):
        owner.bind(iommufd)
        ioas = iommufd.ioas_alloc()
        for use in USES.values():
            with raises_errno(EINVAL):
                use(parked)
            use(owner)
        owner.attach(ioas)
        with raises_errno(EINVAL):
            parked.attach(ioas)
        with raises_errno(EINVAL):
            parked.detach_pt()
        with raises_errno(EBUSY):
            iommufd.destroy(ioas)


@contract("OWN-1", Mode.IOMMUFD)
def test_parked_file_hides_which_requests_there_are(process: Process, edu: Device) -> None:
    """An unknown request is EINVAL like any other, and ENOTTY once bound."""
    with edu.open_cdev(process) as cdev, Iommufd.open(process, Iommufd.PATH) as iommufd:
        with raises_errno(EINVAL):
            cdev.call(DeviceRequest.UNKNOWN)
        cdev.bind(iommufd)
        with raises_errno(ENOTTY):
            cdev.call(DeviceRequest.UNKNOWN)


@contract("OWN-1", Mode.IOMMUFD)
def test_polling_a_parked_file_does_not_block(process: Process, edu: Device) -> None:
    """The fops have no poll: the file is ready, as poll(2) says of such files."""
    with edu.open_cdev(process) as cdev:
        pollfd = bytearray(pack("<ihh", cdev.fd, POLLIN | POLLOUT, 0))
        assert process.syscall(Syscall.POLL, pollfd, 1, 1000) == 1
        assert unpack("<ihh", pollfd)[2] == POLLIN | POLLOUT


@contract("OWN-1", *GROUP_MODES)
def test_group_flow_has_no_parked_state(process: Process, resettable: Device, mode: Mode) -> None:
    """vfio_df_group_open() grants access before the fd is installed."""
    with open_device(process, resettable, mode) as opened:
        for use in USES.values():
            use(opened.device)


@contract("OWN-2", Mode.IOMMUFD)
def test_opening_always_succeeds(process: Process, edu: Device) -> None:
    """Opened twice, and a third time while one of them is bound; the losers stay parked."""
    with (
        edu.open_cdev(process) as first,
        edu.open_cdev(process) as second,
        Iommufd.open(process, Iommufd.PATH) as iommufd,
    ):
        first.bind(iommufd)
        with edu.open_cdev(process) as third:
            for loser in (second, third):
                with raises_errno(EINVAL):
                    loser.info()
        first.info()


@contract("OWN-2", *GROUP_MODES)
@pytest.mark.usefixtures("both_flows")
def test_cdev_opens_while_the_group_is_in_use(process: Process, edu: Device, mode: Mode) -> None:
    """The open succeeds and the file is parked, for every use."""
    with open_device(process, edu, mode), edu.open_cdev(process) as cdev:
        for use in USES.values():
            with raises_errno(EINVAL):
                use(cdev)


@contract("OWN-2", *GROUP_MODES)
def test_group_opens_once(
    new_process: Callable[[], Process], process: Process, edu: Device, mode: Mode
) -> None:
    """group.c: vfio_group_fops_open(), `opened_file`; whoever asks, and until the last close."""
    with joined_group(process, edu, mode):
        for asker in (process, new_process()):
            with raises_errno(EBUSY):
                edu.open_group(asker)
    edu.open_group(process).close()


@contract("OWN-3", Mode.IOMMUFD)
@pytest.mark.parametrize("same_file", [True, False], ids=["same-file", "second-file"])
@pytest.mark.parametrize("same_context", [True, False], ids=["same-iommufd", "other-iommufd"])
def test_second_bind_is_refused_and_disturbs_nobody(
    process: Process, hands: Process, edu: Device, same_file: bool, same_context: bool
) -> None:
    """device_cdev.c: "one device cannot be bound twice"; vfio_main.c: vfio_df_open()."""
    with ExitStack() as stack:
        owner = stack.enter_context(edu.open_cdev(process))
        loser = owner if same_file else stack.enter_context(edu.open_cdev(process))
        iommufd = stack.enter_context(Iommufd.open(process, Iommufd.PATH))
        other = (
            iommufd if same_context else stack.enter_context(Iommufd.open(process, iommufd.PATH))
        )
        owner.bind(iommufd)
        with raises_errno(EINVAL):
            loser.bind(other)
        assert owner.info().num_regions == 9
        if loser is not owner:
            with raises_errno(EINVAL):
                loser.info()
            loser.close()
        with edu_of(owner) as registers:
            assert registers.inverted(0x1234_5678) == 0xEDCB_A987
        if hands.exists(edu.group_path(hands)):
            with raises_errno(EBUSY):
                edu.open_group(process)


@contract("OWN-3", *GROUP_MODES)
@pytest.mark.parametrize("first_goes", [False, True], ids=["second-goes", "first-goes"])
def test_group_flow_keeps_multi_open(
    process: Process, edu: Device, mode: Mode, first_goes: bool
) -> None:
    """A second GET_DEVICE_FD of a device succeeds, and closing one leaves the other."""
    with (
        joined_group(process, edu, mode) as (_, group),
        group.get_device(edu.address) as first,
        group.get_device(edu.address) as second,
    ):
        goes, stays = (first, second) if first_goes else (second, first)
        for file in (goes, stays):
            with edu_of(file) as registers:
                assert registers.inverted(0) == 0xFFFF_FFFF
        goes.close()
        with edu_of(stays) as registers:
            assert registers.inverted(0) == 0xFFFF_FFFF


@contract("OWN-5", *GROUP_MODES)
@pytest.mark.usefixtures("both_flows")
def test_bind_is_refused_while_the_group_is_in_use(
    process: Process, edu: Device, mode: Mode
) -> None:
    """group.c: vfio_device_block_group(). Afterwards the same file binds."""
    with edu.open_cdev(process) as cdev, Iommufd.open(process, Iommufd.PATH) as iommufd:
        with open_device(process, edu, mode) as opened:
            with raises_errno(EBUSY):
                cdev.bind(iommufd)
            opened.device.info()
        cdev.bind(iommufd)


@contract("OWN-5", Mode.IOMMUFD)
@pytest.mark.usefixtures("both_flows")
def test_bind_is_refused_while_the_group_is_merely_open(process: Process, edu: Device) -> None:
    """An open group excludes the cdev before it has a container."""
    with edu.open_cdev(process) as cdev, Iommufd.open(process, Iommufd.PATH) as iommufd:
        with edu.open_group(process), raises_errno(EBUSY):
            cdev.bind(iommufd)
        cdev.bind(iommufd)


@contract("OWN-5", Mode.IOMMUFD)
@pytest.mark.usefixtures("both_flows")
def test_bound_device_keeps_its_whole_group_from_being_opened(
    process: Process, hands: Process, sibling: Device, other_sibling: Device, rng: Device
) -> None:
    """group.c: vfio_group_fops_open(), `cdev_device_open_cnt`; it counts every device."""
    with rng.driven_by(hands, "vfio-pci"), Iommufd.open(process, Iommufd.PATH) as iommufd:
        with sibling.open_cdev(process) as first, other_sibling.open_cdev(process) as second:
            first.bind(iommufd)
            with raises_errno(EBUSY):
                sibling.open_group(process)
            second.bind(iommufd)
            first.close()
            with raises_errno(EBUSY):
                sibling.open_group(process)
        sibling.open_group(process).close()


@contract("OWN-8", *COMPAT_MODES)
def test_get_device_fd_attaches_without_set_iommu(
    process: Process, edu: Device, mode: Mode
) -> None:
    """group.c: vfio_df_group_open() binds and attaches to the compat IOAS in one step."""
    with (
        open_container(process, mode) as container,
        edu.open_group(process) as group,
        process.mmap(process.page_size) as page,
    ):
        group.set_container(container)
        with group.get_device(edu.address) as device, edu_of(device) as registers:
            device.enable_dma()
            ContainerSpace(container).map(IOVA, page)
            page.write(0, b"at once")
            registers.copy_in(IOVA, 7)
            registers.copy_out(IOVA + 64, 7)
            assert page.read(64, 7) == b"at once"


@contract("OWN-8", *GROUP_MODES)
def test_get_device_fd_gives_a_device_that_does_dma(
    process: Process, edu: Device, mode: Mode
) -> None:
    """No further step lies between the fd and the first transfer."""
    with (
        open_device(process, edu, mode) as opened,
        edu_of(opened.device) as registers,
        process.mmap(process.page_size) as page,
    ):
        opened.space.map(IOVA, page)
        opened.device.enable_dma()
        page.write(0, b"at once")
        registers.copy_in(IOVA, 7)
        registers.copy_out(IOVA + 64, 7)
        assert page.read(64, 7) == b"at once"


@contract("OWN-8", Mode.IOMMUFD)
def test_bind_and_attach_are_separate(process: Process, edu: Device) -> None:
    """A bound device has no address space: its ATTACH still has to succeed, and can fail."""
    with Iommufd.open(process, Iommufd.PATH) as iommufd, edu.open_cdev(process) as cdev:
        device = cdev.bind(iommufd)
        ioas = iommufd.ioas_alloc()
        # An IOAS that something is attached to cannot be destroyed; this one can.
        iommufd.destroy(ioas)
        ioas = iommufd.ioas_alloc()
        cdev.attach(ioas)
        with raises_errno(EBUSY):
            iommufd.destroy(ioas)
        request = VfioDeviceAttachIommufdPt(pt_id=device)
        with raises_errno(EINVAL):
            cdev.call(DeviceRequest.VFIO_DEVICE_ATTACH_IOMMUFD_PT, request)


@contract("OWN-9", Mode.IOMMUFD)
def test_bind_is_refused_while_a_host_driver_has_a_sibling(
    process: Process, hands: Process, sibling: Device, rng: Device
) -> None:
    """drivers/iommu/iommu.c: iommu_device_claim_dma_owner(). EPERM, until the sibling is free."""
    assert rng.driver(hands) == "virtio-pci"
    with sibling.open_cdev(process) as cdev, Iommufd.open(process, Iommufd.PATH) as iommufd:
        with raises_errno(EPERM):
            cdev.bind(iommufd)
        with raises_errno(EINVAL):
            cdev.info()
        with rng.driven_by(hands, None):
            cdev.bind(iommufd)
            cdev.close()


@contract("OWN-9", *CONTAINER_MODES)
def test_container_refuses_a_group_that_a_host_driver_shares(
    process: Process, hands: Process, sibling: Device, rng: Device, mode: Mode
) -> None:
    """drivers/vfio/container.c: vfio_container_attach_group() claims the DMA of the group."""
    assert rng.driver(hands) == "virtio-pci"
    with sibling.open_group(process) as group, open_container(process, mode) as container:
        assert group.status() == 0
        with raises_errno(EPERM):
            group.set_container(container)
        with rng.driven_by(hands, None):
            assert group.status() == VIABLE
            group.set_container(container)
            assert group.status() == VIABLE | CONTAINER_SET
            group.unset_container()


@contract("OWN-9", *COMPAT_MODES)
def test_iommufd_refuses_a_device_whose_group_a_host_driver_shares(
    process: Process, hands: Process, sibling: Device, rng: Device, mode: Mode
) -> None:
    """The claim comes with GET_DEVICE_FD: the group calls itself viable until then.

    Source: group.c, the comment in vfio_group_ioctl_get_status().
    """
    assert rng.driver(hands) == "virtio-pci"
    with joined_group(process, sibling, mode) as (_, group):
        assert group.status() == VIABLE | CONTAINER_SET
        with raises_errno(EPERM):
            group.get_device(sibling.address)
        with rng.driven_by(hands, None):
            group.get_device(sibling.address).close()


@contract("OWN-9", *COMPAT_MODES)
def test_container_refuses_a_group_that_an_iommufd_owns(
    process: Process, edu: Device, mode: Mode
) -> None:
    """iommu_group_claim_dma_owner(): a device of an iommufd outlives its group's file, and so does
    the claim."""
    if not has_type1(process):
        raise not_applicable("this kernel has no type1")
    with (
        joined_group(process, edu, mode) as (_, group),
        group.get_device(edu.address) as device,
        open_container(process, Mode.TYPE1V2) as container,
    ):
        group.close()
        with edu.open_group(process) as again:
            assert again.status() == 0
            with raises_errno(EPERM):
                again.set_container(container)
            device.close()
            again.set_container(container)
