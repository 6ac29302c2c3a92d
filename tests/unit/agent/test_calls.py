# SPDX-License-Identifier: GPL-2.0-only
"""System calls: results, errnos, buffers, registers."""

import ctypes
import errno
import os
import termios
from pathlib import Path

import pytest

from lab.agent.calls import close, openat
from lab.agent.errors import AgentRefused, RemoteError
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Delay, Field, Imm, Load, Program, Reg
from lab.agent.syscalls import Syscall


class Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


def test_a_call_returns_what_the_kernel_returned(process: Process) -> None:
    assert process.syscall(Syscall.GETPID) == process.pid
    assert process.pid != os.getpid()


def test_a_failed_call_raises_its_errno_with_the_name_of_the_request(process: Process) -> None:
    with pytest.raises(RemoteError) as caught:
        process.ioctl(0, termios.TIOCGWINSZ, bytearray(8), what="TIOCGWINSZ")
    assert caught.value.errno == errno.ENOTTY
    assert isinstance(caught.value, OSError)
    assert "ioctl TIOCGWINSZ: Inappropriate ioctl for device (ENOTTY)" in str(caught.value)


def test_an_errno_that_no_header_names_keeps_its_number() -> None:
    assert "errno 517" in str(RemoteError(517, "ioctl"))


def test_negative_arguments_arrive_as_such(process: Process) -> None:
    with pytest.raises(RemoteError) as caught:
        process.syscall(Syscall.CLOSE, -1)
    assert caught.value.errno == errno.EBADF


def test_a_bytearray_is_updated_in_place(process: Process, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    buffer = bytearray(10)
    with process.open(tmp_path / "file", os.O_RDONLY) as file:
        assert process.syscall(Syscall.READ, file.fd, buffer, 10) == 7
    assert buffer == b"content\0\0\0"


def test_a_struct_is_updated_in_place(process: Process) -> None:
    clock_getres, clock_monotonic = 229, 1
    resolution = Timespec()
    process.syscall(clock_getres, clock_monotonic, resolution)
    assert (resolution.seconds, resolution.nanoseconds) == (0, 1)


def test_a_buffer_is_updated_also_by_a_call_that_fails(process: Process) -> None:
    # sched_setattr() of a size it does not know tells the size it does know.
    sched_setattr, size_it_knows_at_least = 314, 48
    attributes = bytearray((1).to_bytes(4, "little"))
    with pytest.raises(RemoteError) as caught:
        process.syscall(sched_setattr, 0, attributes, 0)
    assert caught.value.errno == errno.E2BIG
    assert int.from_bytes(attributes, "little") >= size_it_knows_at_least


def test_bytes_go_in(process: Process, tmp_path: Path) -> None:
    with process.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT, 0o600) as file:
        assert file.write(b"some bytes") == 10
        assert file.pwrite(b"BYTES", 5) == 5
    assert (tmp_path / "new").read_bytes() == b"some BYTES"


