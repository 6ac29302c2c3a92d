# SPDX-License-Identifier: GPL-2.0-only
"""A dump as QEMU writes it, and the ELF core that is made of it."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import ConfigurationError
from lab.vmcore import elf
from lab.vmcore.kdump import PAGE, Kdump

_PRESENT, _LARGE = 1, 1 << 7
_TEXT = 0xFFFF_FFFF_8000_0000
_DIRECT = 0xFFFF_8880_0000_0000


def _table(entries: dict[int, int]) -> bytes:
    return struct.pack("<512Q", *(entries.get(number, 0) for number in range(512)))


def _index(address: int, level: int) -> int:
    return address >> (12 + 9 * (level - 1)) & 511


def _memory() -> dict[int, bytes]:
    """Two pages, 7 and 9: a 2 MiB page maps all memory, a 4 KiB page number 9 elsewhere. What
    stands in KASAN's shadow would lead round in circles."""
    tables: dict[int, dict[int, int]] = {frame: {} for frame in range(1, 7)}
    tables[1][_index(_DIRECT, 4)] = 2 * PAGE | _PRESENT
    tables[2][_index(_DIRECT, 3)] = 3 * PAGE | _PRESENT
    tables[3][_index(_DIRECT, 2)] = 0 | _PRESENT | _LARGE
    tables[1][_index(_TEXT, 4)] = 4 * PAGE | _PRESENT
    tables[4][_index(_TEXT, 3)] = 5 * PAGE | _PRESENT
    tables[5][_index(_TEXT, 2)] = 6 * PAGE | _PRESENT
    tables[6][_index(_TEXT, 1)] = 9 * PAGE | _PRESENT
    tables[6][1] = 0xFE000 | _PRESENT  # a device: no memory
    tables[1][_index(0xFFFF_EC00_0000_0000, 4)] = 1 * PAGE | _PRESENT
    pages = {frame: _table(entries) for frame, entries in tables.items()}
    return pages | {0: bytes(PAGE), 7: b"seven".ljust(PAGE, b"."), 9: b"nine".ljust(PAGE, b".")}


def _notes() -> bytes:
    state = bytes(392) + struct.pack("<5Q", 0, 0, 0, 1 * PAGE, 0)
    other = struct.pack("<III", 5, 6, 1) + b"CORE\0\0\0\0" + b"regs..\0\0"
    return other + struct.pack("<III", 5, len(state), 0) + b"QEMU\0\0\0\0" + state


def _dump(memory: dict[int, bytes]) -> bytes:
    notes = _notes()
    header = bytearray(b"KDUMP   ".ljust(PAGE, b"\0"))
    struct.pack_into("<III", header, 428, PAGE, 1, 2)
    sub_header = bytearray(PAGE)
    struct.pack_into("<QQ", sub_header, 48, 0x10000, len(notes))
    bitmap = bytearray(PAGE)
    for frame in memory:
        bitmap[frame // 8] |= 1 << frame % 8
    at, table, pages = 0x20000, b"", b""
    for frame in sorted(memory):
        data, how = zlib.compress(memory[frame]), 1
        if frame == 7:
            data, how = memory[frame], 0
        table += struct.pack("<QIIQ", at + len(pages), len(data), how, 0)
        pages += data
    file = bytes(header) + bytes(sub_header) + bytes(bitmap) + bytes(bitmap) + table
    return file.ljust(0x10000, b"\0") + notes.ljust(0x10000, b"\0") + pages


def _flattened(file: bytes) -> bytes:
    """In records of odd sizes, the last one first."""
    records = [(start, file[start : start + 5000]) for start in range(0, len(file), 5000)]
    head = b"makedumpfile".ljust(4096, b"\0")
    body = b"".join(struct.pack(">qq", at, len(data)) + data for at, data in reversed(records))
    return head + body + struct.pack(">qq", -1, -1)


@pytest.fixture
def vmcore(tmp_path: Path) -> Path:
    """A dump of a small memory."""
    path = tmp_path / "vmcore"
    path.write_bytes(_flattened(_dump(_memory())))
    return path


def test_its_pages(vmcore: Path) -> None:
    dump = Kdump.read(vmcore)
    assert dump.frames() == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert dump.page(9) == b"nine".ljust(PAGE, b".")
    assert dump.page(7) == b"seven".ljust(PAGE, b".")
    assert 8 not in dump
    assert [frame for frame, _ in dump.pages()] == [1, 2, 3, 4, 5, 6, 7, 9]
    assert dump.notes == _notes()


def test_the_same_at_the_kernels_addresses(vmcore: Path, tmp_path: Path) -> None:
    core = tmp_path / "core"
    elf.write(Kdump.read(vmcore), core)
    data = core.read_bytes()
    (count,) = struct.unpack_from("<H", data, 56)
    segments = [struct.unpack_from("<IIQQQQQQ", data, 64 + 56 * n) for n in range(count)]
    note, *loads = segments
    assert data[note[2] : note[2] + note[5]] == _notes()
    found = {load[3]: (load[4], load[5], data[load[2] : load[2] + 4]) for load in loads}
    assert found == {
        _DIRECT: (0, 8 * PAGE, bytes(4)),
        _DIRECT + 9 * PAGE: (9 * PAGE, PAGE, b"nine"),
        _TEXT: (9 * PAGE, PAGE, b"nine"),
    }
    assert data.count(b"seven") == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:9000], "it was cut short"),
        (lambda data: data[:4100], "unpack_from requires"),
        (lambda _: b"\x7fELF", "it begins with"),
        (lambda _: b"", "it begins with"),
    ],
)
def test_what_is_no_dump(vmcore: Path, spoil: Callable[[bytes], bytes], words: str) -> None:
    vmcore.write_bytes(spoil(vmcore.read_bytes()))
    with pytest.raises(ConfigurationError, match=words):
        Kdump.read(vmcore)


def test_a_kernel_without_page_tables(tmp_path: Path) -> None:
    vmcore = tmp_path / "vmcore"
    vmcore.write_bytes(_dump({1: bytes(PAGE), 7: bytes(PAGE)}))
    with pytest.raises(ConfigurationError, match="before its kernel had page tables"):
        elf.write(Kdump.read(vmcore), tmp_path / "core")
