# SPDX-License-Identifier: GPL-2.0-only
"""OWN-12: a device is owned until the last reference to its file is gone, whoever holds it.

Source: drivers/vfio/vfio_main.c, vfio_device_fops_release(), which runs when the last of them
goes; drivers/vfio/container.c, vfio_group_use_container(), by which a type1 device holds its group.
"""

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EBUSY, EINVAL
from fcntl import F_GETFD, F_SETFD, FD_CLOEXEC
from itertools import permutations

import pytest

from lab.agent.calls import close, openat
from lab.agent.file import RemoteFile
from lab.agent.inherit import forked, receive_fd, send_fd, socket_between
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm, Reg
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract
from lab.vfio.device import CDEVS, Device
from lab.vfio.edu import edu_of
from lab.vfio.files import Cdev, Container, DeviceFile, Iommufd
from lab.vfio.modes import COMPAT_MODES, IOMMU_TYPES, Ioas, container_path, open_device
from lab.vfio.uapi import DeviceRequest, VfioDeviceBindIommufd

IOVA = 0x10_0000
BIND = DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD
DEVICE, GROUP, SPACE = (
    "device",
    "group",
    "space",
)  # a flow's files; the last is iommufd or container
NOTHING: Set[str] = frozenset()

Answers = tuple[int | None, int | None]
"""The errnos of opening the group and of binding a cdev: 0 is success, None no such flow."""


@dataclass(frozen=True)
class Outsider:
    """Another process, which tries to get the device in either flow this kernel has."""

    process: Process
    iommufd: RemoteFile | None
    group: str | None
    cdev: str | None

    def answers(self) -> Answers:
        """What it is told now. It keeps nothing."""
        opened, _, _, bound, _ = self.process.batch(
            [
                openat(self.group or ""),
                close(),
                openat(self.cdev or "", 1),
                Call(Syscall.IOCTL, (Reg(1), Imm(BIND), Buf(bytes(self._request())))),
                close(1),
            ]
        )
        return opened.errno if self.group else None, bound.errno if self.cdev else None

    def expected(self, mode: Mode, held: Set[str]) -> Answers:
        """What it has to be told while the flow's files in `held` are open somewhere.

        An open group refuses the other flow, EBUSY; an open device refuses a second owner,
        EINVAL. A type1 device keeps its group open, one of an iommufd container does not.
        """
        if mode is Mode.IOMMUFD:
            opening, binding = (EBUSY, EINVAL) if DEVICE in held else (0, 0)
        elif GROUP in held or (DEVICE in held and mode not in COMPAT_MODES):
            opening, binding = EBUSY, EBUSY
        else:
            opening, binding = 0, EINVAL if DEVICE in held else 0
        return opening if self.group else None, binding if self.cdev else None

    def _request(self) -> VfioDeviceBindIommufd:
        return VfioDeviceBindIommufd(iommufd=self.iommufd.fd if self.iommufd else -1)


@pytest.fixture
def outsider(hands: Process, edu: Device, new_process: Callable[[], Process]) -> Outsider:
    process, group = new_process(), edu.group_path(hands)
    return Outsider(
        process,
        process.open(Iommufd.PATH) if hands.exists(Iommufd.PATH) else None,
        group if hands.exists(group) else None,
        edu.cdev_path(hands) if hands.exists(CDEVS) else None,
    )


def _open_files(process: Process, device: Device, mode: Mode) -> dict[str, RemoteFile]:
    """The files of a flow by their part in it, with the device operational."""
    if mode is Mode.IOMMUFD:
        iommufd, cdev = Iommufd.open(process, Iommufd.PATH), device.open_cdev(process)
        cdev.bind(iommufd)
        return {SPACE: iommufd, DEVICE: cdev}
    container, group = (
        Container.open(process, container_path(process, mode)),
        device.open_group(process),
    )
    group.set_container(container)
    container.set_iommu(IOMMU_TYPES[mode])
    return {SPACE: container, GROUP: group, DEVICE: group.get_device(device.address)}


@contextmanager
def _only_the_device(process: Process, device: Device, mode: Mode) -> Iterator[DeviceFile]:
    """An operational device whose file is the only one of its flow that is still open."""
    files = _open_files(process, device, mode)
    file = files.pop(DEVICE)
    assert isinstance(file, DeviceFile)
    for other in files.values():
        other.close()
    yield file


@contract("OWN-12")
def test_closing_in_any_order(
    process: Process, outsider: Outsider, edu: Device, mode: Mode
) -> None:
    """Between two closes the answers are those that the files still open call for."""
    names = (SPACE, DEVICE) if mode is Mode.IOMMUFD else (SPACE, GROUP, DEVICE)
    for order in permutations(names):
        files = _open_files(process, edu, mode)
        for name in order:
            assert outsider.answers() == outsider.expected(mode, files.keys()), (order, name)
            files.pop(name).close()
        assert outsider.answers() == outsider.expected(mode, NOTHING), order


