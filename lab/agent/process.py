# SPDX-License-Identifier: GPL-2.0-only
"""A remote process: what a test holds to make system calls in a guest.

A Process belongs to one host thread at a time. What its calls raise is told in `errors`.
"""

import errno
import os
import struct
from collections.abc import Iterator, Sequence

from lab.agent.agent import Agent
from lab.agent.calls import StrPath, at, close, openat, path_bytes, readlinkat, write_file
from lab.agent.errors import RemoteError, check
from lab.agent.file import RemoteFile
from lab.agent.memory import PRIVATE, READ_WRITE, Mapping
from lab.agent.program import Buf, Call, Imm, Reg
from lab.agent.syscalls import Syscall, name_of

_SYSFS_FILE = 4096
_FEW_ENTRIES = 8192
_CHUNK = 65536
# A second read that asks for little tells whether the first one got all; a directory's must
# have room for the longest name.
_PROBE = 8
_PROBE_ENTRY = 320
_POINTER_ALIGNED = 64  # of exec's page: what its pointers stand behind


class Process(Agent):
    """One process in the guest, with its files and its memory, which go when it is closed."""

    def exec(self) -> None:
        """Become a new agent, as execve(2) does it: memory and threads are gone, the files that
        are not O_CLOEXEC stay. Raises RemoteError.
        """
        program = path_bytes("/proc/self/exe")
        words = self.mmap(self.page_size)
        words.write(0, program.ljust(_POINTER_ALIGNED, b"\0"))
        words.write(_POINTER_ALIGNED, struct.pack("<QQ", words.address, 0))
        arguments = words.address + _POINTER_ALIGNED
        call = Call(Syscall.EXECVE, (Imm(words.address), Imm(arguments), Imm(0)))
        if failed := self._execve(call):
            words.close()
            check(failed, "execve")

    # Files and memory

    def open(self, path: StrPath, flags: int = os.O_RDWR, mode: int = 0) -> RemoteFile:
        """Raises RemoteError. `flags` are those of `os`, as the guest has the same."""
        name = os.fspath(path)
        opened = self.checked(openat(path, flags=flags, mode=mode), f"openat {name}")
        return RemoteFile(self, opened.value, name)

    def adopt(self, fd: int, name: str) -> RemoteFile:
        """Own an fd that another call returned."""
        return RemoteFile(self, fd, name)

    def eventfd(self, value: int = 0, flags: int = 0) -> RemoteFile:
        """A counter that starts at `value`; see eventfd(2). Raises RemoteError."""
        return self.adopt(self.syscall(Syscall.EVENTFD2, value, flags), "eventfd")

    def memfd(self, length: int, name: str = "memfd") -> RemoteFile:
        """Memory of `length` zero bytes as a file. Raises RemoteError."""
        file = self.adopt(self.syscall(Syscall.MEMFD_CREATE, path_bytes(name), 0), name)
        try:
            self.syscall(Syscall.FTRUNCATE, file.fd, length, what=name)
        except RemoteError:
            file.close()
            raise
        return file

    def mmap(
        self,
        length: int,
        prot: int = READ_WRITE,
        flags: int = PRIVATE,
        fd: int = -1,
        offset: int = 0,
        *,
        what: str = "anonymous memory",
    ) -> Mapping:
        """Anonymous private memory unless `flags` and `fd` say otherwise; lengths in bytes."""
        return Mapping.of(self, length, prot, flags, fd, offset, what=what)

    # Small files, each in one round trip

    def read_text(self, path: StrPath) -> str:
        """A whole file; raises RemoteError."""
        return self._slurp(path, os.O_RDONLY, Syscall.READ, (_SYSFS_FILE, _PROBE)).decode(
            errors="surrogateescape"
        )

    def write_text(self, path: StrPath, text: str) -> None:
        """See `write_file`. Raises RemoteError."""
        data = text.encode(errors="surrogateescape")
        opened, written, _ = self.batch(write_file(path, data))
        check(opened, f"openat {os.fspath(path)}")
        if check(written, f"write {os.fspath(path)}").value != len(data):
            raise RemoteError(errno.EIO, f"write {os.fspath(path)}, cut short")

    def listdir(self, path: StrPath) -> list[str]:
        """Names in a directory, sorted; raises RemoteError."""
        entries = self._slurp(
            path,
            os.O_RDONLY | os.O_DIRECTORY,
            Syscall.GETDENTS64,
            (_FEW_ENTRIES, _PROBE_ENTRY),
        )
        return sorted(name for name in entry_names(entries) if name not in (".", ".."))

    def exists(self, path: StrPath) -> bool:
        """Whether it leads somewhere; raises RemoteError when that cannot be told."""
        result = self.batch([Call(Syscall.FACCESSAT, (*at(path), Imm(os.F_OK)))])[0]
        # ESRCH is what /proc says of a process that is just going.
        if result.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESRCH):
            return False
        return check(result, f"faccessat {os.fspath(path)}").ok

    def readlink(self, path: StrPath) -> str:
        """Where a symbolic link points to; raises RemoteError."""
        result = check(self.batch([readlinkat(path)])[0], f"readlinkat {os.fspath(path)}")
        return os.fsdecode(result.data[: result.value])

    def fds(self) -> dict[int, str]:
        """Each open fd with what it is, as /proc tells; two round trips."""
        numbers = [int(name) for name in self.listdir("/proc/self/fd")]
        results = self.batch([readlinkat(f"/proc/self/fd/{number}") for number in numbers])
        # The directory's own fd is in the list, and closed by now.
        return {
            number: os.fsdecode(result.data[: result.value])
            for number, result in zip(numbers, results, strict=True)
            if result.ok
        }

    def _slurp(self, path: StrPath, flags: int, nr: Syscall, sizes: Sequence[int]) -> bytes:
        opened, *reads, _ = self.batch(
            [
                openat(path, flags=flags),
                *(Call(nr, (Reg(0), Buf(size=size), Imm(size))) for size in sizes),
                close(),
            ]
        )
        check(opened, f"openat {os.fspath(path)}")
        check(reads[0], f"{name_of(nr)} {os.fspath(path)}")
        if reads[-1].value == 0:
            return reads[0].data[: reads[0].value]
        content = bytearray()
        with self.open(path, flags) as file:
            chunk = bytearray(_CHUNK)
            while got := self.syscall(nr, file.fd, chunk, len(chunk), what=os.fspath(path)):
                content += chunk[:got]
        return bytes(content)


def entry_names(entries: bytes) -> Iterator[str]:
    """Of `struct linux_dirent64`s: see getdents64(2)."""
    position = 0
    while position < len(entries):
        length = int.from_bytes(entries[position + 16 : position + 18], "little")
        name = entries[position + 19 : position + length].partition(b"\0")[0]
        yield os.fsdecode(name)
        position += length
