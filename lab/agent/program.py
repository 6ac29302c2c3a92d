# SPDX-License-Identifier: GPL-2.0-only
"""What an agent can be asked to do, and what it answers.

A program is made of ops. Each op leaves a result, in each round.
"""

from dataclasses import dataclass

BARRIER_SIZE = 16
"""Bytes of a shared barrier. Zeroes are a valid start."""


@dataclass(frozen=True, slots=True)
class Imm:
    """A number known now; a negative one is passed as its two's complement."""

    value: int


@dataclass(frozen=True, slots=True)
class Reg:
    """What an earlier op left in a register, plus `offset`.

    All threads of a program share 32 registers of 64 bits. Each is -1 at the start
    of a round and after an op that failed or faulted: `close` of it is a harmless EBADF.
    """

    number: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Field:
    """`width` bytes at `offset` of a buffer that a register fills or that fill a register."""

    offset: int
    width: int
    register: int


@dataclass(frozen=True, slots=True)
class Buf:
    """A pointer to a buffer in the agent, which lives as long as the program.

    It holds `data`, with zeroes up to `size` bytes, anew in each round. `inputs` are filled
    from registers before the call, and `outputs` fill registers after it: so an fd that one
    op opened gets into the struct of the next. When `returned`, what the buffer holds after
    the call is a part of the result; when not, the kernel must only read it, for what it wrote
    there would last into the next round.
    """

    data: bytes = b""
    size: int | None = None
    returned: bool = True
    inputs: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()

    @property
    def length(self) -> int:
        return len(self.data) if self.size is None else self.size


Operand = Imm | Reg
Arg = Imm | Reg | Buf


@dataclass(frozen=True, slots=True)
class Call:
    """System call `nr`. Its value is what it returned, or -1 with `errno` set."""

    nr: int
    args: tuple[Arg, ...] = ()
    register: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """memcpy `length` bytes from `address`; for memory, since the accesses' width is open."""

    address: Operand
    length: int


@dataclass(frozen=True, slots=True)
class Write:
    """memcpy `data` to `address`."""

    address: Operand
    data: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """One volatile load of exactly `width` bytes. Its value is unsigned."""

    address: Operand
    width: int
    register: int | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """One volatile store of exactly `width` bytes."""

    address: Operand
    width: int
    value: Operand


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait `ns` nanoseconds, and `step_ns` more in each round: sweeps a race's window."""

    ns: int
    step_ns: int = 0


Op = Call | Read | Write | Load | Store | Delay


@dataclass(frozen=True, slots=True)
class Program:
    """What an agent runs in one go, `rounds` times.

    A round: `setup`; all `threads` meet, each runs its ops, all meet again; `teardown`. Setup
    and teardown run on the thread that runs the first of `threads`.

    `barrier` is the address of `BARRIER_SIZE` bytes of memory shared with other processes
    whose threads take part, `parties` the number of threads of them all. 0: there is no other
    process. All of them run the same number of rounds. Each thread keeps to a processor of its
    own as far as there are any, so that they start together: without, they mostly run in turn.
    """

    setup: tuple[Op, ...] = ()
    threads: tuple[tuple[Op, ...], ...] = ()
    teardown: tuple[Op, ...] = ()
    rounds: int = 1
    barrier: int = 0
    parties: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """A signal that a memory access raised: its number, `si_code` and `si_addr`."""

    signal: int
    code: int
    address: int


@dataclass(frozen=True, slots=True)
class Result:
    """What one op did.

    `value` is -1 when the call failed (`errno` is not 0 then) or the access faulted. `buffers`
    holds the op's returned buffers in the order of its arguments. Times are CLOCK_MONOTONIC of
    the guest, in nanoseconds.
    """

    value: int
    errno: int
    fault: Fault | None
    buffers: tuple[bytes, ...]
    start_ns: int
    end_ns: int

    @property
    def ok(self) -> bool:
        return not self.errno and self.fault is None

    @property
    def data(self) -> bytes:
        """The first returned buffer, or what a `Read` read; nothing if there is none."""
        return self.buffers[0] if self.buffers else b""


@dataclass(frozen=True, slots=True)
class Round:
    """Results of one round, in the order of the program's ops."""

    setup: tuple[Result, ...]
    threads: tuple[tuple[Result, ...], ...]
    teardown: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class ProgramResult:
    rounds: tuple[Round, ...]
