# SPDX-License-Identifier: GPL-2.0-only
"""OWN-6, OWN-7 and OWN-13: what a call that fails leaves behind, which is nothing.

Source: drivers/vfio/group.c, vfio_group_ioctl_get_device_fd(), and drivers/vfio/device_cdev.c,
vfio_df_ioctl_bind_iommufd(). A failure is repeated: one lost reference may hide, dozens do not.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import (
    E2BIG,
    EADDRINUSE,
    EBADF,
    EBADFD,
    EFAULT,
    EINVAL,
    EMFILE,
    ENODEV,
    ENOTTY,
    EPERM,
)
from mmap import PROT_READ
from resource import RLIMIT_NOFILE
from struct import pack, unpack

import pytest

from lab.agent.agent import Argument
from lab.agent.calls import close, openat, write_file
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm, Program
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.device import CDEVS, VFIO_PCI, Device
from lab.vfio.edu import edu_of
from lab.vfio.files import Cdev, Group, Iommufd
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
from lab.vfio.uapi import (
    DeviceRequest,
    GroupRequest,
    VfioDeviceAttachIommufdPt,
    VfioDeviceBindIommufd,
    VfioDeviceDetachIommufdPt,
    VfioGroupStatus,
)

TRIES = 32
MSI_WINDOW = 0xFEE0_0000
TOKEN = "3a9f6e0c-5b1d-4c7e-8f20-6d4b1a2c3e5f"
SOON = 5.0  # seconds
FILES = 512  # many more than the error of the kernel's count of them, which it keeps per processor


# OWN-6


def _lowest_free_fd(process: Process) -> int:
    """What the next open would return. An fd that is reserved but has no file counts as used."""
    with process.eventfd() as file:
        return file.fd


@contextmanager
def _no_fd_is_left(process: Process) -> Iterator[None]:
    """The process has the same fds after the block as before it.

    /proc/self/fd does not show an fd that was taken by get_unused_fd_flags() and never given
    back; the number of the next one does.
    """
    files, lowest = process.fds(), _lowest_free_fd(process)
    yield
    assert process.fds() == files, "an fd was installed"
    assert _lowest_free_fd(process) == lowest, "an fd is reserved and has no file"


def _fails_without_a_trace(group: Group, name: str, errno: int) -> None:
    with _no_fd_is_left(group.process):
        for _ in range(TRIES):
            with raises_errno(errno):
                group.get_device(name)


def _succeeds_with_one_fd(group: Group, device: Device) -> None:
    """The correct call, which is also the control: an fd that is there is seen."""
    process = group.process
    before, next_one = process.fds(), _lowest_free_fd(process)
    with group.get_device(device.address) as file:
        assert file.fd == next_one
        assert process.fds().keys() - before.keys() == {file.fd}
        assert _lowest_free_fd(process) > next_one
        file.info()


@contract("OWN-6", *GROUP_MODES)
def test_no_fd_without_a_container(process: Process, edu: Device, mode: Mode) -> None:
    """group.c: vfio_df_group_open(), `vfio_group_has_iommu`."""
    with open_container(process, mode) as container, edu.open_group(process) as group:
        _fails_without_a_trace(group, edu.address, EINVAL)
        group.set_container(container)
        container.set_iommu(IOMMU_TYPES[mode])
        _succeeds_with_one_fd(group, edu)


@contract("OWN-6", *CONTAINER_MODES)
def test_no_fd_without_set_iommu(process: Process, edu: Device, mode: Mode) -> None:
    """container.c: vfio_group_use_container(), `iommu_driver`."""
    with open_container(process, mode) as container, edu.open_group(process) as group:
        group.set_container(container)
        _fails_without_a_trace(group, edu.address, EINVAL)
        container.set_iommu(IOMMU_TYPES[mode])
        _succeeds_with_one_fd(group, edu)


@contract("OWN-6", *GROUP_MODES)
@pytest.mark.parametrize(
    ("name", "errno"),
    [
        pytest.param("0000:ff:1f.7", ENODEV, id="unknown-name"),
        pytest.param("", ENODEV, id="empty-name"),
        pytest.param("{address}0", ENODEV, id="longer-name"),
        pytest.param("{other}", ENODEV, id="device-of-another-group"),
        pytest.param("{address} junk", EINVAL, id="junk-after-the-name"),
        pytest.param(f"{{address}} vf_token={TOKEN}", EINVAL, id="token-of-no-use"),
        pytest.param("{address} vf_token=", EINVAL, id="token-that-is-none"),
    ],
)
def test_no_fd_for_a_wrong_name(
    process: Process, edu: Device, resettable: Device, mode: Mode, name: str, errno: int
) -> None:
    """group.c: vfio_device_get_from_name(); vfio_pci_core.c: vfio_pci_core_match()."""
    with joined_group(process, edu, mode) as (_, group):
        wrong = name.format(address=edu.address, other=resettable.address)
        _fails_without_a_trace(group, wrong, errno)
        _succeeds_with_one_fd(group, edu)


@contract("OWN-6", *COMPAT_MODES)
def test_no_fd_while_somebody_else_owns_the_group(
    process: Process, hands: Process, sibling: Device, rng: Device, mode: Mode
) -> None:
    """vfio_main.c: vfio_df_device_first_open() fails; with a container it never gets there."""
    assert rng.driver(hands) == "virtio-pci"
    with joined_group(process, sibling, mode) as (_, group):
        _fails_without_a_trace(group, sibling.address, EPERM)
        with rng.driven_by(hands, None):
            _succeeds_with_one_fd(group, sibling)


@contextmanager
def _no_free_fd(process: Process) -> Iterator[None]:
    """The lowest number that is free is the limit, so no fd can be had."""

    def limit(new: bytes | int) -> tuple[int, int]:
        old = bytearray(16)
        process.syscall(Syscall.PRLIMIT64, 0, RLIMIT_NOFILE, new, old, what="RLIMIT_NOFILE")
        soft, hard = unpack("<QQ", old)
        return soft, hard

    soft, hard = limit(0)
    limit(pack("<QQ", _lowest_free_fd(process), hard))
    try:
        yield
    finally:
        limit(pack("<QQ", soft, hard))


@contract("OWN-6", *GROUP_MODES)
def test_no_fd_when_the_table_is_full(process: Process, edu: Device, mode: Mode) -> None:
    """group.c: get_unused_fd_flags() comes before the device is opened."""
    with joined_group(process, edu, mode) as (_, group):
        with _no_fd_is_left(process), _no_free_fd(process):
            for _ in range(TRIES):
                with raises_errno(EMFILE):
                    group.get_device(edu.address)
        _succeeds_with_one_fd(group, edu)


@contract("OWN-6", *COMPAT_MODES)
def test_no_fd_for_a_device_that_cannot_be_attached(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_df_group_open(), `out_close_device`: the device is open when its MSI window turns out
    to be mapped, iopt_table_enforce_dev_resv_regions()."""
    with (
        joined_group(process, edu, mode) as (container, group),
        process.mmap(process.page_size) as page,
    ):
        ContainerSpace(container).map(MSI_WINDOW, page)
        _fails_without_a_trace(group, edu.address, EADDRINUSE)
        ContainerSpace(container).unmap(MSI_WINDOW, page.length)
        _succeeds_with_one_fd(group, edu)


