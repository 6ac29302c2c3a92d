# SPDX-License-Identifier: GPL-2.0-only
"""How an agent ends: hang-up, kill, timeout, nonsense."""

import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable

import pytest

from lab.agent.channel import Frames
from lab.agent.errors import AgentDied, AgentTimeout
from lab.agent.process import Process
from lab.agent.program import Call, Delay, Imm, Program
from lab.agent.protocol import (
    MAX_PAYLOAD,
    FrameKind,
    encode_frame,
    encode_program,
)
from lab.agent.syscalls import Syscall
from lab.deadline import Overrun

from .conftest import Connect, LocalTransport


def assert_gone(child: subprocess.Popen[bytes]) -> int:
    """Its exit status; it has a second."""
    return child.wait(1)


def reply(transport: LocalTransport) -> tuple[int, bytes]:
    """The kind and payload of the next frame."""
    return Frames(transport).receive(time.monotonic() + 5)


def test_an_idle_agent_leaves_with_its_host(connect: Connect) -> None:
    transport = connect()
    Process(transport).close()
    assert assert_gone(transport.child) == 0


def test_an_agent_blocked_in_a_system_call_leaves_with_its_host(connect: Connect) -> None:
    transport = connect()
    process = Process(transport)
    event = process.eventfd()
    pending = process.start(
        Program(setup=(Call(Syscall.READ, (Imm(event.fd), Imm(0x1000), Imm(8))),))
    )
    assert not pending.done(within=0.1)
    assert transport.child.poll() is None
    process.close()
    assert_gone(transport.child)


def test_an_agent_with_racing_threads_leaves_with_its_host(connect: Connect) -> None:
    transport = connect()
    process = Process(transport)
    threads = tuple((Delay(10_000_000_000),) for _ in range(3))
    process.start(Program(threads=threads))
    time.sleep(0.05)
    process.close()
    assert_gone(transport.child)


@pytest.mark.parametrize("late", [TimeoutError(), Overrun("the test took longer than 120 s")])
def test_who_is_interrupted_while_it_is_told_where_it_hangs_leaves_no_agent(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, late: BaseException
) -> None:
    """Its answer, which may come yet, would be taken for that to the next program."""

    def interrupted(_: int) -> str:
        raise Overrun("and again")

    def in_vain(_: float) -> bytes:
        raise late

    transport = connect()
    process = Process(transport, whereabouts=interrupted)
    monkeypatch.setattr(transport, "recv", in_vain)
    with pytest.raises(Overrun, match="and again"):
        process.batch([Delay(0)])
    assert not process.alive
    assert_gone(transport.child)


def test_a_killed_agent_fails_the_call_and_each_later_one_at_once(connect: Connect) -> None:
    transport = connect()
    process = Process(transport)
    pending = process.start(Program(setup=(Delay(20_000_000_000),)))
    os.kill(process.pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(AgentDied):
        pending.wait()
    assert not process.alive
    with pytest.raises(AgentDied, match="is gone"):
        process.syscall(Syscall.GETPID)
    assert time.monotonic() - started < 1


def test_an_idle_agent_that_was_killed_is_found_out_by_the_next_call(connect: Connect) -> None:
    transport = connect()
    process = Process(transport)
    os.kill(process.pid, signal.SIGKILL)
    transport.child.wait(1)
    with pytest.raises(AgentDied):
        process.syscall(Syscall.GETPID)


def test_an_agent_that_exits_by_a_system_call_died(process: Process) -> None:
    with pytest.raises(AgentDied):
        process.syscall(Syscall.EXIT_GROUP, 3)


def test_a_block_around_a_dead_agent_raises_what_killed_it(process: Process) -> None:
    with (
        pytest.raises(AgentDied, match="died"),
        process.open("/dev/null"),
        process.mmap(4096),
    ):
        process.syscall(Syscall.KILL, process.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGTERM])
def test_a_signal_from_outside_kills(connect: Connect, number: signal.Signals) -> None:
    transport = connect()
    Process(transport)
    transport.child.send_signal(number)
    assert assert_gone(transport.child) == -number