@contract("OWN-12", Mode.IOMMUFD)
def test_device_works_on_when_its_iommufd_is_closed(process: Process, edu: Device) -> None:
    """The device holds the iommufd, with all that is mapped in it."""
    with (
        open_device(process, edu, Mode.IOMMUFD) as opened,
        edu_of(opened.device) as registers,
        process.mmap(process.page_size) as page,
    ):
        opened.device.enable_dma()
        opened.space.map(IOVA, page)
        assert isinstance(opened.space, Ioas)
        opened.space.iommufd.close()
        page.write(0, b"still there")
        registers.copy_in(IOVA, 11)
        registers.copy_out(IOVA + 64, 11)
        assert page.read(64, 11) == b"still there"


@contract("OWN-12")
def test_duplicate_keeps_the_device(
    process: Process, outsider: Outsider, edu: Device, mode: Mode
) -> None:
    """dup(2): closing the one leaves the other, which works."""
    with _only_the_device(process, edu, mode) as device:
        copy = DeviceFile(process, process.syscall(Syscall.DUP, device.fd), "a duplicate")
        device.close()
        assert outsider.answers() == outsider.expected(mode, {DEVICE})
        copy.info()
        copy.close()
    assert outsider.answers() == outsider.expected(mode, NOTHING)


@contract("OWN-12")
def test_mapping_keeps_the_device(
    process: Process, outsider: Outsider, edu: Device, mode: Mode
) -> None:
    """A BAR that is mapped is a reference to the file, too."""
    with _only_the_device(process, edu, mode) as device, edu_of(device) as registers:
        device.close()
        assert outsider.answers() == outsider.expected(mode, {DEVICE})
        assert registers.inverted(0) == 0xFFFF_FFFF
    assert outsider.answers() == outsider.expected(mode, NOTHING)


@contract("OWN-12")
def test_child_keeps_the_device(
    process: Process, outsider: Outsider, edu: Device, mode: Mode
) -> None:
    """fork(2): the child's copy of the file counts, until the child is gone."""
    with _only_the_device(process, edu, mode) as device, forked(process):
        device.close()
        assert outsider.answers() == outsider.expected(mode, {DEVICE})
    assert outsider.answers() == outsider.expected(mode, NOTHING)


@contract("OWN-12")
def test_device_travels_to_another_process(
    process: Process,
    new_process: Callable[[], Process],
    outsider: Outsider,
    edu: Device,
    mode: Mode,
) -> None:
    """SCM_RIGHTS: it is owned on its way, when nobody has it in a table, and works on arrival.

    Killing the process that opened it makes no difference any more.
    """
    receiver = new_process()
    with socket_between(process, receiver) as (near, far):
        with _only_the_device(process, edu, mode) as device:
            send_fd(near, device.fd)
            device.close()
        assert outsider.answers() == outsider.expected(mode, {DEVICE})
        received = DeviceFile(receiver, receive_fd(far), "a device that was received")
        process.close()
        with edu_of(received) as registers:
            assert registers.inverted(0) == 0xFFFF_FFFF
        assert outsider.answers() == outsider.expected(mode, {DEVICE})
        received.close()
        assert outsider.answers() == outsider.expected(mode, NOTHING)


@contract("OWN-12")
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "close-on-exec"])
def test_exec_keeps_the_device_unless_told_otherwise(
    process: Process, outsider: Outsider, edu: Device, mode: Mode, kept: bool
) -> None:
    """execve(2) closes what is FD_CLOEXEC; the program that follows can use the rest."""
    with _only_the_device(process, edu, mode) as device:
        process.syscall(Syscall.FCNTL, device.fd, F_SETFD, 0 if kept else FD_CLOEXEC)
        process.exec()
        if kept:
            assert outsider.answers() == outsider.expected(mode, {DEVICE})
            device.info()
            device.close()
    assert outsider.answers() == outsider.expected(mode, NOTHING)


@contract("OWN-12")
def test_which_files_an_exec_closes_by_itself(process: Process, edu: Device, mode: Mode) -> None:
    """GET_DEVICE_FD makes its fd O_CLOEXEC; a cdev is opened as the caller asked."""
    with _only_the_device(process, edu, mode) as device:
        flags = process.syscall(Syscall.FCNTL, device.fd, F_GETFD)
        assert flags == (0 if isinstance(device, Cdev) else FD_CLOEXEC)
        device.close()