@contract("OWN-6", *GROUP_MODES)
def test_device_that_was_not_handed_out_can_go(
    process: Process, new_process: Callable[[], Process], hands: Process, edu: Device, mode: Mode
) -> None:
    """vfio_group_ioctl_get_device_fd(), `err_put_device`: vfio_unregister_group_dev() would wait
    for each reference to the device that a failure has left."""
    with edu.open_group(process) as group, raises_errno(EINVAL):
        group.get_device(edu.address)
    with (
        joined_group(process, edu, mode) as (_, group),
        _no_free_fd(process),
        raises_errno(EMFILE),
    ):
        group.get_device(edu.address)
    unbind = write_file(f"{edu.sysfs}/driver/unbind", edu.address.encode())
    going = new_process().start(Program(setup=unbind), timeout=60)
    assert going.done(within=SOON), "the driver cannot let the device go"
    edu.set_driver(hands, VFIO_PCI)


# OWN-13 and OWN-7


@dataclass(frozen=True)
class Stage:
    """What bad calls are made of. Numbers are fds, but for the address of a page.

    The page holds a correct request. The kernel can read it and cannot write there.
    """

    cdev: Cdev
    iommufd: Iommufd
    null: int
    closed: int
    read_only: int


@contextmanager
def _stage(process: Process, device: Device) -> Iterator[Stage]:
    with (
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        device.open_cdev(process) as cdev,
        process.open("/dev/null") as null,
        process.mmap(process.page_size) as page,
    ):
        page.write(0, bytes(VfioDeviceBindIommufd(iommufd=iommufd.fd)))
        process.syscall(Syscall.MPROTECT, page.address, page.length, PROT_READ)
        yield Stage(cdev, iommufd, null.fd, _lowest_free_fd(process), page.address)


