# SPDX-License-Identifier: GPL-2.0-only
"""Programs of several calls, races, and calls that nobody answered."""

import signal
import struct
from errno import EINVAL

from lab.agent.calls import close, openat
from lab.agent.program import Buf, Call, Delay, Field, Imm, Load, Program, Reg
from lab.agent.syscalls import Syscall
from lab.agent.trace import Began, Ended, Exchange, Recording, Trace
from lab.vfio.trace import essence, readable
from lab.vfio.uapi import DeviceRequest, VfioDeviceBindIommufd

from .conftest import PID, Answer, Guest, Round

CDEV = "/dev/vfio/devices/vfio0"
OK, REFUSED = (0, 0, b""), (-1, EINVAL, b"")
BOUND = bytes(VfioDeviceBindIommufd(iommufd=3))
WON, LOST = (0, 0, BOUND), (-1, EINVAL, BOUND)


def bind(register: int) -> Call:
    request = Buf(bytes(VfioDeviceBindIommufd()), inputs=(Field(8, 4, 0),))
    number = Imm(DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD)
    return Call(Syscall.IOCTL, (Reg(register), number, request))


def racing(rounds: int) -> Program:
    return Program(
        setup=(openat("/dev/iommu", 0), openat(CDEV, 1), openat(CDEV, 2)),
        threads=((bind(1),), (Delay(100, 10), bind(2))),
        teardown=(close(1),),
        rounds=rounds,
    )


def answers(first: Answer, second: Answer) -> list[Answer]:
    return [(3, 0, b""), (4, 0, b""), (5, 0, b""), first, OK, second, OK]


def test_registers_have_what_earlier_calls_left_there(guest: Guest, round_of: Round) -> None:
    program = Program(setup=(openat("/dev/iommu", 0), openat(CDEV, 1), bind(1), close(1)))
    guest.run(program, [round_of(program, [(3, 0, b""), (-1, 2, b""), LOST, REFUSED])])
    assert guest.calls == [
        'openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 3</dev/iommu>',
        f'openat(AT_FDCWD, "{CDEV}", O_RDWR) = -1 ENOENT (No such file or directory)',
        "ioctl(-1, VFIO_DEVICE_BIND_IOMMUFD, {argsz=16, flags=0, iommufd=3</dev/iommu>}) "
        "= -1 EINVAL (Invalid argument)",
        "close(-1) = -1 EINVAL (Invalid argument)",
    ]


def test_a_race_is_told_by_the_ways_in_which_it_ended(guest: Guest, round_of: Round) -> None:
    """The rare way is the one that matters: its first round is told in full."""
    program = racing(100)
    usual = round_of(program, answers(WON, LOST))
    odd = round_of(program, answers(WON, WON))
    guest.run(program, [odd if place == 41 else usual for place in range(100)])
    calls = guest.calls
    assert calls[:2] == [
        "100 rounds of 2 threads, which ended in 2 ways:",
        "99 of 100 rounds, the first of them round 0:",
    ]
    assert calls[9] == "1 of 100 rounds, the first of them round 41:"
    given = "{argsz=16, flags=0, iommufd=3</dev/iommu>}"
    assert calls[13:16] == [
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_BIND_IOMMUFD, {given}) = 0",
        "delay(510 ns)",
        f"ioctl(5<{CDEV}>, VFIO_DEVICE_BIND_IOMMUFD, {given}) = 0",
    ]
    assert len(calls) == 17


def test_of_many_ways_the_common_and_the_rare_are_told(guest: Guest, round_of: Round) -> None:
    program = Program(threads=((close(0),),), rounds=55)
    ways = [errno for errno in range(1, 11) for _ in range(errno)]  # 10 ways, the rarest errno 1
    guest.run(program, [round_of(program, [(-1, errno, b"")]) for errno in ways])
    calls = guest.calls
    counts = [line.split()[0] for line in calls if "the first of them" in line]
    assert counts == ["10", "9", "4", "3", "2", "1"]
    assert calls[-1] == "4 other ways are not shown"


def test_the_threads_of_a_round_are_in_the_order_of_their_time(guest: Guest) -> None:
    program = Program(threads=((close(0),), (Call(Syscall.GETPID),)))
    late = struct.pack("<qihhQQ", 0, 0, 0, 0, 2_000_002_000, 2_000_003_000)
    early = struct.pack("<qihhQQ", 70, 0, 0, 0, 2_000_000_000, 2_000_001_000)
    guest.run(program, [late + early])
    assert guest.text.split("\n\n")[1].splitlines()[1:] == [
        "   70.2    0.000000 getpid() = 70 <0.000001>",
        "   70.1    0.000002 close(-1) = 0 <0.000001>",
    ]


