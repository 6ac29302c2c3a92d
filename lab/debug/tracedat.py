# SPDX-License-Identifier: GPL-2.0-only
"""A trace in the form of trace-cmd and KernelShark, version 6: see trace-cmd.dat.v6(5)."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAGE = 4096
_MAGIC = b"\x17\x08\x44tracing"
_LITTLE_ENDIAN, _LONG = 0, 8
_FTRACE = "ftrace"  # the system whose events are no tracepoints: it has a place of its own
_NO_OPTIONS = struct.pack("<H", 0)


@dataclass(frozen=True)
class Description:
    """What tells a reader how the records of this kernel look: files of its tracefs.

    `systems` are the formats of events by the events' system, `symbols` is /proc/kallsyms.
    """

    header_page: str
    header_event: str
    systems: Mapping[str, Sequence[str]]
    symbols: str
    formats: str
    commands: str


def encode(description: Description, cpus: Sequence[bytes]) -> bytes:
    """The whole file; `cpus` are the pages of each CPU's buffer."""
    head = bytearray(_MAGIC + b"6\0")
    head += struct.pack("<BBI", _LITTLE_ENDIAN, _LONG, PAGE)
    head += b"header_page\0" + _sized("<Q", description.header_page)
    head += b"header_event\0" + _sized("<Q", description.header_event)
    head += _events(description.systems.get(_FTRACE, ()))
    systems = {name: each for name, each in description.systems.items() if name != _FTRACE}
    head += struct.pack("<I", len(systems))
    for name, formats in sorted(systems.items()):
        head += name.encode() + b"\0" + _events(formats)
    head += _sized("<I", description.symbols)
    head += _sized("<I", description.formats)
    head += _sized("<Q", description.commands)
    head += struct.pack("<I", len(cpus))
    head += b"options  \0" + _NO_OPTIONS
    head += b"flyrecord\0"
    place = _aligned(len(head) + 16 * len(cpus))
    data = bytearray()
    for pages in cpus:
        head += struct.pack("<QQ", place + len(data), len(pages))
        data += pages
    return bytes(head.ljust(place, b"\0") + data)


def _events(formats: Sequence[str]) -> bytes:
    return struct.pack("<I", len(formats)) + b"".join(_sized("<Q", each) for each in formats)


def _sized(size: str, text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return struct.pack(size, len(data)) + data


def _aligned(size: int) -> int:
    return -(-size // PAGE) * PAGE
