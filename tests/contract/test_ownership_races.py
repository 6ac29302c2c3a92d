# SPDX-License-Identifier: GPL-2.0-only
"""OWN-4 and OWN-5: two want the device at the same moment, and one at most gets it.

Source: drivers/vfio/device_cdev.c, vfio_df_ioctl_bind_iommufd(), and drivers/vfio/group.c,
vfio_device_block_group() and vfio_group_fops_open(). A race is run for hundreds of rounds; one
side's start wanders from before the other's to after it. Each test says who won how often, and in
how many rounds both were in the kernel at once: a race that was none proves nothing.
"""

import ctypes
from collections.abc import Callable, Sequence
from errno import EBUSY, EINVAL
from random import Random

import pytest

from lab.agent.calls import close, openat
from lab.agent.file import RemoteFile
from lab.agent.process import Process
from lab.agent.program import BARRIER_SIZE, Buf, Call, Delay, Imm, Op, Program, Reg, Result
from lab.agent.race import run_together, shared_mapping
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract, lacking
from lab.vfio.device import Device
from lab.vfio.edu import edu_of
from lab.vfio.files import Iommufd
from lab.vfio.modes import open_device
from lab.vfio.uapi import DeviceRequest, GroupRequest, VfioDeviceBindIommufd, VfioDeviceInfo

ROUNDS = 300
HEAD_START = 30_000  # nanoseconds that either side starts before the other, at most
TIMEOUT = 120.0  # seconds for all rounds
ONE, OTHER = 0, 1  # registers, each with a racer's fd
DEVICE = 2  # and the one of the device that holds both up
HELD_UP, HELD_UP_ALIKE = 12, 6  # programs of other delays, rounds of each

Duel = tuple[Result, Result]
Recorder = Callable[[str, object], None]


def _ioctl(register: int, request: DeviceRequest, argument: ctypes.Structure) -> Call:
    return Call(Syscall.IOCTL, (Reg(register), Imm(request), Buf(bytes(argument))))


def _bind(register: int, iommufd: RemoteFile) -> Call:
    request = VfioDeviceBindIommufd(iommufd=iommufd.fd)
    return _ioctl(register, DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, request)


def _info(register: int) -> Call:
    return _ioctl(register, DeviceRequest.VFIO_DEVICE_GET_INFO, VfioDeviceInfo())