@dataclass(frozen=True)
class BadBind:
    """A BIND that has to fail, by its argument: a structure, or an address."""

    name: str
    errno: int
    argument: Callable[[Stage], Argument]

    def __str__(self) -> str:
        return self.name


def _request(iommufd: int, **members: int) -> VfioDeviceBindIommufd:
    return VfioDeviceBindIommufd(iommufd=iommufd, **members)


BAD_BINDS = (
    BadBind("iommufd-minus-one", EINVAL, lambda _: _request(-1)),
    BadBind("closed-iommufd", EBADF, lambda stage: _request(stage.closed)),
    BadBind("dev-null", EBADFD, lambda stage: _request(stage.null)),
    BadBind("unknown-flag", EINVAL, lambda stage: _request(stage.iommufd.fd, flags=1 << 31)),
    BadBind("small-argsz", EINVAL, lambda stage: _request(stage.iommufd.fd, argsz=15)),
    BadBind("NULL", EFAULT, lambda _: 0),
)
READ_ONLY = BadBind("read-only-argument", EFAULT, lambda stage: stage.read_only)
"""Fails when the device is open already: copy_to_user() of its id."""


@contract("OWN-13", Mode.IOMMUFD)
@pytest.mark.parametrize("bad", BAD_BINDS, ids=str)
def test_bad_argument_of_bind_is_refused(process: Process, edu: Device, bad: BadBind) -> None:
    """The errno says what was wrong: vfio_df_ioctl_bind_iommufd(), iommufd_ctx_from_fd()."""
    with _stage(process, edu) as stage, raises_errno(bad.errno):
        stage.cdev.call(DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, bad.argument(stage))


@contract("OWN-13", Mode.IOMMUFD)
@pytest.mark.parametrize("last", [0, 1], ids=["zero", "not-zero"])
def test_tail_of_bind_must_be_zero(
    process: Process,
    edu: Device,
    release: tuple[int, int],
    record_property: Callable[[str, object], None],
    last: int,
) -> None:
    """A kernel that takes a longer structure than this one (6.17) looks behind what it knows."""
    mended = release >= (6, 17)
    allowed = {0} if last == 0 else {E2BIG} if mended else {0, E2BIG}
    with _stage(process, edu) as stage:
        request = bytes(_request(stage.iommufd.fd, argsz=64)).ljust(63, b"\0") + bytes([last])
        bind = Imm(DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD)
        call = Call(Syscall.IOCTL, (Imm(stage.cdev.fd), bind, Buf(request)))
        result = process.batch([call])[0]
        assert result.errno in allowed
        if result.ok:
            stage.cdev.info()
            return
        with raises_errno(EINVAL):
            stage.cdev.info()
        if not mended:
            record_property("mended", "E2BIG, as from 6.17 on")


