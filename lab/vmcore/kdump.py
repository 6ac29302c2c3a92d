# SPDX-License-Identifier: GPL-2.0-only
"""The pages in a dump of QEMU's format kdump-zlib.

It is makedumpfile's compressed format (IMPLEMENTATION in its sources; dump/dump.h in QEMU's), in
the flattened form, for pipes: records that say where in the file their bytes belong.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import ConfigurationError

PAGE = 4096
_FLAT = b"makedumpfile"
_FLAT_HEADER = 4096
_RECORD = struct.Struct(">qq")  # offset, size; an offset of -1 ends them
_SIGNATURE = b"KDUMP   "
_GEOMETRY = struct.Struct("<III")  # block size, blocks of the sub-header, of the bitmaps
_GEOMETRY_AT = 428
_NOTES = struct.Struct("<QQ")  # offset and size, in the sub-header
_NOTES_AT = 48
_DESCRIPTION = struct.Struct("<QIIQ")  # of a page: offset, size, how it is compressed, flags
_ZLIB = 1


@dataclass(frozen=True)
class Kdump:
    """A dump. `notes` are ELF notes: each CPU's registers, and the kernel's own (VMCOREINFO)."""

    notes: bytes
    _file: bytes
    _places: dict[int, tuple[int, int, int]]  # by page frame: offset, size, how it is compressed

    @classmethod
    def read(cls, path: Path) -> "Kdump":
        """Raises ConfigurationError for a file that is none, or was cut short."""
        try:
            file = _unflattened(path.read_bytes())
            return cls._of(file)
        except (OSError, ValueError, struct.error) as error:
            raise ConfigurationError(
                f"{path}: this is no dump of a guest's memory: {error}"
            ) from error

    @classmethod
    def _of(cls, file: bytes) -> "Kdump":
        if not file.startswith(_SIGNATURE):
            raise ValueError(f"it begins with {file[:8]!r}")
        block, sub_header, bitmaps = _GEOMETRY.unpack_from(file, _GEOMETRY_AT)
        offset, size = _NOTES.unpack_from(file, block + _NOTES_AT)
        second = block * (1 + sub_header) + block * bitmaps // 2  # the pages that are in the file
        frames = _set_bits(file[second : second + block * bitmaps // 2])
        table = file[block * (1 + sub_header + bitmaps) :]
        pages = _DESCRIPTION.iter_unpack(
            table[: len(table) // _DESCRIPTION.size * _DESCRIPTION.size]
        )
        places = {frame: place[:3] for frame, place in zip(frames, pages, strict=False)}
        return cls(file[offset : offset + size], file, places)

    def __contains__(self, frame: int) -> bool:
        return frame in self._places

    def frames(self) -> list[int]:
        """The page frames that the guest has memory at, ascending."""
        return list(self._places)

    def page(self, frame: int) -> bytes:
        """The content of a page frame. Raises KeyError where there is no memory."""
        offset, size, how = self._places[frame]
        data = self._file[offset : offset + size]
        return zlib.decompress(data) if how & _ZLIB else data

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Every page that is not all zeros, with its frame."""
        empty: set[int] = set()  # the offsets of zeros: all such pages share one
        for frame, (offset, _, _) in self._places.items():
            if offset in empty:
                continue
            page = self.page(frame)
            if page.count(0) == PAGE:
                empty.add(offset)
            else:
                yield frame, page


def _unflattened(data: bytes) -> bytes:
    if not data.startswith(_FLAT):
        return data
    file = bytearray()
    position = _FLAT_HEADER
    while True:
        offset, size = _RECORD.unpack_from(data, position)
        if offset < 0:
            return bytes(file)
        position += _RECORD.size
        if position + size > len(data):
            raise ValueError("it was cut short")
        if len(file) < offset + size:
            file.extend(bytes(offset + size - len(file)))
        file[offset : offset + size] = data[position : position + size]
        position += size


def _set_bits(bitmap: bytes) -> Iterator[int]:
    for number, byte in enumerate(bitmap):
        if byte:
            yield from (number * 8 + bit for bit in range(8) if byte >> bit & 1)
