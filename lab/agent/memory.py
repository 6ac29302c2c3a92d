# SPDX-License-Identifier: GPL-2.0-only
"""Memory of a remote process: what `mmap` gave it, be it anonymous, a file's, or a BAR."""

import mmap
from types import TracebackType
from typing import Self

from lab.agent.agent import Agent
from lab.agent.program import Imm, Load, Op, Read, Result, Store, Write
from lab.agent.syscalls import Syscall

READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Mapping:
    """`length` bytes at `address` of a process, until `close` unmaps them.

    An access outside of it raises ValueError; one that the guest faults on raises
    RemoteFault. `read` and `write` copy, in whatever steps; `load` and `store` are one access
    of exactly `width` bytes, as device registers want.
    """

    def __init__(self, process: Agent, address: int, length: int, *, what: str = "mmap") -> None:
        self.process = process
        self.address = address
        self.length = length
        self.what = what
        self.closed = False

    @classmethod
    def of(
        cls,
        process: Agent,
        length: int,
        prot: int = READ_WRITE,
        flags: int = PRIVATE,
        fd: int = -1,
        offset: int = 0,
        *,
        what: str = "anonymous memory",
    ) -> Self:
        """Anonymous private memory unless `flags` and `fd` say otherwise; lengths in bytes.

        Raises RemoteError.
        """
        address = process.syscall(Syscall.MMAP, 0, length, prot, flags, fd, offset, what=what)
        return cls(process, address, length, what=what)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A process that is gone has nothing mapped.
        if self.process.alive:
            self.close()

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """All bytes from `offset` to the end, or `length` of them."""
        length = self.length - offset if length is None else length
        return self._access(Read(self._at(offset, length), length), offset).data

    def write(self, offset: int, data: bytes) -> None:
        self._access(Write(self._at(offset, len(data)), data), offset)

    def load(self, offset: int, width: int) -> int:
        """An unsigned number; `width` is 1, 2, 4 or 8 bytes."""
        return self._access(Load(self._at(offset, width), width), offset).value

    def store(self, offset: int, width: int, value: int) -> None:
        """The low `width` bytes of `value`; `width` is 1, 2, 4 or 8."""
        self._access(Store(self._at(offset, width), width, Imm(value)), offset)

    def close(self) -> None:
        """Unmap it; a second time does nothing."""
        if not self.closed:
            self.closed = True
            self.process.syscall(Syscall.MUNMAP, self.address, self.length, what=self.what)

    def _at(self, offset: int, length: int) -> Imm:
        if self.closed:
            raise ValueError(f"{self.what} is unmapped")
        if offset < 0 or length < 0 or offset + length > self.length:
            raise ValueError(
                f"{length} bytes at {offset:#x} are not within {self.what} of {self.length:#x}"
            )
        return Imm(self.address + offset)

    def _access(self, op: Op, offset: int) -> Result:
        name = type(op).__name__.lower()
        return self.process.checked(op, f"{name} at {offset:#x} of {self.what}")