@contract("OWN-13", *GROUP_MODES)
def test_file_of_the_group_flow_cannot_be_bound(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """device_cdev.c: "only allowed for cdev fds"; vfio.h: a kernel without them has no BIND."""
    errno = EINVAL if hands.exists(CDEVS) else ENOTTY
    path = Iommufd.PATH if hands.exists(Iommufd.PATH) else "/dev/null"
    with open_device(process, edu, mode) as opened, process.open(path) as iommufd:
        with raises_errno(errno):
            opened.device.call(
                DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, VfioDeviceBindIommufd(iommufd=iommufd.fd)
            )
        opened.device.info()


@contract("OWN-13", *GROUP_MODES)
def test_file_of_the_group_flow_has_no_attach(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_main.c: vfio_device_fops_unl_ioctl(), "cdev only ioctls"."""
    with open_device(process, edu, mode) as opened:
        with raises_errno(ENOTTY):
            opened.device.call(
                DeviceRequest.VFIO_DEVICE_ATTACH_IOMMUFD_PT, VfioDeviceAttachIommufdPt(pt_id=1)
            )
        with raises_errno(ENOTTY):
            opened.device.call(
                DeviceRequest.VFIO_DEVICE_DETACH_IOMMUFD_PT, VfioDeviceDetachIommufdPt()
            )
        opened.device.info()


@contract("OWN-13", *GROUP_MODES)
def test_status_needs_room_for_its_answer(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_group_ioctl_get_status(): EINVAL for an argsz that does not hold the flags."""
    with joined_group(process, edu, mode) as (_, group):
        short = VfioGroupStatus(argsz=ctypes.sizeof(VfioGroupStatus) - 1)
        with raises_errno(EINVAL):
            group.call(GroupRequest.VFIO_GROUP_GET_STATUS, short)
        group.status()


@contract("OWN-7", Mode.IOMMUFD)
@pytest.mark.parametrize("bad", [*BAD_BINDS, READ_ONLY], ids=str)
def test_failed_bind_leaves_the_file_parked_and_retryable(
    process: Process, hands: Process, edu: Device, bad: BadBind
) -> None:
    """vfio_df_ioctl_bind_iommufd(): every label of its way out, in turn."""
    with _stage(process, edu) as stage:
        for _ in range(TRIES):
            with raises_errno(bad.errno):
                stage.cdev.call(DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, bad.argument(stage))
        with raises_errno(EINVAL):
            stage.cdev.info()
        _group_opens(process, hands, edu)
        stage.cdev.bind(stage.iommufd)
        with edu_of(stage.cdev) as registers:
            assert registers.inverted(0) == 0xFFFF_FFFF
        stage.cdev.close()
        _group_opens(process, hands, edu)


def _group_opens(process: Process, hands: Process, device: Device) -> None:
    """Nothing holds the group off, if this kernel has groups at all."""
    if hands.exists(device.group_path(hands)):
        device.open_group(process).close()


def _open_files(hands: Process) -> int:
    """Of the whole guest, also those that only the kernel knows of."""
    return int(hands.read_text("/proc/sys/fs/file-nr").split()[0])


@contract("OWN-7", Mode.IOMMUFD)
@pytest.mark.parametrize("taken", [False, True], ids=["read-only-argument", "device-is-taken"])
def test_failed_bind_lets_go_of_the_iommufd(
    process: Process, hands: Process, edu: Device, taken: bool
) -> None:
    """`out_put_kvm`: the reference is given back, so closing the iommufd frees it."""
    with (
        Iommufd.open(process, Iommufd.PATH) as owners,
        edu.open_cdev(process) as owner,
        edu.open_cdev(process) as cdev,
        process.mmap(process.page_size) as page,
    ):
        if taken:
            owner.bind(owners)
        # The iommufd that each round opens gets the lowest number.
        page.write(0, bytes(_request(_lowest_free_fd(process))))
        process.syscall(Syscall.MPROTECT, page.address, page.length, PROT_READ)
        request = Imm(DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD)
        bind = Call(Syscall.IOCTL, (Imm(cdev.fd), request, Imm(page.address)))
        before = _open_files(hands)
        program = Program(setup=(openat(Iommufd.PATH), bind, close()), rounds=FILES)
        results = [each.setup for each in process.run(program, timeout=120.0).rounds]
        assert {bound.errno for _, bound, _ in results} == {EINVAL if taken else EFAULT}
        assert _open_files(hands) - before < FILES // 2
        process.run(Program(setup=(openat(Iommufd.PATH),), rounds=FILES))
        assert _open_files(hands) - before > FILES // 2
