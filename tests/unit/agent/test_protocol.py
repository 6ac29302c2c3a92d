# SPDX-License-Identifier: GPL-2.0-only
"""The protocol's Python half by itself: no agent takes part."""

import struct

import pytest

from lab.agent.program import Buf, Call, Fault, Imm, Load, Program, Read, Reg
from lab.agent.protocol import (
    MAX_PAYLOAD,
    FrameKind,
    ProtocolError,
    decode_frame_header,
    decode_hello,
    decode_results,
    encode_frame,
    encode_program,
)


def record(value: int, errno: int = 0, signal: int = 0, code: int = 0) -> bytes:
    return struct.pack("<qihhQQ", value, errno, signal, code, 10, 20)


def test_a_frame_has_its_length_and_kind() -> None:
    frame = encode_frame(FrameKind.PROGRAM, b"12345678")
    assert decode_frame_header(frame[:8]) == (FrameKind.PROGRAM, 8)


@pytest.mark.parametrize(("length", "kind"), [(0, 0), (0, 5), (MAX_PAYLOAD + 1, 3)])
def test_a_header_of_no_frame_is_refused(length: int, kind: int) -> None:
    with pytest.raises(ProtocolError):
        decode_frame_header(struct.pack("<II", length, kind))


def test_an_agent_of_another_version_is_refused() -> None:
    with pytest.raises(ProtocolError, match="version 99"):
        decode_hello(struct.pack("<IIII", 99, 1, 4096, 0))
    with pytest.raises(ProtocolError, match="3 bytes"):
        decode_hello(b"123")


def test_every_frame_is_aligned() -> None:
    for size in range(10):
        program = Program(setup=(Call(0, (Buf(bytes(size)), Imm(-1), Reg(1, -8))),), threads=((),))
        assert len(encode_program(program)) % 8 == 0


@pytest.mark.parametrize(
    "op",
    [
        Call(-1),
        Call(0, (Imm(1 << 64),)),
        Call(0, (Imm(-(1 << 63) - 1),)),
        Call(0, (Reg(256),)),
        Load(Imm(0), 256),
        Read(Imm(0), 1 << 32),
    ],
)
def test_what_the_wire_cannot_hold_is_a_value_error(op: Call | Load | Read) -> None:
    with pytest.raises(ValueError, match=r"range|fit"):
        encode_program(Program(setup=(op,)))


def test_a_program_that_is_too_large_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="limit"):
        encode_program(Program(setup=(Call(0, (Buf(bytes(MAX_PAYLOAD)),)),)))


def test_results_go_to_their_ops_in_each_round() -> None:
    program = Program(
        setup=(Call(0, (Buf(size=3), Buf(b"in", returned=False), Buf(size=8))),),
        threads=((Load(Imm(0), 8),), (Call(0), Call(0))),
        teardown=(Load(Imm(0x10), 1),),
        rounds=2,
    )
    payload = b"".join(
        record(number)
        + b"abc\0\0\0\0\0"
        + b"8 bytes."
        + record(-1)
        + record(-1, 22)
        + record(3)
        + record(0x10, 0, 11, 1)
        for number in (1, 2)
    )
    first, second = decode_results(program, payload).rounds
    assert (first.setup[0].value, second.setup[0].value) == (1, 2)
    assert first.setup[0].buffers == (b"abc", b"8 bytes.")
    assert first.threads[0][0].value == (1 << 64) - 1  # a load is unsigned
    assert (first.threads[1][0].value, first.threads[1][0].errno) == (-1, 22)
    assert first.threads[1][1].ok
    assert first.teardown[0].fault == Fault(11, 1, 0x10)
    assert (first.teardown[0].value, first.teardown[0].ok) == (-1, False)
    assert (first.setup[0].start_ns, first.setup[0].end_ns) == (10, 20)


@pytest.mark.parametrize("payload", [b"", record(0)[:-8], record(0) + bytes(8), record(0) * 2])
def test_results_that_do_not_fit_the_program_are_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_results(Program(setup=(Call(0),)), payload)
