# SPDX-License-Identifier: GPL-2.0-only
"""MAP-10, and whole flows of an ordinary user who was given the files and nothing else.

Source: drivers/iommu/iommufd/pages.c, incr_user_locked_vm(), which counts by user, and
drivers/vfio/vfio_iommu_type1.c, vfio_pin_pages_remote(), which counts by process. Where an iommufd
serves /dev/vfio/vfio it counts by process, too: iommufd_fops_open().
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from errno import EACCES, ENOMEM, EPERM
from resource import RLIMIT_MEMLOCK
from struct import pack

import pytest

from lab.agent.calls import AT_FDCWD, path_bytes
from lab.agent.process import Process
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.deadline import Deadline
from lab.testing import contract, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import edu_of
from lab.vfio.files import Container, Iommufd
from lab.vfio.modes import CONTAINER_MODES, ContainerSpace, container_path, open_device
from lab.vfio.uapi import IommufdRequest, IommuOption, MapFlag, OptionOp, UnmapFlag

IOVA = 0x10_0000
ELSEWHERE = 0x1000_0000
PAGE = 4096
LIMIT = 16  # pages
SOON = 5.0  # seconds
RLIMIT_MODE = 0  # IOMMU_OPTION_RLIMIT_MODE
TESTER = 1000
"""A user of the image, and its group."""


@pytest.fixture
def given(hands: Process, edu: Device, resettable: Device) -> Iterator[None]:
    """The user owns what the flows open: the devices' nodes, and those of the address spaces."""
    nodes = [Iommufd.PATH, Container.PATH]
    for device in (edu, resettable):
        nodes.append(device.group_path(hands))
        if hands.exists(f"{device.sysfs}/vfio-dev"):
            nodes.append(device.cdev_path(hands))
    there = [node for node in nodes if hands.exists(node)]
    try:
        for node in there:
            _chown(hands, node, TESTER)
        yield
    finally:
        for node in there:
            _chown(hands, node, 0)


def _chown(hands: Process, path: str, user: int) -> None:
    hands.syscall(Syscall.FCHOWNAT, AT_FDCWD, path_bytes(path), user, user, 0, what=path)


def _limit(process: Process, pages: int) -> None:
    limit = pack("<QQ", pages * PAGE, pages * PAGE)
    process.syscall(Syscall.PRLIMIT64, 0, RLIMIT_MEMLOCK, limit, 0, what="RLIMIT_MEMLOCK")


def _become_a_user(process: Process) -> None:
    _limit(process, LIMIT)
    process.syscall(Syscall.SETGROUPS, 0, 0)
    process.syscall(Syscall.SETRESGID, TESTER, TESTER, TESTER)
    process.syscall(Syscall.SETRESUID, TESTER, TESTER, TESTER)


@pytest.fixture
def new_user(new_process: Callable[[], Process]) -> Callable[[], Process]:
    """Starts processes of the ordinary user, who may pin `LIMIT` pages."""

    def start() -> Process:
        process = new_process()
        _become_a_user(process)
        return process

    return start


@pytest.fixture
def user(new_user: Callable[[], Process]) -> Process:
    return new_user()


@contract("DMA-1")
@pytest.mark.usefixtures("given")
def test_ordinary_user_drives_a_device(user: Process, edu: Device, mode: Mode) -> None:
    """The files are all it takes: no step of a flow asks for a capability."""
    with (
        open_device(user, edu, mode) as opened,
        edu_of(opened.device) as registers,
        user.mmap(LIMIT * PAGE) as memory,
    ):
        opened.device.enable_dma()
        opened.space.map(IOVA, memory)
        memory.write(0, b"by a user")
        registers.copy_in(IOVA, 9)
        registers.copy_out(IOVA + (LIMIT - 1) * PAGE, 9)
        assert memory.read((LIMIT - 1) * PAGE, 9) == b"by a user"
        assert opened.space.unmap(IOVA, memory.length) == memory.length


