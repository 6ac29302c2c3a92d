# SPDX-License-Identifier: GPL-2.0-only
"""What an agent did is taken down, and takes a bounded room."""

import os
import signal

import pytest

from lab.agent.errors import AgentDied, AgentRefused
from lab.agent.process import Process
from lab.agent.program import Call, Delay, Imm, Load, Program, Reg
from lab.agent.syscalls import Syscall
from lab.agent.trace import Began, Ended, Exchange, Trace

from .conftest import Connect


def test_programs_and_answers_are_taken_down_in_their_order(connect: Connect) -> None:
    trace = Trace()
    process = Process(connect(), name="one", trace=trace)
    process.syscall(Syscall.GETPID)
    process.close()
    process.close()
    began, exchange, ended = trace.take().events
    assert began == Began(process.pid, "one")
    assert isinstance(exchange, Exchange)
    result = exchange.result()
    assert result
    assert result.rounds[0].setup[0].value == process.pid
    assert isinstance(ended, Ended)
    assert ended.why == "it was closed"
    assert ended.at > exchange.sent
    assert trace.take().events == ()


def test_a_call_that_killed_its_process_is_there_without_an_answer(connect: Connect) -> None:
    trace = Trace()
    process = Process(connect(), trace=trace)
    with pytest.raises(AgentDied):
        process.syscall(Syscall.KILL, process.pid, signal.SIGKILL)
    with pytest.raises(AgentDied):
        process.syscall(Syscall.GETPID)
    _, exchange, ended = trace.take().events
    assert isinstance(exchange, Exchange)
    assert exchange.result() is None
    assert isinstance(ended, Ended)


def test_a_program_is_there_while_it_runs(connect: Connect) -> None:
    trace = Trace()
    process = Process(connect(), trace=trace)
    pending = process.start(Program(setup=(Delay(50_000_000),)))
    recording = trace.take()
    assert len(recording.events) == 2
    pending.wait()
    assert isinstance(recording.events[1], Exchange)
    assert recording.events[1].result() is None  # it is as it was when it was taken


def test_a_refused_program_says_why(connect: Connect) -> None:
    trace = Trace()
    process = Process(connect(), trace=trace)
    with pytest.raises(AgentRefused):
        process.batch([Load(Reg(0), 3)])
    exchange = trace.take().events[1]
    assert isinstance(exchange, Exchange)
    assert exchange.note.startswith("refused: ")


def test_an_exec_is_told(connect: Connect) -> None:
    trace = Trace()
    process = Process(connect(), trace=trace)
    process.exec()
    notes = [event.note for event in trace.take().events if isinstance(event, Exchange)]
    assert notes[-1] == "a new agent"


def test_the_latest_calls_are_kept_as_far_as_there_is_room(connect: Connect) -> None:
    trace = Trace(room=100_000)
    process = Process(connect(), trace=trace)
    for number in range(500):
        process.batch([Call(Syscall.CLOSE, (Imm(-1 - number),))])
    data = os.urandom(30_000)
    with process.mmap(30_000) as memory:
        memory.write(0, data)
        assert memory.read() == data
    recording = trace.take()
    assert recording.dropped + len(recording.events) == 1 + 500 + 4
    kept = [event for event in recording.events if isinstance(event, Exchange)]
    assert 10 < len(kept) < 60
    assert kept[-1].program.setup[0] == Call(
        Syscall.MUNMAP, (Imm(memory.address), Imm(memory.length))
    )


def test_an_answer_alone_may_be_too_large(connect: Connect) -> None:
    trace = Trace(room=100_000)
    process = Process(connect(), trace=trace)
    with process.mmap(1 << 20) as memory:
        memory.read()
    recording = trace.take()
    assert len(recording.events) == 1
    assert recording.dropped == 3


def test_without_a_trace_nothing_is_kept(connect: Connect) -> None:
    trace = Trace(room=0)
    process = Process(connect(), trace=trace)
    process.syscall(Syscall.GETPID)
    assert trace.take().events == ()
