# SPDX-License-Identifier: GPL-2.0-only
"""An agent as its host sees it: it runs programs, and single system calls."""

import ctypes
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from lab.agent.channel import Channel, Transport
from lab.agent.errors import AgentRefused, check
from lab.agent.program import Arg, Buf, Call, Imm, Op, Program, ProgramResult, Result
from lab.agent.protocol import FrameKind, decode_hello, decode_results, encode_program
from lab.agent.syscalls import Syscall, name_of
from lab.agent.trace import Began, Ended, Exchange, Trace

InOut = bytearray | ctypes.Structure | ctypes.Union | ctypes.Array[Any]
"""A buffer that is updated in place with what the system call left in it."""
Argument = int | bytes | InOut


class Agent:
    """What makes the calls of one process in the guest, which ends when it is closed.

    `timeout` is for each call that brings none of its own, in seconds; in a guest that is slower
    than others every timeout is `stretch` times as long. Raises AgentDied or AgentTimeout when no
    agent answers at the other end of `transport`, which is closed then. `whereabouts` tells for a
    PID where the process is that did not answer in time, for messages. All that it does is taken
    down in `trace`.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: float = 30.0,
        stretch: float = 1.0,
        name: str = "agent",
        whereabouts: Callable[[int], str] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.timeout = timeout
        self._stretch = stretch
        self._trace = trace or Trace(room=0)
        self._pid = 0  # until it has said hello
        self._channel = Channel(transport, name, timeout * stretch, self._ended, whereabouts)
        self._pid = self._channel.hello.pid
        self._trace.add(Began(self._pid, name))
        self._running: Exchange | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Its name and PID, for messages."""
        return self._channel.name

    @property
    def pid(self) -> int:
        """In its own PID namespace."""
        return self._pid

    @property
    def page_size(self) -> int:
        """In bytes."""
        return self._channel.hello.page_size

    @property
    def alive(self) -> bool:
        """False once it was closed or was seen to be gone."""
        return self._channel.alive

    def close(self) -> None:
        """End the process; a second time does nothing."""
        self._channel.close("it was closed")

    # Programs

    def start(self, program: Program, *, timeout: float | None = None) -> "Pending":
        """Let it run, and do something else on the host meanwhile.

        `timeout` seconds from now are its time. The process can do nothing else until then.
        """
        if self.alive and self._running:
            raise RuntimeError(f"{self.name} still runs a program")
        frame = encode_program(program)
        exchange = Exchange(self._pid, program, time.monotonic(), len(frame))
        deadline = self._after(self.timeout if timeout is None else timeout)
        with self._channel.use() as frames:
            self._trace.add(exchange)
            frames.send(frame)
        self._running = exchange
        return Pending(partial(self._answered, exchange), partial(self._finish, exchange), deadline)

    def run(self, program: Program, *, timeout: float | None = None) -> ProgramResult:
        """Its results. Raises AgentTimeout, AgentDied or AgentRefused, as do all below."""
        return self.start(program, timeout=timeout).wait()

    def batch(self, ops: Sequence[Op], *, timeout: float | None = None) -> tuple[Result, ...]:
        """Run ops one after the other in one round trip; a failed one stops nothing."""
        return self.run(Program(setup=tuple(ops)), timeout=timeout).rounds[0].setup

    def checked(self, op: Op, what: str, *, timeout: float | None = None) -> Result:
        """Run one op. Raises RemoteError or RemoteFault, with `what` in the message."""
        return check(self.batch([op], timeout=timeout)[0], what)

    # System calls

    def syscall(
        self, nr: int, *args: Argument, what: str = "", timeout: float | None = None
    ) -> int:
        """What the system call returned. Raises RemoteError when it failed.

        A pointer argument is bytes, which go in, or an `InOut`, which is updated in place, also
        when the call fails. `what` says in the error's message what the call was about.
        """
        call = Call(nr, tuple(map(_operand, args)))
        result = self.batch([call], timeout=timeout)[0]
        changed = (arg for arg in args if not isinstance(arg, int | bytes))
        for arg, data in zip(changed, result.buffers, strict=True):
            (ctypes.c_char * len(data)).from_buffer(arg).raw = data
        return check(result, f"{name_of(nr)} {what}".rstrip()).value

    def ioctl(
        self,
        fd: int,
        request: int,
        arg: Argument = 0,
        *,
        what: str = "",
        timeout: float | None = None,
    ) -> int:
        """As `syscall`; `what` is the request's name, such as VFIO_DEVICE_RESET."""
        name = what or f"{request:#x}"
        return self.syscall(Syscall.IOCTL, fd, request, arg, what=name, timeout=timeout)

    def _execve(self, call: Call) -> Result | None:
        """How the call failed; None when a new agent has said hello in this one's place."""
        program = Program(setup=(call,))
        frame = encode_program(program)
        exchange = Exchange(self._pid, program, time.monotonic(), len(frame))
        with self._channel.use() as frames:
            self._trace.add(exchange)
            frames.send(frame)
            kind, payload = frames.receive(self._after(self.timeout))
            if kind == FrameKind.HELLO:
                decode_hello(payload)
                exchange.note = "a new agent"
                return None
            self._trace.answer(exchange, payload)
            return decode_results(program, payload).rounds[0].setup[0]

    def _after(self, seconds: float) -> float:
        """That many seconds from now, as long as they are in this guest."""
        return time.monotonic() + seconds * self._stretch

    def _ended(self, why: str) -> None:
        if self._pid:
            self._trace.add(Ended(self._pid, why, time.monotonic()))

    def _answered(self, exchange: Exchange, deadline: float) -> bool:
        self._raise_if_taken(exchange)
        with self._channel.use() as frames:
            return frames.begins(deadline)

    def _finish(self, exchange: Exchange, deadline: float) -> ProgramResult:
        self._raise_if_taken(exchange)
        with self._channel.use() as frames:
            kind, payload = frames.receive(deadline)
            refusal = payload.decode(errors="replace") if kind == FrameKind.ERROR else None
            result = None if refusal else decode_results(exchange.program, payload)
        self._running = None
        if result is None:
            exchange.note = f"refused: {refusal}"
            raise AgentRefused(f"{self.name} refused a program: {refusal}")
        self._trace.answer(exchange, payload)
        return result

    def _raise_if_taken(self, exchange: Exchange) -> None:
        if self.alive and self._running is not exchange:
            raise RuntimeError("the results of this program were taken already")


class Pending:
    """A program that runs in the guest while the host does something else."""

    def __init__(
        self,
        answered: Callable[[float], bool],
        finish: Callable[[float], ProgramResult],
        deadline: float,
    ) -> None:
        self._answered = answered
        self._finish = finish
        self._deadline = deadline

    def done(self, within: float = 0.0) -> bool:
        """Whether it ends within so many seconds; a program that does not goes on.

        Raises AgentDied.
        """
        return self._answered(time.monotonic() + within)

    def wait(self) -> ProgramResult:
        """Its results, once. Raises AgentTimeout, AgentDied or AgentRefused."""
        return self._finish(self._deadline)


def _operand(arg: Argument) -> Arg:
    if isinstance(arg, int):
        return Imm(arg)
    return Buf(bytes(arg), returned=not isinstance(arg, bytes))
