# SPDX-License-Identifier: GPL-2.0-only
"""System calls that many programs make, as ops."""

import os

from lab.agent.program import Arg, Buf, Call, Imm, Reg
from lab.agent.syscalls import Syscall

AT_FDCWD = -100
_PATH_MAX = 4096

StrPath = str | os.PathLike[str]


def path_bytes(path: StrPath) -> bytes:
    """A path as a system call takes it."""
    return os.fsencode(path) + b"\0"


def at(path: StrPath) -> tuple[Arg, Arg]:
    """The first two arguments of the calls whose names end in `at`."""
    return Imm(AT_FDCWD), Buf(path_bytes(path), returned=False)


def openat(path: StrPath, register: int = 0, *, flags: int = os.O_RDWR, mode: int = 0) -> Call:
    """Open a file; its fd goes to `register`."""
    return Call(Syscall.OPENAT, (*at(path), Imm(flags), Imm(mode)), register)


def close(register: int = 0) -> Call:
    """Close the file whose fd is in `register`."""
    return Call(Syscall.CLOSE, (Reg(register),))


def write_file(path: StrPath, data: bytes, *, register: int = 0) -> tuple[Call, Call, Call]:
    """All of it into an existing file, in one write(), as sysfs wants."""
    content = Buf(data, returned=False), Imm(len(data))
    return (
        openat(path, register, flags=os.O_WRONLY | os.O_TRUNC),
        Call(Syscall.WRITE, (Reg(register), *content)),
        close(register),
    )


def readlinkat(path: StrPath) -> Call:
    """Where a symbolic link points to: as many bytes of the result's data as its value says."""
    return Call(Syscall.READLINKAT, (*at(path), Buf(size=_PATH_MAX), Imm(_PATH_MAX)))
