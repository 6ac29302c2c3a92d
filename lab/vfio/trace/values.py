# SPDX-License-Identifier: GPL-2.0-only
"""Numbers, flags and bytes, as a developer would write them."""

import errno
import mmap
import os
import signal
from collections.abc import Mapping
from enum import IntEnum, IntFlag

_SHOWN = 32  # bytes of a buffer
_PATH_SHOWN = 256
_SMALL = 10_000
_ESCAPES = {ord("\n"): "\\n", ord("\t"): "\\t", ord('"'): '\\"', ord("\\"): "\\\\", 0: "\\0"}

OPEN_FLAGS = {
    name: getattr(os, name)
    for name in ("O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND", "O_NONBLOCK",
                 "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_PATH")
}  # fmt: skip
PROTECTIONS = {name: getattr(mmap, name) for name in ("PROT_READ", "PROT_WRITE", "PROT_EXEC")}
MAP_FLAGS = {
    "MAP_SHARED": 0x01, "MAP_PRIVATE": 0x02, "MAP_FIXED": 0x10, "MAP_ANONYMOUS": 0x20,
    "MAP_LOCKED": 0x2000, "MAP_NORESERVE": 0x4000, "MAP_POPULATE": 0x8000, "MAP_HUGETLB": 0x40000,
}  # fmt: skip
_ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")


def number(value: int) -> str:
    """In decimal what is small, such as a count; in hexadecimal what may be an address."""
    return str(value) if -_SMALL < value < _SMALL else hex(value)


def named(value: int, names: Mapping[str, int]) -> str:
    """Bits by their names; those that have none in hexadecimal."""
    found = [name for name, bit in names.items() if bit and value & bit == bit]
    rest = value
    for name in found:
        rest &= ~names[name]
    return "|".join([*found, hex(rest)] if rest or not found else found) if value else "0"


def flags(value: int, kind: type[IntFlag]) -> str:
    return named(value, {name: int(member) for name, member in kind.__members__.items()})


def one_of(value: int, *kinds: type[IntEnum]) -> str:
    """Its name in the first of `kinds` that has it."""
    for kind in kinds:
        if value in (member.value for member in kind):
            return kind(value).name
    return number(value)


def open_flags(value: int) -> str:
    rest = value & ~os.O_ACCMODE
    access = _ACCESS[value & os.O_ACCMODE]
    return f"{access}|{named(rest, OPEN_FLAGS)}" if rest else access


def quoted(data: bytes, shown: int = _SHOWN) -> str:
    """As C writes a string; what is cut ends with dots."""
    return f'"{escaped(data[:shown])}"' + ("..." if len(data) > shown else "")


def escaped(data: bytes) -> str:
    """What is not printable ASCII is escaped as in C."""
    return "".join(
        _ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}")
        for byte in data
    )


def path(data: bytes) -> str:
    return quoted(data.partition(b"\0")[0], _PATH_SHOWN)


def error(value: int) -> str:
    """-1 and what it means, as strace tells it."""
    return f"-1 {errno.errorcode.get(value, value)} ({os.strerror(value)})"


def signal_name(value: int) -> str:
    try:
        return signal.Signals(value).name
    except ValueError:
        return f"signal {value}"