def _wandering(racer: Op) -> tuple[Op, ...]:
    """Starts first in the first round, and last in the last one."""
    return Delay(0, 2 * HEAD_START // ROUNDS), racer


def _steady(racer: Op) -> tuple[Op, ...]:
    """Starts always in the middle of the other's range."""
    return Delay(HEAD_START), racer


def _count(record: Recorder, duels: Sequence[Duel], names: tuple[str, str]) -> int:
    """Record who won how often; in how many rounds the two calls overlapped in time."""
    wins = [(one.ok, other.ok) for one, other in duels]
    together = sum(a.start_ns < b.end_ns and b.start_ns < a.end_ns for a, b in duels)
    record("rounds", len(duels))
    record(f"{names[0]} won", wins.count((True, False)))
    record(f"{names[1]} won", wins.count((False, True)))
    record("neither won", wins.count((False, False)))
    record("at once", together)
    return together


def _report(record: Recorder, duels: Sequence[Duel], names: tuple[str, str]) -> None:
    """Record the same, and whether they raced.

    Raises Skipped when no two calls overlapped in time, as on a single processor.
    """
    if not _count(record, duels, names):
        raise lacking("two processors: no round was a race")


def _check_nothing_left(process: Process, hands: Process, device: Device) -> None:
    """Both flows find the device free, and it works."""
    with open_device(process, device, Mode.IOMMUFD) as opened, edu_of(opened.device) as registers:
        assert registers.inverted(0) == 0xFFFF_FFFF
    if hands.exists(device.group_path(hands)):
        device.open_group(process).close()


def _check_one_winner(duels: Sequence[Duel]) -> None:
    unexpected = {(one.errno, other.errno) for one, other in duels} - {(0, EINVAL), (EINVAL, 0)}
    assert not unexpected, f"errnos of the two, in one round: {unexpected}"


@contract("OWN-4", Mode.IOMMUFD)
@pytest.mark.parametrize("same_context", [True, False], ids=["same-iommufd", "two-iommufds"])
def test_racing_threads_have_one_winner(
    process: Process, hands: Process, edu: Device, record_property: Recorder, same_context: bool
) -> None:
    """vfio_df_open(): `open_count`, under dev_set->lock. The loser's file stays parked."""
    path = edu.cdev_path(hands)
    with (
        Iommufd.open(process, Iommufd.PATH) as first,
        Iommufd.open(process, Iommufd.PATH) as second,
    ):
        program = Program(
            setup=(openat(path, ONE), openat(path, OTHER)),
            threads=(
                _wandering(_bind(ONE, first)),
                _steady(_bind(OTHER, first if same_context else second)),
            ),
            teardown=(_info(ONE), _info(OTHER), close(ONE), close(OTHER)),
            rounds=ROUNDS,
        )
        rounds = process.run(program, timeout=TIMEOUT).rounds
    duels = [(one[-1], other[-1]) for one, other in (each.threads for each in rounds)]
    _check_one_winner(duels)
    for (one, other), each in zip(duels, rounds, strict=True):
        assert [after.errno for after in each.teardown] == [one.errno, other.errno, 0, 0]
    _check_nothing_left(process, hands, edu)
    _report(record_property, duels, ("one", "other"))


@contract("OWN-4", Mode.IOMMUFD)
def test_racing_binds_of_one_file_have_one_winner(
    process: Process, hands: Process, edu: Device, record_property: Recorder
) -> None:
    """device_cdev.c: "one device cannot be bound twice". The file works, whoever bound it."""
    with (
        Iommufd.open(process, Iommufd.PATH) as first,
        Iommufd.open(process, Iommufd.PATH) as second,
    ):
        program = Program(
            setup=(openat(edu.cdev_path(hands), ONE),),
            threads=(_wandering(_bind(ONE, first)), _steady(_bind(ONE, second))),
            teardown=(_info(ONE), close(ONE)),
            rounds=ROUNDS,
        )
        rounds = process.run(program, timeout=TIMEOUT).rounds
    duels = [(one[-1], other[-1]) for one, other in (each.threads for each in rounds)]
    _check_one_winner(duels)
    assert all(after.ok for each in rounds for after in each.teardown)
    _check_nothing_left(process, hands, edu)
    _report(record_property, duels, ("one", "other"))


@contract("OWN-4", Mode.IOMMUFD)
def test_racing_processes_have_one_winner(
    new_process: Callable[[], Process], hands: Process, edu: Device, record_property: Recorder
) -> None:
    """Nothing but the device and a barrier is shared by the two."""
    path = edu.cdev_path(hands)
    processes = new_process(), new_process()
    with (
        shared_mapping(*processes, BARRIER_SIZE) as barriers,
        Iommufd.open(processes[0], Iommufd.PATH) as first,
        Iommufd.open(processes[1], Iommufd.PATH) as second,
    ):
        binds = _wandering(_bind(ONE, first)), _steady(_bind(ONE, second))
        results = run_together(
            [
                (
                    process,
                    Program(
                        setup=(openat(path, ONE),),
                        threads=(bind,),
                        teardown=(_info(ONE), close(ONE)),
                        rounds=ROUNDS,
                        barrier=barrier.address,
                        parties=len(processes),
                    ),
                )
                for process, bind, barrier in zip(processes, binds, barriers, strict=True)
            ],
            timeout=TIMEOUT,
        )
    ones, others = ([each.threads[0][-1] for each in result.rounds] for result in results)
    duels = list(zip(ones, others, strict=True))
    _check_one_winner(duels)
    for result in results:
        for each in result.rounds:
            bound, (info, closed) = each.threads[0][-1], each.teardown
            assert (info.errno, closed.errno) == (bound.errno, 0)
    _check_nothing_left(processes[0], hands, edu)
    _report(record_property, duels, ("one", "other"))


@contract("OWN-5", Mode.IOMMUFD)
@pytest.mark.usefixtures("both_flows")
def test_bind_races_with_opening_the_group(
    process: Process, hands: Process, edu: Device, record_property: Recorder
) -> None:
    """Never both, under group_lock. Neither is allowed: a bind may hold the group off and fail."""
    with Iommufd.open(process, Iommufd.PATH) as iommufd:
        program = Program(
            setup=(openat(edu.cdev_path(hands), ONE),),
            threads=(
                _wandering(_bind(ONE, iommufd)),
                _steady(openat(edu.group_path(hands), OTHER)),
            ),
            teardown=(_info(ONE), close(ONE), close(OTHER)),
            rounds=ROUNDS,
        )
        rounds = process.run(program, timeout=TIMEOUT).rounds
    duels = [(bind[-1], opened[-1]) for bind, opened in (each.threads for each in rounds)]
    allowed = {(0, EBUSY), (EBUSY, 0), (EBUSY, EBUSY)}
    unexpected = {(one.errno, other.errno) for one, other in duels} - allowed
    assert not unexpected, f"errnos of bind and open, in one round: {unexpected}"
    for (bind, _), each in zip(duels, rounds, strict=True):
        assert each.teardown[0].errno == (0 if bind.ok else EINVAL)
    _check_nothing_left(process, hands, edu)
    _report(record_property, duels, ("bind", "group"))


@contract("OWN-5", Mode.IOMMUFD)
@pytest.mark.usefixtures("both_flows")
def test_bind_and_open_are_held_up_by_a_close(
    process: Process, hands: Process, edu: Device, dice: Random, record_property: Recorder
) -> None:
    """Never both, when vfio_df_group_close() keeps group_lock from the two for milliseconds.

    The group is not open any more by then, so what a bind has seen of it before it had the lock
    is old when it gets it. A bind that comes before the close finds the device open: EINVAL.
    """
    duels: list[Duel] = []
    closing = 0  # nanoseconds, of the first few closes: the window in which the two start
    with Iommufd.open(process, Iommufd.PATH) as iommufd:
        for _ in range(HELD_UP):
            program = Program(
                setup=(
                    *_device_without_its_group(edu, hands, iommufd),
                    openat(edu.cdev_path(hands), ONE),
                ),
                threads=(
                    (Delay(dice.randint(0, closing)), _bind(ONE, iommufd)),
                    (close(DEVICE),),
                    (Delay(dice.randint(0, closing)), openat(edu.group_path(hands), OTHER)),
                ),
                teardown=(_info(ONE), close(ONE), close(OTHER)),
                rounds=HELD_UP_ALIKE,
            )
            for each in process.run(program, timeout=TIMEOUT).rounds:
                (*_, bind), (closed,), (*_, opened) = each.threads
                assert closed.ok, "no device of the group flow was open"
                assert each.teardown[0].errno == (0 if bind.ok else EINVAL)
                duels.append((bind, opened))
                closing = closing or closed.end_ns - closed.start_ns
    allowed = {(0, EBUSY), (EBUSY, 0), (EBUSY, EBUSY), (EINVAL, 0), (EINVAL, EBUSY)}
    unexpected = {(one.errno, other.errno) for one, other in duels} - allowed
    assert not unexpected, f"errnos of bind and open, in one round: {unexpected}"
    _check_nothing_left(process, hands, edu)
    _report(record_property, duels, ("bind", "group"))


@contract("OWN-2", Mode.COMPAT_TYPE1V2)
def test_two_opens_of_a_group_are_held_up_by_a_close(
    process: Process, hands: Process, edu: Device, record_property: Recorder
) -> None:
    """vfio_group_fops_open(): both wait for group_lock, which vfio_df_group_close() has. Neither
    knows before it has the lock whether somebody has the group: one gets it."""
    path = edu.group_path(hands)
    start = Delay(HEAD_START)
    with Iommufd.open(process, Iommufd.PATH) as iommufd:
        program = Program(
            setup=_device_without_its_group(edu, hands, iommufd),
            threads=((start, openat(path, ONE)), (close(DEVICE),), (start, openat(path, OTHER))),
            teardown=(close(ONE), close(OTHER)),
            rounds=4 * HELD_UP_ALIKE,
        )
        rounds = process.run(program, timeout=TIMEOUT).rounds
    duels = []
    for each in rounds:
        (*_, one), (closed,), (*_, other) = each.threads
        assert closed.ok, "no device of the group flow was open"
        duels.append((one, other))
    unexpected = {(one.errno, other.errno) for one, other in duels} - {(0, EBUSY), (EBUSY, 0)}
    assert not unexpected, f"errnos of the two, in one round: {unexpected}"
    _count(record_property, duels, ("one", "other"))


def _device_without_its_group(
    device: Device, hands: Process, iommufd: RemoteFile
) -> tuple[Op, ...]:
    """Leaves a device of the group flow open in `DEVICE`; an iommufd does not pin the group."""
    fd, name = iommufd.fd.to_bytes(4, "little"), device.address.encode() + b"\0"
    return (
        openat(device.group_path(hands), OTHER),
        Call(Syscall.IOCTL, (Reg(OTHER), Imm(GroupRequest.VFIO_GROUP_SET_CONTAINER), Buf(fd))),
        Call(
            Syscall.IOCTL,
            (Reg(OTHER), Imm(GroupRequest.VFIO_GROUP_GET_DEVICE_FD), Buf(name)),
            register=DEVICE,
        ),
        close(OTHER),
    )