def test_a_large_buffer_goes_both_ways(process: Process, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    with process.open(tmp_path / "large", os.O_RDWR | os.O_CREAT, 0o600) as file:
        assert file.write(data) == len(data)
        assert file.pread(len(data), 0) == data


def test_registers_chain_calls_within_a_batch(process: Process, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"chained")
    opened, read, closed = process.batch(
        [
            openat(tmp_path / "file", 31, flags=os.O_RDONLY),
            Call(Syscall.READ, (Reg(31), Buf(size=64), Imm(64))),
            close(31),
        ]
    )
    assert (opened.value, read.data[: read.value], closed.value) == (3, b"chained", 0)


def test_a_failed_call_leaves_minus_one_in_its_register(process: Process) -> None:
    failed, closed = process.batch([openat("/no/such", 4), close(4)])
    assert (failed.value, failed.errno) == (-1, errno.ENOENT)
    assert (closed.value, closed.errno) == (-1, errno.EBADF)


def test_registers_start_anew_in_each_round(process: Process) -> None:
    program = Program(
        setup=(
            Call(Syscall.FCNTL, (Reg(0), Imm(1))),
            Call(Syscall.DUP, (Imm(0),), register=0),
            close(),
        ),
        rounds=2,
    )
    for each in process.run(program).rounds:
        assert [result.errno for result in each.setup] == [errno.EBADF, 0, 0]


def test_registers_fill_fields_of_a_buffer_and_are_filled_from_them(process: Process) -> None:
    pipe, written, polled, closed, closed_too = process.batch(
        [
            Call(
                Syscall.PIPE2,
                (Buf(size=8, outputs=(Field(0, 4, 1), Field(4, 4, 2))), Imm(0)),
            ),
            Call(Syscall.WRITE, (Reg(2), Buf(b"x"), Imm(1))),
            # struct pollfd: fd, events POLLIN, revents
            Call(
                Syscall.POLL,
                (Buf(bytes([0, 0, 0, 0, 1, 0, 0, 0]), inputs=(Field(0, 4, 1),)), Imm(1), Imm(0)),
            ),
            close(1),
            close(2),
        ]
    )
    assert all(result.ok for result in (pipe, written, polled, closed, closed_too))
    assert polled.value == 1
    assert polled.data == pipe.data[:4] + bytes([1, 0, 1, 0])


def test_a_call_that_fails_leaves_minus_one_for_its_fields(process: Process) -> None:
    _, closed = process.batch(
        [
            Call(Syscall.PIPE2, (Buf(size=8, outputs=(Field(0, 4, 1),)), Imm(-1))),
            close(1),
        ]
    )
    assert closed.errno == errno.EBADF


def test_buffers_are_filled_anew_in_each_round(process: Process) -> None:
    program = Program(
        setup=(
            Call(Syscall.READLINKAT, (Imm(-100), Buf(b"/proc/self/cwd\0"), Buf(b"-"), Imm(1))),
            Call(Syscall.PIPE2, (Buf(b"", size=8), Imm(-1))),
        ),
        rounds=3,
    )
    rounds = process.run(program).rounds
    assert [each.setup[0].buffers[1] for each in rounds] == [b"/"] * 3
    assert [each.setup[1].data for each in rounds] == [bytes(8)] * 3


def test_times_are_the_guest_s_and_in_order(process: Process) -> None:
    first, second = process.batch([Delay(2_000_000), Call(Syscall.GETPID)])
    assert first.end_ns - first.start_ns >= 2_000_000
    assert first.end_ns <= second.start_ns <= second.end_ns


def test_a_delay_grows_by_its_step(process: Process) -> None:
    rounds = process.run(Program(setup=(Delay(0, 300_000),), rounds=3)).rounds
    waits = [each.setup[0].end_ns - each.setup[0].start_ns for each in rounds]
    assert waits[1] >= 300_000
    assert waits[2] >= 600_000


def test_what_does_not_fit_is_refused_and_harms_nothing(process: Process) -> None:
    huge = Program(setup=(Call(Syscall.GETPID, (Buf(size=1 << 20),)),), rounds=65)
    with pytest.raises(AgentRefused, match="would not fit"):
        process.run(huge)
    with pytest.raises(ValueError, match="out of range"):
        process.batch([close(256)])
    assert process.syscall(Syscall.GETPID) == process.pid


def call(*args: Imm | Reg | Buf) -> Program:
    return Program(setup=(Call(Syscall.GETPID, args),))


@pytest.mark.parametrize(
    ("program", "wrong"),
    [
        (Program(rounds=0), "at least once"),
        (Program(threads=((),) * 65), "too many threads"),
        (Program(setup=(Delay(0),) * 65537), "too many ops"),
        (call(*(Imm(0),) * 7), "number of arguments"),
        (call(Reg(32)), "no such register"),
        (Program(setup=(Call(Syscall.GETPID, register=32),)), "no such register"),
        (Program(setup=(Load(Imm(0), 3),)), "1, 2, 4, 8"),
        (call(Buf(b"more than its size", size=4)), "more than its size"),
        (call(Buf(size=8, inputs=(Field(5, 4, 0),))), "outside its buffer"),
        (call(Buf(size=8, outputs=(Field(0xFFFFFFFF, 1, 0),))), "outside its buffer"),
        (call(Buf(size=8, inputs=(Field(0, 3, 0),))), "no such width"),
        (call(Buf(size=8, outputs=(Field(0, 4, 32),))), "no such width or register"),
    ],
)
def test_a_program_that_makes_no_sense_is_refused(
    process: Process, program: Program, wrong: str
) -> None:
    with pytest.raises(AgentRefused, match=wrong):
        process.run(program)
    assert process.syscall(Syscall.GETPID) == process.pid


def test_calls_after_a_change_of_user_are_made_as_that_user(process: Process) -> None:
    if process.syscall(Syscall.GETUID):
        pytest.skip("only root changes its user")
    process.syscall(Syscall.SETRESUID, 65534, 65534, 65534)
    with pytest.raises(RemoteError) as caught:
        process.open("/etc/shadow", os.O_RDONLY)
    assert caught.value.errno == errno.EACCES
    assert process.fds()[0].startswith("pipe:")
