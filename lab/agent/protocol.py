# SPDX-License-Identifier: GPL-2.0-only
"""What the lab and an agent say to each other: bytes in, bytes out, no I/O.

A frame is a length, a kind and a payload. The agent opens with a hello. After that each
frame to it is a program, answered by one frame of results or by an error: the agent found
the program malformed and ran nothing of it.

A program is made of ops. Each op leaves a result, in each round. Integers are
little-endian; everything but an error's text is padded to `ALIGNMENT`. `source/wire.h` is
the other half and changes with this file.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

PROTOCOL_VERSION = 1
MAX_PAYLOAD = 64 << 20
"""Bytes in one frame, either way."""
MAX_THREADS = 64
REGISTERS = 32
BARRIER_SIZE = 16
"""Bytes of a shared barrier. Zeroes are a valid start."""
ALIGNMENT = 8

WIDTHS = (1, 2, 4, 8)
_U64 = (1 << 64) - 1
_NO_REGISTER = 0xFF
_KIND_VALUE, _KIND_REGISTER, _KIND_BUFFER = 1, 2, 3
_CALL, _READ, _WRITE, _LOAD, _STORE, _DELAY = range(1, 7)

_FRAME = struct.Struct("<II")
_HELLO = struct.Struct("<IIII")
_PROGRAM = struct.Struct("<IIQIIII")
_OP = struct.Struct("<BBBBI")
_ARG = struct.Struct("<BBBBIQ")
_FIELD = struct.Struct("<IBBBB")
_RESULT = struct.Struct("<qihhQQ")

FRAME_HEADER = _FRAME.size


class ProtocolError(ValueError):
    """Bytes that no agent of this version sends."""


class Syscall(IntEnum):
    """System calls by number on x86_64 (`arch/x86/entry/syscalls/syscall_64.tbl`)."""

    READ = 0
    WRITE = 1
    OPEN = 2
    CLOSE = 3
    POLL = 7
    LSEEK = 8
    MMAP = 9
    MPROTECT = 10
    MUNMAP = 11
    IOCTL = 16
    PREAD64 = 17
    PWRITE64 = 18
    READV = 19
    WRITEV = 20
    SCHED_YIELD = 24
    MREMAP = 25
    MADVISE = 28
    DUP = 32
    DUP2 = 33
    NANOSLEEP = 35
    GETPID = 39
    SENDMSG = 46
    RECVMSG = 47
    SOCKETPAIR = 53
    FORK = 57
    EXECVE = 59
    WAIT4 = 61
    KILL = 62
    FCNTL = 72
    FTRUNCATE = 77
    SETUID = 105
    SETGID = 106
    GETUID = 102
    GETGID = 104
    GETEUID = 107
    GETEGID = 108
    SETGROUPS = 116
    SETRESUID = 117
    SETRESGID = 119
    CAPGET = 125
    CAPSET = 126
    MLOCK = 149
    MUNLOCK = 150
    MLOCKALL = 151
    MUNLOCKALL = 152
    PRCTL = 157
    SYNC = 162
    DELETE_MODULE = 176
    GETTID = 186
    FUTEX = 202
    SCHED_SETAFFINITY = 203
    GETDENTS64 = 217
    TGKILL = 234
    EXIT_GROUP = 231
    OPENAT = 257
    MKDIRAT = 258
    FCHOWNAT = 260
    NEWFSTATAT = 262
    UNLINKAT = 263
    READLINKAT = 267
    FACCESSAT = 269
    PPOLL = 271
    UNSHARE = 272
    EVENTFD2 = 290
    EPOLL_CREATE1 = 291
    DUP3 = 292
    PIPE2 = 293
    EPOLL_CTL = 233
    EPOLL_PWAIT = 281
    PRLIMIT64 = 302
    FINIT_MODULE = 313
    MEMFD_CREATE = 319
    STATX = 332
    PIDFD_OPEN = 434
    CLOSE_RANGE = 436
    PIDFD_GETFD = 438


class FrameKind(IntEnum):
    HELLO = 1
    PROGRAM = 2
    RESULTS = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class Hello:
    """An agent's first word: its PID in its own PID namespace, and its page size in bytes."""

    pid: int
    page_size: int


@dataclass(frozen=True, slots=True)
class Imm:
    """A number known now; a negative one is passed as its two's complement."""

    value: int


