# SPDX-License-Identifier: GPL-2.0-only
"""A remote process: what a test holds to make system calls in a guest.

Errors: a failed system call raises RemoteError, which is an OSError; a faulting access raises
RemoteFault. Both are the kernel's answer, and the process goes on. AgentDied and AgentTimeout
mean that there is no process any more; AgentRefused that the lab asked for nonsense.

A Process belongs to one host thread at a time.
"""

import ctypes
import errno
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from lab.agent.memory import Mapping
from lab.agent.program import Arg, Buf, Call, Fault, Imm, Op, Program, ProgramResult, Reg, Result
from lab.agent.protocol import (
    FRAME_HEADER,
    FrameKind,
    ProtocolError,
    decode_frame_header,
    decode_hello,
    decode_results,
    encode_program,
)
from lab.agent.syscalls import Syscall
from lab.errors import LabError

InOut = bytearray | ctypes.Structure | ctypes.Union | ctypes.Array[Any]
"""A buffer that is updated in place with what the system call left in it."""
Argument = int | bytes | InOut

AT_FDCWD = -100
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_SYSFS_FILE = 4096
_FEW_ENTRIES = 8192
_CHUNK = 65536
# A second read that asks for little tells whether the first one got all; a directory's must
# have room for the longest name.
_PROBE = 8
_PROBE_ENTRY = 320
_POINTER_ALIGNED = 64  # of exec's page: what its pointers stand behind


class RemoteError(OSError):
    """A system call in the guest failed; `errno` is what it failed with."""

    def __init__(self, number: int, call: str) -> None:
        self.call = call
        name = errno.errorcode.get(number, f"errno {number}")
        super().__init__(number, f"{call}: {os.strerror(number)} ({name})")


class RemoteFault(Exception):
    """A memory access in the guest raised a signal, SIGSEGV or SIGBUS."""

    def __init__(self, fault: Fault, what: str) -> None:
        name = signal.Signals(fault.signal).name
        super().__init__(f"{what}: {name}, si_code {fault.code}, address {fault.address:#x}")
        self.fault = fault


class AgentDied(LabError):
    """The agent, or the channel to it, is gone: killed by the test, by the guest, or with it."""


class AgentTimeout(LabError):
    """The agent did not answer in time. The channel is closed: the process is gone."""


class AgentRefused(LabError):
    """The agent found a program malformed and ran nothing of it."""


