# SPDX-License-Identifier: GPL-2.0-only
"""What the lab and an agent say to each other: bytes in, bytes out, no I/O.

A frame is a length, a kind and a payload. The agent opens with a hello. After that each
frame to it is a program, answered by one frame of results or by an error: the agent found
the program malformed and ran nothing of it.

Integers are little-endian; everything but an error's text is padded to `ALIGNMENT`.
`source/wire.h` is the other half and changes with this file.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from lab.agent.program import (
    Arg,
    Buf,
    Call,
    Delay,
    Fault,
    Imm,
    Load,
    Op,
    Program,
    ProgramResult,
    Read,
    Reg,
    Result,
    Round,
    Store,
    Write,
)

PROTOCOL_VERSION = 1
MAX_PAYLOAD = 64 << 20
"""Bytes in one frame, either way."""
ALIGNMENT = 8

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
