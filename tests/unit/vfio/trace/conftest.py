# SPDX-License-Identifier: GPL-2.0-only
"""A guest that answers as a test wants it to: what it answered is read as it was recorded."""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from errno import errorcode

import pytest

from lab.agent.program import Arg, Buf, Call, Imm, Op, Program, Read
from lab.agent.syscalls import Syscall
from lab.agent.trace import Began, Exchange, Trace
from lab.vfio.trace import readable

PID = 70
_RESULT = struct.Struct("<qihhQQ")  # as lab.agent.protocol has it

Answer = tuple[int, int, bytes]
"""What a call returned, its errno, and what its buffer holds then (b"" for: what it held)."""


def result_bytes(op: Op, answer: Answer, start: int) -> bytes:
    """As an agent sends it; each call takes a microsecond."""
    value, errno, after = answer
    args = (Buf(size=op.length),) if isinstance(op, Read) else getattr(op, "args", ())
    returned = [arg for arg in args if isinstance(arg, Buf) and arg.returned]
    data = b"".join(
        (after or arg.data).ljust(arg.length, b"\0") + bytes(-arg.length % 8) for arg in returned
    )
    return _RESULT.pack(value, errno, 0, 0, start, start + 1000) + data


@dataclass
class Guest:
    """Makes calls, each a millisecond after the last."""

    trace: Trace = field(default_factory=Trace)
    now: int = 2_000_000_000

    def __post_init__(self) -> None:
        self.trace.add(Began(PID, "agent"))

    def run(self, program: Program, answers: Iterable[bytes] | None, *, pid: int = PID) -> None:
        """A program; `answers` are as `result_bytes` has them, None: there is none."""
        exchange = Exchange(pid, program, self.now / 1e9, 100)
        self.trace.add(exchange)
        if answers is not None:
            self.trace.answer(exchange, b"".join(answers))

    def op(self, op: Op, value: int = 0, errno: int = 0, after: bytes = b"") -> None:
        answer = result_bytes(op, (value, errno, after), self.now)
        self.run(Program(setup=(op,)), [answer])
        self.now += 1_000_000

    def call(
        self, nr: int, *args: int | bytes | bytearray, returns: int = 0, after: bytes = b""
    ) -> None:
        """A system call; a negative `returns` is an errno. A bytearray is given back."""
        given: list[Arg] = [
            Imm(arg)
            if isinstance(arg, int)
            else Buf(bytes(arg), returned=isinstance(arg, bytearray))
            for arg in args
        ]
        value, errno = (-1, -returns) if -returns in errorcode else (returns, 0)
        self.op(Call(nr, tuple(given)), value, errno, after)

    def open(self, path: str, fd: int) -> None:
        self.call(Syscall.OPENAT, -100, path.encode() + b"\0", 2, 0, returns=fd)

    def ioctl(
        self, fd: int, request: int, arg: object = 0, *, returns: int = 0, after: object = b""
    ) -> None:
        """`arg` is a number, bytes that go in, or a structure that comes back as `after`."""
        given = arg if isinstance(arg, int | bytes) else bytearray(bytes(arg))  # type: ignore[call-overload]
        self.call(Syscall.IOCTL, fd, request, given, returns=returns, after=bytes(after))  # type: ignore[call-overload]

    @property
    def text(self) -> str:
        """All of it."""
        return readable(self.trace.take(), Trace().take(), 1)

    @property
    def calls(self) -> list[str]:
        """Of the processes under test, without who and when."""
        section = self.text.split("\n\n")[1]
        return [line[20:].partition(" <0.0")[0] for line in section.splitlines()[1:]]


@pytest.fixture
def guest() -> Guest:
    return Guest()


Round = Callable[[Program, Sequence[Answer]], bytes]


@pytest.fixture
def round_of() -> Round:
    """Results of one round, in the order of the program's ops, each a microsecond long."""

    def make(program: Program, answers: Sequence[Answer]) -> bytes:
        ops = [*program.setup, *(op for ops in program.threads for op in ops), *program.teardown]
        return b"".join(
            result_bytes(op, answer, 3_000_000_000 + 2000 * place)
            for place, (op, answer) in enumerate(zip(ops, answers, strict=True))
        )

    return make