def test_a_call_that_takes_too_long_ends_the_process(connect: Connect) -> None:
    transport = connect()
    process = Process(transport)
    started = time.monotonic()
    with pytest.raises(AgentTimeout):
        process.batch([Delay(20_000_000_000)], timeout=0.1)
    assert time.monotonic() - started < 1
    assert_gone(transport.child)
    with pytest.raises(AgentDied, match="did not answer"):
        process.syscall(Syscall.GETPID)


def test_a_slower_guest_has_more_time_for_each_call(connect: Connect) -> None:
    process = Process(connect(), stretch=8.0)
    process.batch([Delay(300_000_000)], timeout=0.1)
    with pytest.raises(AgentTimeout):
        process.batch([Delay(2_000_000_000)], timeout=0.1)


def test_a_pending_program_can_be_asked_and_waited_for(process: Process) -> None:
    pending = process.start(Program(setup=(Delay(50_000_000),)))
    assert not pending.done()
    with pytest.raises(RuntimeError, match="still runs"):
        process.syscall(Syscall.GETPID)
    assert pending.done(within=5)
    assert pending.wait().rounds[0].setup[0].ok
    assert process.syscall(Syscall.GETPID) == process.pid
    with pytest.raises(RuntimeError, match="taken already"):
        pending.wait()


def test_an_interrupted_call_leaves_no_process(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> bytes:
        raise KeyboardInterrupt

    transport = connect()
    process = Process(transport)
    monkeypatch.setattr(transport, "recv", interrupt)
    with pytest.raises(KeyboardInterrupt):
        process.syscall(Syscall.GETPID)
    assert not process.alive
    assert_gone(transport.child)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<II", 8, FrameKind.HELLO),
        struct.pack("<II", 8, 99),
        struct.pack("<II", 7, FrameKind.PROGRAM),
        struct.pack("<II", MAX_PAYLOAD + 8, FrameKind.PROGRAM),
        b"\xff" * 8,
    ],
)
def test_what_is_no_frame_is_told_and_ends_the_agent(connect: Connect, header: bytes) -> None:
    transport = connect()
    reply(transport)
    transport.send(header)
    assert reply(transport) == (FrameKind.ERROR, b"this is no frame of a program")
    assert assert_gone(transport.child) == 1


def test_a_malformed_program_is_refused_wherever_it_is_broken(connect: Connect) -> None:
    """Cut short at each place, and each byte that must be sound made 0xff."""
    transport = connect()
    reply(transport)
    sound = encode_program(
        Program(setup=(Delay(1),), threads=((Delay(1),), (Delay(1),)), teardown=(Delay(1),))
    )[8:]
    header, counts, op = range(4, 28), range(32, 40), (40, 42, 48, 64)
    broken = [sound[:size] for size in range(0, len(sound), 8)] + [sound + bytes(8)]
    broken += [sound[:at] + b"\xff" + sound[at + 1 :] for at in (*header, *counts, *op)]
    for payload in broken:
        transport.send(encode_frame(FrameKind.PROGRAM, payload))
        assert reply(transport)[0] == FrameKind.ERROR
    transport.send(encode_frame(FrameKind.PROGRAM, sound))
    assert reply(transport)[0] == FrameKind.RESULTS


def test_a_frame_may_arrive_in_pieces_and_with_the_next_one(connect: Connect) -> None:
    transport = connect()
    reply(transport)
    frame = encode_program(Program(setup=(Call(Syscall.GETPID),)))
    for piece in (frame[:3], frame[3:20], frame[20:] + frame + frame[:9], frame[9:]):
        transport.send(piece)
        time.sleep(0.02)
    received = b""
    while len(received) < 3 * (8 + 32):
        received += transport.recv(time.monotonic() + 5)
    assert received.count(struct.pack("<q", transport.child.pid)) == 3


def test_no_agent_at_the_other_end(connect: Connect) -> None:
    transport = connect()
    transport.child.kill()
    transport.recv(time.monotonic() + 5)
    with pytest.raises(AgentDied):
        Process(transport)


def test_many_agents_come_and_go(spawn: Callable[[], Process]) -> None:
    for _ in range(50):
        with spawn() as process:
            assert process.alive