@dataclass(frozen=True, slots=True)
class Reg:
    """What an earlier op left in a register, plus `offset`.

    All threads of a program share `REGISTERS` registers of 64 bits. Each is -1 at the start
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


def encode_frame(kind: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), kind) + payload


def decode_frame_header(header: bytes) -> tuple[int, int]:
    """The kind of the frame and the length in bytes of its payload."""
    length, kind = _FRAME.unpack(header)
    if length > MAX_PAYLOAD or kind not in tuple(FrameKind):
        raise ProtocolError(f"no frame starts with {header.hex(' ')}")
    return kind, length


def decode_hello(payload: bytes) -> Hello:
    """Raises ProtocolError for an agent of another version."""
    try:
        version, pid, page_size, _ = _HELLO.unpack(payload)
    except struct.error as error:
        raise ProtocolError(f"a hello of {len(payload)} bytes") from error
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"the agent speaks version {version}, the lab {PROTOCOL_VERSION}")
    return Hello(pid, page_size)


def encode_program(program: Program) -> bytes:
    """A frame. Raises ValueError for an operand that is out of range, or too large a frame."""
    counts = b"".join(struct.pack("<I", len(ops)) for ops in program.threads)
    parts = [
        _PROGRAM.pack(
            program.rounds,
            len(program.threads),
            program.barrier,
            program.parties,
            len(program.setup),
            len(program.teardown),
            0,
        ),
        _padded(counts),
    ]
    try:
        for op in _ops(program):
            _encode_op(op, parts)
    except struct.error as error:
        raise ValueError(f"an op is out of range: {error}") from error
    payload = b"".join(parts)
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a program of {len(payload)} bytes; {MAX_PAYLOAD} are the limit")
    return encode_frame(FrameKind.PROGRAM, payload)


def decode_results(program: Program, payload: bytes) -> ProgramResult:
    """What the agent made of `program`. Raises ProtocolError for bytes that do not fit it."""
    position = 0

    def results(ops: Sequence[Op]) -> Iterator[Result]:
        nonlocal position
        for op in ops:
            result, position = _decode_result(op, payload, position)
            yield result

    try:
        rounds = tuple(
            Round(
                tuple(results(program.setup)),
                tuple(tuple(results(ops)) for ops in program.threads),
                tuple(results(program.teardown)),
            )
            for _ in range(program.rounds)
        )
    except struct.error as error:
        raise ProtocolError("results are cut short") from error
    if position != len(payload):
        raise ProtocolError(f"results are {len(payload)} bytes, the program's are {position}")
    return ProgramResult(rounds)


def _ops(program: Program) -> Iterator[Op]:
    yield from program.setup
    for ops in program.threads:
        yield from ops
    yield from program.teardown


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)


def _wire(op: Op) -> tuple[int, int | None, int, int, tuple[Arg, ...]]:
    """Code, register, width, number and arguments."""
    match op:
        case Call(nr, args, register):
            return _CALL, register, 0, nr, args
        case Read(address, length):
            return _READ, None, 0, 0, (address, Buf(size=length))
        case Write(address, data):
            return _WRITE, None, 0, 0, (address, Buf(data, returned=False))
        case Load(address, width, register):
            return _LOAD, register, width, 0, (address,)
        case Store(address, width, value):
            return _STORE, None, width, 0, (address, value)
        case Delay(ns, step_ns):
            return _DELAY, None, 0, 0, (Imm(ns), Imm(step_ns))


def _encode_op(op: Op, parts: list[bytes]) -> None:
    code, register, width, nr, args = _wire(op)
    target = _NO_REGISTER if register is None else register
    parts.append(_OP.pack(code, target, len(args), width, nr))
    for arg in args:
        _encode_arg(arg, parts)


def _encode_arg(arg: Arg, parts: list[bytes]) -> None:
    match arg:
        case Imm(value):
            parts.append(_ARG.pack(_KIND_VALUE, 0, 0, 0, 0, _u64(value)))
        case Reg(number, offset):
            parts.append(_ARG.pack(_KIND_REGISTER, number, 0, 0, 0, _u64(offset)))
        case Buf():
            # What is not returned is used where it lies in the frame, so it lies there whole.
            data = arg.data if arg.returned else arg.data.ljust(arg.length, b"\0")
            fields = len(arg.inputs) + len(arg.outputs)
            parts.append(_ARG.pack(_KIND_BUFFER, 0, fields, arg.returned, arg.length, len(data)))
            for out, chosen in enumerate((arg.inputs, arg.outputs)):
                parts.extend(
                    _FIELD.pack(field.offset, field.width, field.register, out, 0)
                    for field in chosen
                )
            parts.append(_padded(data))


def _u64(value: int) -> int:
    if not -(1 << 63) <= value <= _U64:
        raise ValueError(f"{value:#x} does not fit into 64 bits")
    return value & _U64


def _returned_lengths(op: Op) -> list[int]:
    return [arg.length for arg in _wire(op)[4] if isinstance(arg, Buf) and arg.returned]


def _decode_result(op: Op, payload: bytes, position: int) -> tuple[Result, int]:
    value, errno, signal, code, start, end = _RESULT.unpack_from(payload, position)
    position += _RESULT.size
    buffers = []
    for length in _returned_lengths(op):
        buffers.append(payload[position : position + length])
        position += length + -length % ALIGNMENT
    fault = Fault(signal, code, value & _U64) if signal else None
    if fault:
        value = -1
    elif isinstance(op, Load):
        value &= _U64
    return Result(value, errno, fault, tuple(buffers), start, end), position