def test_an_access_that_faults(guest: Guest) -> None:
    program = Program(setup=(Load(Imm(0x1000), 4),))
    fault = struct.pack("<qihhQQ", 0x1000, 0, signal.SIGSEGV, 1, 2_000_000_000, 2_000_000_500)
    guest.run(program, [fault])
    assert guest.calls == ["load32(0x1000) --- SIGSEGV {si_code=1, si_addr=0x1000} ---"]


def test_a_call_that_nobody_answered(guest: Guest) -> None:
    """What had been asked when the guest went away is the most interesting of all."""
    guest.call(Syscall.GETPID, returns=PID)
    guest.run(Program(setup=(openat(CDEV, 1), bind(1))), None)
    guest.trace.add(Ended(PID, "it did not answer in time", 3.5))
    assert guest.calls == [
        "getpid() = 70",
        f'openat(AT_FDCWD, "{CDEV}", O_RDWR) = ?',
        "ioctl(r1, VFIO_DEVICE_BIND_IOMMUFD, {argsz=16, flags=0, iommufd=-1}) = ?",
        "+++ gone: it did not answer in time +++",
    ]


def test_a_race_that_nobody_answered(guest: Guest) -> None:
    guest.run(racing(100), None)
    calls = guest.calls
    assert calls[0] == "100 rounds of 2 threads, of which nothing is known:"
    assert len(calls) == 1 + 7


def test_the_labs_own_calls_stand_apart(guest: Guest) -> None:
    guest.call(Syscall.GETPID, returns=PID)
    before = Trace()
    hands = Guest(before)
    hands.call(Syscall.SYNC)
    guest.trace.add(Began(1, "hands"))
    text = readable(guest.trace.take(), before.take(), PID)
    titles = [part.splitlines()[0] for part in text.split("\n\n")[1:]]
    assert titles == [
        "Calls of the processes under test:",
        "The lab's own calls meanwhile:",
        "The lab's own calls when the guest was new:",
    ]
    assert text.split("\n\n")[1].splitlines()[1] == "  (none)"
    assert "getpid() = 70" in text.split("\n\n")[2]
    assert "sync() = 0" in text.split("\n\n")[3]


def test_the_hosts_times_are_the_guests(guest: Guest) -> None:
    """Also those of a guest that went away before it had answered the test anything."""
    guest.now += 5_000_000_000  # the guest's clock is 5 s ahead
    answer = struct.pack("<qihhQQ", 0, 0, 0, 0, guest.now, guest.now)
    ready = Exchange(1, Program(setup=(Call(Syscall.SYNC),)), 2.0, 100, answer)
    lost = Exchange(PID, Program(setup=(Call(Syscall.SYNC),)), 3.0, 100)
    ended = Ended(PID, "the channel is at its end", 3.5)
    text = readable(Recording((lost, ended)), Recording((ready,)), 1)
    assert "0 is 8.000000 s of the guest's clock" in text
    assert "     70    0.500000 +++ gone: the channel is at its end +++" in text
    assert "      1   -1.000000 sync() = 0" in text


def test_what_was_not_kept_is_told(guest: Guest) -> None:
    guest.call(Syscall.GETPID, returns=PID)
    events = guest.trace.take().events
    text = readable(Recording(events, 7), Recording(), 1)
    assert "The first 7 programs were not kept: they took too much room.\n" in text


def test_the_essence_is_what_was_asked_of_devices(guest: Guest) -> None:
    guest.open(CDEV, 4)
    guest.open("/sys/x", 5)
    for fd in (4, 5):
        guest.ioctl(fd, DeviceRequest.VFIO_DEVICE_RESET)
        guest.call(Syscall.CLOSE, fd)
    guest.run(Program(setup=(close(0),)), None)
    text = readable(guest.trace.take(), Recording(), 1)
    told = [
        f'openat(AT_FDCWD, "{CDEV}", O_RDWR) = 4<{CDEV}>',
        f"ioctl(4<{CDEV}>, VFIO_DEVICE_RESET) = 0",
        "ioctl(5</sys/x>, VFIO_DEVICE_RESET) = 0",
        "close(r0) = ?",
    ]
    assert essence(text, 10) == told
    assert essence(text, 2) == told[2:]
    assert essence("", 2) == []