class Transport(Protocol):
    """A channel to the stdin and from the stdout of one agent."""

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError when the channel is closed or takes no more."""

    def recv(self, deadline: float) -> bytes:
        """Some bytes, b"" at the end of the channel.

        `deadline` is a value of `time.monotonic()`; raises TimeoutError when it has passed.
        """

    def close(self) -> None:
        """Close it, upon which the agent exits. A second time does nothing."""


def check(result: Result, what: str) -> Result:
    """The same result, unless it is a failure: raises RemoteError or RemoteFault then."""
    if result.fault:
        raise RemoteFault(result.fault, what)
    if result.errno:
        raise RemoteError(result.errno, what)
    return result


def path_bytes(path: str | os.PathLike[str]) -> bytes:
    """A path as a system call takes it."""
    return os.fsencode(path) + b"\0"


class Process:
    """One process in the guest. All that it holds there goes when it is closed.

    `timeout` is for each call that brings none of its own, in seconds. Raises AgentDied or
    AgentTimeout when no agent answers at the other end of `transport`, which is closed then.
    """

    def __init__(self, transport: Transport, *, timeout: float = 30.0, name: str = "agent") -> None:
        self.timeout = timeout
        self.name = name
        self._transport = transport
        self._received = bytearray()
        self._gone: str | None = None
        self._running: Program | None = None
        with self._channel():
            _, payload = self._next_frame(time.monotonic() + timeout)
            hello = decode_hello(payload)
        self.pid = hello.pid
        self.page_size = hello.page_size
        self.name = f"{name} (pid {hello.pid})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """False once it was closed or was seen to be gone."""
        return self._gone is None

    def close(self) -> None:
        """End the process; a second time does nothing."""
        self._abandon("it was closed")

    # Programs

    def start(self, program: Program, *, timeout: float | None = None) -> "Pending":
        """Let it run, and do something else on the host meanwhile.

        `timeout` seconds from now are its time. The process can do nothing else until then.
        """
        if self._running:
            raise RuntimeError(f"{self.name} still runs a program")
        frame = encode_program(program)
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        with self._channel():
            self._transport.send(frame)
        self._running = program
        return Pending(partial(self._answered, program), partial(self._finish, program), deadline)

    def run(self, program: Program, *, timeout: float | None = None) -> ProgramResult:
        """Its results. Raises AgentTimeout, AgentDied or AgentRefused, as do all below."""
        return self.start(program, timeout=timeout).wait()

    def batch(self, ops: Sequence[Op], *, timeout: float | None = None) -> tuple[Result, ...]:
        """Run ops one after the other in one round trip; a failed one stops nothing."""
        return self.run(Program(setup=tuple(ops)), timeout=timeout).rounds[0].setup

    def checked(self, op: Op, what: str, *, timeout: float | None = None) -> Result:
        """Run one op. Raises RemoteError or RemoteFault, with `what` in the message."""
        return check(self.batch([op], timeout=timeout)[0], what)

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
        attempt = Program(setup=(call,))
        with self._channel():
            self._transport.send(encode_program(attempt))
            kind, payload = self._next_frame(time.monotonic() + self.timeout)
            if kind == FrameKind.HELLO:
                decode_hello(payload)
                return
            failed = decode_results(attempt, payload)
        words.close()
        check(failed.rounds[0].setup[0], "execve")

    # System calls

    def syscall(
        self, nr: int, *args: Argument, what: str = "", timeout: float | None = None
    ) -> int:
        """What the system call returned. Raises RemoteError when it failed.

        A pointer argument is bytes, which go in, or an `InOut`, which is updated in place, also
        when the call fails. `what` says in the error's message what the call was about.
        """
        call = Call(nr, tuple(map(_operand, args)))
        result = self.batch([call], timeout=timeout)[0]
        changed = (arg for arg in args if not isinstance(arg, int | bytes))
        for arg, data in zip(changed, result.buffers, strict=True):
            (ctypes.c_char * len(data)).from_buffer(arg).raw = data
        return check(result, f"{_syscall_name(nr)} {what}".rstrip()).value

    def ioctl(
        self,
        fd: int,
        request: int,
        arg: Argument = 0,
        *,
        what: str = "",
        timeout: float | None = None,
    ) -> int:
        """As `syscall`; `what` is the request's name, such as VFIO_DEVICE_RESET."""
        name = what or f"{request:#x}"
        return self.syscall(Syscall.IOCTL, fd, request, arg, what=name, timeout=timeout)

    def open(
        self, path: str | os.PathLike[str], flags: int = os.O_RDWR, mode: int = 0
    ) -> "RemoteFile":
        """Raises RemoteError. `flags` are those of `os`, as the guest has the same."""
        fd = self.syscall(
            Syscall.OPENAT, AT_FDCWD, path_bytes(path), flags, mode, what=os.fspath(path)
        )
        return RemoteFile(self, fd, os.fspath(path))

    def adopt(self, fd: int, name: str) -> "RemoteFile":
        """Own an fd that another call returned."""
        return RemoteFile(self, fd, name)

    def eventfd(self, value: int = 0, flags: int = 0) -> "RemoteFile":
        """A counter that starts at `value`; see eventfd(2). Raises RemoteError."""
        return self.adopt(self.syscall(Syscall.EVENTFD2, value, flags), "eventfd")

    def memfd(self, length: int, name: str = "memfd") -> "RemoteFile":
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
        prot: int = _READ_WRITE,
        flags: int = _PRIVATE,
        fd: int = -1,
        offset: int = 0,
        *,
        what: str = "anonymous memory",
    ) -> Mapping:
        """Anonymous private memory unless `flags` and `fd` say otherwise; lengths in bytes."""
        address = self.syscall(Syscall.MMAP, 0, length, prot, flags, fd, offset, what=what)
        return Mapping(self, address, length, what=what)

    # Small files, each in one round trip

    def read_text(self, path: str | os.PathLike[str]) -> str:
        """A whole file; raises RemoteError."""
        return self._slurp(path, os.O_RDONLY, Syscall.READ, (_SYSFS_FILE, _PROBE)).decode(
            errors="surrogateescape"
        )

    def write_text(self, path: str | os.PathLike[str], text: str) -> None:
        """Into an existing file, in one write(), as sysfs wants. Raises RemoteError."""
        data = text.encode(errors="surrogateescape")
        opened, written, _ = self.batch(
            [
                _open_op(path, os.O_WRONLY | os.O_TRUNC),
                Call(Syscall.WRITE, (Reg(0), Buf(data, returned=False), Imm(len(data)))),
                Call(Syscall.CLOSE, (Reg(0),)),
            ]
        )
        check(opened, f"openat {os.fspath(path)}")
        if check(written, f"write {os.fspath(path)}").value != len(data):
            raise RemoteError(errno.EIO, f"write {os.fspath(path)}, cut short")

    def listdir(self, path: str | os.PathLike[str]) -> list[str]:
        """Names in a directory, sorted; raises RemoteError."""
        entries = self._slurp(
            path,
            os.O_RDONLY | os.O_DIRECTORY,
            Syscall.GETDENTS64,
            (_FEW_ENTRIES, _PROBE_ENTRY),
        )
        return sorted(name for name in _entry_names(entries) if name not in (".", ".."))

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether it leads somewhere; raises RemoteError when that cannot be told."""
        result = self.batch([Call(Syscall.FACCESSAT, (*_at(path), Imm(os.F_OK)))])[0]
        # ESRCH is what /proc says of a process that is just going.
        if result.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESRCH):
            return False
        return check(result, f"faccessat {os.fspath(path)}").ok

    def readlink(self, path: str | os.PathLike[str]) -> str:
        """Where a symbolic link points to; raises RemoteError."""
        result = check(self.batch([_readlink_op(path)])[0], f"readlinkat {os.fspath(path)}")
        return os.fsdecode(result.data[: result.value])

    def fds(self) -> dict[int, str]:
        """Each open fd with what it is, as /proc tells; two round trips."""
        numbers = [int(name) for name in self.listdir("/proc/self/fd")]
        results = self.batch([_readlink_op(f"/proc/self/fd/{number}") for number in numbers])
        # The directory's own fd is in the list, and closed by now.
        return {
            number: os.fsdecode(result.data[: result.value])
            for number, result in zip(numbers, results, strict=True)
            if result.ok
        }

    def _slurp(
        self, path: str | os.PathLike[str], flags: int, nr: Syscall, sizes: Sequence[int]
    ) -> bytes:
        opened, *reads, _ = self.batch(
            [
                _open_op(path, flags),
                *(Call(nr, (Reg(0), Buf(size=size), Imm(size))) for size in sizes),
                Call(Syscall.CLOSE, (Reg(0),)),
            ]
        )
        check(opened, f"openat {os.fspath(path)}")
        check(reads[0], f"{_syscall_name(nr)} {os.fspath(path)}")
        if reads[-1].value == 0:
            return reads[0].data[: reads[0].value]
        content = bytearray()
        with self.open(path, flags) as file:
            chunk = bytearray(_CHUNK)
            while got := self.syscall(nr, file.fd, chunk, len(chunk), what=os.fspath(path)):
                content += chunk[:got]
        return bytes(content)

    # The channel

    def _finish(self, program: Program, deadline: float) -> ProgramResult:
        self._raise_if_taken(program)
        with self._channel():
            kind, payload = self._next_frame(deadline)
            refusal = payload.decode(errors="replace") if kind == FrameKind.ERROR else None
            result = None if refusal else decode_results(program, payload)
        self._running = None
        if result is None:
            raise AgentRefused(f"{self.name} refused a program: {refusal}")
        return result

    def _answered(self, program: Program, deadline: float) -> bool:
        self._raise_if_taken(program)
        with self._channel():
            try:
                self._gather(FRAME_HEADER, deadline)
            except TimeoutError:
                return False
            return True

    def _raise_if_taken(self, program: Program) -> None:
        if self.alive and self._running is not program:
            raise RuntimeError("the results of this program were taken already")

    @contextmanager
    def _channel(self) -> Iterator[None]:
        """What goes wrong within leaves no process: nobody knows what it would say next."""
        if self._gone:
            raise AgentDied(f"{self.name} is gone: {self._gone}")
        try:
            yield
        except TimeoutError as error:
            self._abandon("it did not answer in time")
            raise AgentTimeout(f"{self.name} did not answer in time") from error
        except (OSError, EOFError, ProtocolError) as error:
            self._abandon(str(error))
            raise AgentDied(f"{self.name} died: {error}") from error
        except BaseException:
            self._abandon("a call to it was interrupted")
            raise

    def _abandon(self, why: str) -> None:
        self._gone = self._gone or why
        self._running = None
        self._transport.close()

    def _next_frame(self, deadline: float) -> tuple[int, bytes]:
        self._gather(FRAME_HEADER, deadline)
        kind, length = decode_frame_header(bytes(self._received[:FRAME_HEADER]))
        self._gather(FRAME_HEADER + length, deadline)
        payload = bytes(self._received[FRAME_HEADER : FRAME_HEADER + length])
        del self._received[: FRAME_HEADER + length]
        return kind, payload

    def _gather(self, size: int, deadline: float) -> None:
        while len(self._received) < size:
            data = self._transport.recv(deadline)
            if not data:
                raise EOFError("the channel is at its end")
            self._received += data


class Pending:
    """A program that runs in the guest while the host does something else."""

    def __init__(
        self,
        answered: Callable[[float], bool],
        finish: Callable[[float], ProgramResult],
        deadline: float,
    ) -> None:
        self._answered = answered
        self._finish = finish
        self._deadline = deadline

    def done(self, within: float = 0.0) -> bool:
        """Whether it ends within so many seconds; a program that does not goes on.

        Raises AgentDied.
        """
        return self._answered(time.monotonic() + within)

    def wait(self) -> ProgramResult:
        """Its results, once. Raises AgentTimeout, AgentDied or AgentRefused."""
        return self._finish(self._deadline)


class RemoteFile:
    """An open file of a process, until `close`. Its calls raise RemoteError."""

    def __init__(self, process: Process, fd: int, name: str) -> None:
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
        prot: int = _READ_WRITE,
        flags: int = mmap.MAP_SHARED,
        offset: int = 0,
    ) -> Mapping:
        """Lengths and offsets in bytes."""
        return self.process.mmap(length, prot, flags, self.fd, offset, what=self.name)

    def _fill(self, nr: Syscall, length: int, *more: Arg) -> bytes:
        call = Call(nr, (Imm(self.fd), Buf(size=length), Imm(length), *more))
        result = self.process.checked(call, f"{_syscall_name(nr)} {self.name}")
        return result.data[: result.value]


@contextmanager
def shared_mapping(owner: Process, peer: Process, length: int) -> Iterator[tuple[Mapping, Mapping]]:
    """The same zeroed memory in two processes of one guest; a barrier may live in it."""
    with (
        owner.memfd(length, "shared") as file,
        peer.open(f"/proc/{owner.pid}/fd/{file.fd}") as same_file,
        file.mmap(length) as mapping,
        same_file.mmap(length) as same_mapping,
    ):
        yield mapping, same_mapping


def run_together(
    work: Sequence[tuple[Process, Program]], *, timeout: float | None = None
) -> list[ProgramResult]:
    """Run programs that meet at one barrier; results in the order of `work`.

    When one process fails the others may wait for it for ever: all are closed then.
    """
    if len({program.rounds for _, program in work}) > 1:
        raise ValueError("programs that meet at a barrier have the same number of rounds")
    try:
        pending = [process.start(program, timeout=timeout) for process, program in work]
        return [each.wait() for each in pending]
    except BaseException:
        for process, _ in work:
            process.close()
        raise


def _operand(arg: Argument) -> Arg:
    if isinstance(arg, int):
        return Imm(arg)
    return Buf(bytes(arg), returned=not isinstance(arg, bytes))


def _syscall_name(nr: int) -> str:
    try:
        return Syscall(nr).name.lower()
    except ValueError:
        return f"system call {nr}"


def _at(path: str | os.PathLike[str]) -> tuple[Arg, Arg]:
    return Imm(AT_FDCWD), Buf(path_bytes(path), returned=False)


def _open_op(path: str | os.PathLike[str], flags: int) -> Call:
    return Call(Syscall.OPENAT, (*_at(path), Imm(flags), Imm(0)), register=0)


def _readlink_op(path: str | os.PathLike[str]) -> Call:
    size = 4096
    return Call(Syscall.READLINKAT, (*_at(path), Buf(size=size), Imm(size)))


def _entry_names(entries: bytes) -> Iterator[str]:
    """Of `struct linux_dirent64`s: see getdents64(2)."""
    position = 0
    while position < len(entries):
        length = int.from_bytes(entries[position + 16 : position + 18], "little")
        name = entries[position + 19 : position + length].partition(b"\0")[0]
        yield os.fsdecode(name)
        position += length
