# SPDX-License-Identifier: GPL-2.0-only
"""trace.dat, read as trace-cmd.dat.v6(5) says."""

import struct
from collections.abc import Callable

from lab.debug.tracedat import PAGE, Description, encode

_WHAT = Description(
    header_page="page",
    header_event="event",
    systems={"iommu": ["name: map", "name: unmap"], "ftrace": ["name: function"]},
    symbols="ffffffff81000000 T _text\n",
    formats="",
    commands="66 agent\n",
)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, size: int) -> bytes:
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, form: str) -> int:
        (found,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return int(found)

    def word(self) -> bytes:
        end = self.data.index(b"\0", self.place)
        found = self.take(end - self.place)
        self.place += 1
        return found

    def text(self, form: str) -> str:
        return self.take(self.number(form)).decode()

    def many(self, one: Callable[[], str]) -> list[str]:
        return [one() for _ in range(self.number("<I"))]


def test_every_part_is_where_a_reader_looks() -> None:
    pages = [b"\1" * PAGE * 2, b""]
    read = _Reader(encode(_WHAT, pages))
    assert read.take(10) == b"\x17\x08\x44tracing"
    assert read.word() == b"6"
    assert (read.number("B"), read.number("B"), read.number("<I")) == (0, 8, PAGE)
    assert (read.word(), read.text("<Q")) == (b"header_page", "page")
    assert (read.word(), read.text("<Q")) == (b"header_event", "event")
    assert read.many(lambda: read.text("<Q")) == ["name: function"]
    assert read.number("<I") == 1
    assert read.word() == b"iommu"
    assert read.many(lambda: read.text("<Q")) == ["name: map", "name: unmap"]
    assert read.text("<I") == _WHAT.symbols
    assert read.text("<I") == ""
    assert read.text("<Q") == _WHAT.commands
    assert read.number("<I") == len(pages)
    assert read.take(10) == b"options  \0"
    assert read.number("<H") == 0
    assert read.take(10) == b"flyrecord\0"
    for expected in pages:
        place, size = read.number("<Q"), read.number("<Q")
        assert place % PAGE == 0
        assert read.data[place : place + size] == expected
