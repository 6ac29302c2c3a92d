# SPDX-License-Identifier: GPL-2.0-only
"""An open file of a remote process."""

import mmap
from types import TracebackType
from typing import Self

from lab.agent.agent import Agent, Argument
from lab.agent.memory import READ_WRITE, Mapping
from lab.agent.program import Arg, Buf, Call, Imm
from lab.agent.syscalls import Syscall, name_of


class RemoteFile:
    """An open file of a process, until `close`. Its calls raise RemoteError."""

    def __init__(self, process: Agent, fd: int, name: str) -> None:
        self.process = process
        self.name = name
        self._fd: int | None = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A process that is gone has nothing open.
        if self.process.alive:
            self.close()

    @property
    def fd(self) -> int:
        """Raises ValueError once closed: the number may be another file's by now."""
        if self._fd is None:
            raise ValueError(f"{self.name} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        return self._fd is None

    def close(self) -> None:
        """A second time does nothing."""
        if self._fd is not None:
            self.process.syscall(Syscall.CLOSE, self.detach(), what=self.name)

    def detach(self) -> int:
        """The fd, which the caller closes from now on."""
        fd, self._fd = self.fd, None
        return fd

    def ioctl(
        self, request: int, arg: Argument = 0, *, what: str = "", timeout: float | None = None
    ) -> int:
        return self.process.ioctl(self.fd, request, arg, what=what, timeout=timeout)

    def read(self, length: int) -> bytes:
        """At most `length` bytes."""
        return self._fill(Syscall.READ, length)

    def pread(self, length: int, offset: int) -> bytes:
        """At most `length` bytes from `offset`."""
        return self._fill(Syscall.PREAD64, length, Imm(offset))

    def write(self, data: bytes) -> int:
        """How many of the bytes were written."""
        return self.process.syscall(Syscall.WRITE, self.fd, data, len(data), what=self.name)

    def pwrite(self, data: bytes, offset: int) -> int:
        """How many of the bytes were written."""
        return self.process.syscall(
            Syscall.PWRITE64, self.fd, data, len(data), offset, what=self.name
        )

    def mmap(
        self,
        length: int,
        prot: int = READ_WRITE,
        flags: int = mmap.MAP_SHARED,
        offset: int = 0,
    ) -> Mapping:
        """Lengths and offsets in bytes."""
        return Mapping.of(self.process, length, prot, flags, self.fd, offset, what=self.name)

    def _fill(self, nr: Syscall, length: int, *more: Arg) -> bytes:
        call = Call(nr, (Imm(self.fd), Buf(size=length), Imm(length), *more))
        result = self.process.checked(call, f"{name_of(nr)} {self.name}")
        return result.data[: result.value]