@contract("DMA-1")
def test_ordinary_user_gets_no_device_without_its_files(
    user: Process, edu: Device, mode: Mode
) -> None:
    """The control: the nodes are root's, and nobody else's."""
    with raises_errno(EACCES):
        (edu.open_cdev if mode is Mode.IOMMUFD else edu.open_group)(user)


@contract("MAP-10")
@pytest.mark.usefixtures("given")
def test_a_user_pins_up_to_the_limit(user: Process, edu: Device, mode: Mode) -> None:
    """ENOMEM past it, in one mapping or in several; what failed counts for nothing."""
    with open_device(user, edu, mode) as opened, user.mmap(2 * LIMIT * PAGE) as memory:
        with raises_errno(ENOMEM):
            opened.space.map_range(IOVA, memory.address, (LIMIT + 1) * PAGE)
        opened.space.map_range(IOVA, memory.address, LIMIT * PAGE)
        more = memory.address + LIMIT * PAGE
        with raises_errno(ENOMEM):
            opened.space.map_range(ELSEWHERE, more, PAGE)
        opened.space.unmap(IOVA, LIMIT * PAGE)
        opened.space.map_range(IOVA, memory.address, (LIMIT - 1) * PAGE)
        opened.space.map_range(ELSEWHERE, more, PAGE)
        with raises_errno(ENOMEM):
            opened.space.map_range(ELSEWHERE + PAGE, more + PAGE, PAGE)


@contract("MAP-10", Mode.IOMMUFD)
@pytest.mark.usefixtures("given")
def test_mapping_past_the_limit_is_left_in_no_page_table(user: Process, edu: Device) -> None:
    """pages.c: iopt_area_fill_domains() asks for the limit when all page tables hold the pages, and
    then undoes each: an entry that is left would be in the next mapping's way."""
    with (
        Iommufd.open(user, Iommufd.PATH) as iommufd,
        edu.open_cdev(user) as cdev,
        user.mmap((LIMIT + 1) * PAGE) as memory,
    ):
        device, ioas = cdev.bind(iommufd), iommufd.ioas_alloc()
        for _ in range(3):
            iommufd.hwpt_alloc(device, ioas)
        with raises_errno(ENOMEM):
            iommufd.ioas_map(ioas, IOVA, memory.address, memory.length)
        iommufd.ioas_map(ioas, IOVA, memory.address, LIMIT * PAGE)


@contract("MAP-10")
@pytest.mark.usefixtures("given")
def test_closing_gives_the_pages_back(
    user: Process, new_user: Callable[[], Process], hands: Process, edu: Device, mode: Mode
) -> None:
    """Also to the user's next process, when the first one ends with everything open."""
    with user.mmap(LIMIT * PAGE) as memory:
        for _ in range(2):
            with open_device(user, edu, mode) as opened:
                opened.space.map(IOVA, memory)
    second = new_user()
    with _mapped_to_the_limit(second, edu, mode):
        _end(hands, second)
    third = new_user()
    with _mapped_to_the_limit(third, edu, mode):
        pass


def _end(hands: Process, process: Process) -> None:
    """End it, and wait until the kernel has cleared up."""
    process.close()
    deadline = Deadline.after(SOON)
    while hands.exists(f"/proc/{process.pid}"):
        assert not deadline.passed, "the process is still there"
        time.sleep(0.01)


@contextmanager
def _mapped_to_the_limit(process: Process, device: Device, mode: Mode) -> Iterator[None]:
    with open_device(process, device, mode) as opened, process.mmap(LIMIT * PAGE) as memory:
        opened.space.map(IOVA, memory)
        yield


