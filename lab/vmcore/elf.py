# SPDX-License-Identifier: GPL-2.0-only
"""A dump made an ELF core: physical memory, at the virtual addresses that the kernel has it.

gdb knows virtual addresses only, and drgn reads no dump of QEMU's in which no utsname is. So the
kernel's page tables are walked as the CPU does it (Intel SDM, volume 3, section 5.5). Pages of
zeros are holes in the file.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from lab.errors import ConfigurationError
from lab.vmcore.kdump import PAGE, Kdump

_NOTE = struct.Struct("<III")  # length of the name, of the content, type
# Of the notes named QEMU, one a CPU (target/i386/arch_dump.c: QEMUCPUState): CR0 to CR4
_REGISTERS = struct.Struct("<5Q")
_REGISTERS_AT = 392
_LA57 = 1 << 12  # in CR4: page tables of five levels
_PRESENT, _LARGE = 1 << 0, 1 << 7
_ADDRESS = 0x000F_FFFF_FFFF_F000
_ENTRIES = struct.Struct("<512Q")
# Documentation/arch/x86/x86_64/mm.rst: KASAN's shadow, terabytes of it made of the same few pages.
_SHADOW = range(0xFFFF_EC00_0000_0000, 0xFFFF_FC00_0000_0000)

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")  # 64 bits, little-endian
_CORE, _X86_64, _LOAD, _NOTES, _ALL = 4, 62, 1, 4, 7
_MOST_SEGMENTS = 0xFFFE

Mapping = tuple[int, int, int]  # virtual address, physical address, bytes


def write(dump: Kdump, path: Path) -> None:
    """Write the dump as an ELF core. Raises ConfigurationError where no CPU had page tables yet."""
    found = list(_joined(_clipped(_walk(dump), _ranges(dump.frames()))))[:_MOST_SEGMENTS]
    if not found:
        raise ConfigurationError("the guest ended before its kernel had page tables")
    notes_at = _HEADER.size + _SEGMENT.size * (len(found) + 1)
    memory_at = -(-(notes_at + len(dump.notes)) // PAGE) * PAGE
    with path.open("wb") as file:
        file.write(
            _HEADER.pack(
                *(_IDENT, _CORE, _X86_64, 1, 0, _HEADER.size, 0, 0),
                *(_HEADER.size, _SEGMENT.size, len(found) + 1, 0, 0, 0),
            )
        )
        size = len(dump.notes)
        file.write(_SEGMENT.pack(_NOTES, 0, notes_at, 0, 0, size, size, 0))
        for virtual, physical, size in found:
            place = memory_at + physical
            file.write(_SEGMENT.pack(_LOAD, _ALL, place, virtual, physical, size, size, 0))
        file.write(dump.notes)
        for frame, page in dump.pages():
            file.seek(memory_at + frame * PAGE)
            file.write(page)
        file.truncate(memory_at + (dump.frames()[-1] + 1) * PAGE)


def _walk(dump: Kdump) -> Iterator[Mapping]:
    """The upper half of the address space, the kernel's."""
    cr3, cr4 = _control_registers(dump.notes)
    top = 5 if cr4 & _LA57 else 4
    yield from _table(dump, (cr3 & _ADDRESS) // PAGE, top, -1 << (12 + 9 * top), slice(256, 512))


def _table(dump: Kdump, frame: int, level: int, base: int, which: slice) -> Iterator[Mapping]:
    if frame not in dump:
        return
    size = 1 << (12 + 9 * (level - 1))  # that an entry maps
    entries = _ENTRIES.unpack(dump.page(frame))
    for number in range(512)[which]:
        entry = entries[number]
        virtual = (base + number * size) % (1 << 64)
        if not entry & _PRESENT or virtual in _SHADOW:
            continue
        physical = entry & _ADDRESS
        if level == 1 or (entry & _LARGE and level <= 3):
            yield virtual, physical & -size, size
        else:
            yield from _table(dump, physical // PAGE, level - 1, virtual, slice(512))


def _control_registers(notes: bytes) -> tuple[int, int]:
    """CR3 and CR4 of the first CPU."""
    position = 0
    while position + _NOTE.size <= len(notes):
        name_size, size, _ = _NOTE.unpack_from(notes, position)
        name_at = position + _NOTE.size
        content_at = name_at + -(-name_size // 4) * 4
        if notes[name_at : name_at + name_size].rstrip(b"\0") == b"QEMU":
            registers = _REGISTERS.unpack_from(notes, content_at + _REGISTERS_AT)
            return registers[3], registers[4]
        position = content_at + -(-size // 4) * 4
    raise ConfigurationError("the dump has no note with a CPU's control registers")


def _ranges(frames: list[int]) -> list[range]:
    """Ascending page frames as ranges of physical addresses."""
    breaks = [0, *(i for i, (a, b) in enumerate(pairwise(frames), 1) if b != a + 1), len(frames)]
    return [
        range(frames[start] * PAGE, (frames[end - 1] + 1) * PAGE)
        for start, end in pairwise(breaks)
        if end > start
    ]


def _clipped(mappings: Iterator[Mapping], memory: list[range]) -> Iterator[Mapping]:
    """What of the mappings is memory: the rest are devices."""
    starts = [each.start for each in memory]
    for virtual, physical, size in mappings:
        for each in memory[max(bisect_right(starts, physical) - 1, 0) :]:
            if each.start >= physical + size:
                break
            start, end = max(physical, each.start), min(physical + size, each.stop)
            if start < end:
                yield virtual + start - physical, start, end - start


def _joined(mappings: Iterator[Mapping]) -> Iterator[Mapping]:
    """The same with neighbours made one."""
    last: Mapping | None = None
    for virtual, physical, size in mappings:
        if last and (last[0] + last[2], last[1] + last[2]) == (virtual, physical):
            last = (last[0], last[1], last[2] + size)
            continue
        if last:
            yield last
        last = (virtual, physical, size)
    if last:
        yield last