@contract("MAP-10")
@pytest.mark.usefixtures("given")
def test_whose_limit_it_is(
    user: Process,
    new_user: Callable[[], Process],
    hands: Process,
    edu: Device,
    resettable: Device,
    mode: Mode,
) -> None:
    """A second process of that user: an iommufd finds the user's share used up, type1 the
    process's own untouched.

    iommufd/main.c: iommufd_fops_open(), an iommufd opened as /dev/vfio/vfio counts as type1 does.
    """
    other = new_user()
    by_user = mode is Mode.IOMMUFD or container_path(other, mode) == Iommufd.PATH
    with (
        _mapped_to_the_limit(user, edu, mode),
        open_device(other, resettable, mode) as opened,
        other.mmap(PAGE) as memory,
    ):
        if by_user:
            with raises_errno(ENOMEM):
                opened.space.map(IOVA, memory)
            _end(hands, user)
        opened.space.map(IOVA, memory)


@contract("MAP-10")
@pytest.mark.usefixtures("given")
def test_pages_go_back_to_who_mapped_them(
    user: Process, process: Process, edu: Device, mode: Mode
) -> None:
    """Whoever unmaps them: decr_user_locked_vm() and vfio_lock_acct() take what belongs to the
    mapping, and not to the caller."""
    with open_device(user, edu, mode) as opened, user.mmap(LIMIT * PAGE) as memory:
        opened.space.map(IOVA, memory)
        with opened.space.taken_by(process) as space:
            assert space.unmap(IOVA, memory.length) == memory.length
        opened.space.map(IOVA, memory)


@contract("MAP-10", *CONTAINER_MODES)
def test_heir_of_a_mapping_is_bound_by_its_own_limit(
    process: Process, new_process: Callable[[], Process], edu: Device, mode: Mode
) -> None:
    """vfio_change_dma_owner(): who gives a mapping an address pays for it, with its own rights and
    not with those of who had it before."""
    pages = LIMIT + 1
    with open_device(process, edu, mode) as opened, process.mmap(pages * PAGE) as memory:
        assert isinstance(opened.space, ContainerSpace)
        opened.space.map(IOVA, memory)
        invalid = UnmapFlag.VFIO_DMA_UNMAP_FLAG_VADDR
        assert opened.space.container.unmap_dma(IOVA, memory.length, invalid) == memory.length
        heir = new_process()
        with opened.space.taken_by(heir) as space, heir.mmap(pages * PAGE) as heirs:
            _become_a_user(heir)
            with raises_errno(ENOMEM):
                space.map(IOVA, heirs, MapFlag.VFIO_DMA_MAP_FLAG_VADDR)
        opened.space.map(IOVA, memory, MapFlag.VFIO_DMA_MAP_FLAG_VADDR)


@contract("MAP-10", Mode.IOMMUFD)
@pytest.mark.usefixtures("given")
def test_user_cannot_choose_how_to_be_counted(user: Process, process: Process) -> None:
    """iommufd_option_rlimit_mode(): EPERM without CAP_SYS_RESOURCE, for by process a user would
    have the limit once for each."""
    for asker, allowed in ((user, False), (process, True)):
        with Iommufd.open(asker, Iommufd.PATH) as iommufd:
            option = IommuOption(option_id=RLIMIT_MODE, op=OptionOp.IOMMU_OPTION_OP_SET, val64=1)
            with nullcontext() if allowed else raises_errno(EPERM):
                iommufd.call(IommufdRequest.IOMMU_OPTION, option)
            option = IommuOption(option_id=RLIMIT_MODE, op=OptionOp.IOMMU_OPTION_OP_GET)
            iommufd.call(IommufdRequest.IOMMU_OPTION, option)
            assert option.val64 == allowed


@contract("MAP-10")
def test_the_limit_does_not_bind_who_may_lock_memory(
    process: Process, edu: Device, mode: Mode
) -> None:
    """The control: CAP_IPC_LOCK, under the same limit."""
    _limit(process, LIMIT)
    with open_device(process, edu, mode) as opened, process.mmap(2 * LIMIT * PAGE) as memory:
        opened.space.map(IOVA, memory)
