# SPDX-License-Identifier: GPL-2.0-only
"""System calls: what their arguments are, and what they change in a process."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lab.agent.calls import AT_FDCWD
from lab.agent.process import entry_names
from lab.agent.syscalls import Syscall, name_of
from lab.vfio.trace.process import File, Kind, Mapped, ProcessState
from lab.vfio.trace.requests import (
    argument,
    name_of_request,
    plain_argument,
    region_info,
    request_of,
)
from lab.vfio.trace.values import (
    MAP_FLAGS,
    PROTECTIONS,
    escaped,
    named,
    number,
    open_flags,
    path,
    quoted,
    signal_name,
)
from lab.vfio.uapi import DeviceRequest, GroupRequest

_NAMES = 120  # characters of a directory's names


@dataclass(frozen=True)
class Given:
    """An argument: a number, or a buffer before and after the call, `after` None where it was not
    looked at again. `unknown` says in words what nobody knows the value of."""

    value: int = 0
    before: bytes | None = None
    after: bytes | None = None
    unknown: str = ""


@dataclass(frozen=True)
class Made:
    """A system call as it was made; `value` is None while nobody knows what it returned."""

    nr: int
    args: Sequence[Given]
    value: int | None

    def arg(self, place: int) -> int:
        """A number, 0 where there is none."""
        return self.args[place].value if place < len(self.args) else 0

    def data(self, place: int) -> bytes:
        """What a pointer argument pointed to, before the call."""
        return (self.args[place].before or b"") if place < len(self.args) else b""


World = Mapping[int, ProcessState]
"""The processes of a guest by their PID."""

_Show = Callable[[Given, Made, ProcessState], str]


def _number(given: Given, made: Made, process: ProcessState) -> str:
    del made
    if given.before is not None:
        after = f" => {quoted(given.after)}" if given.after not in (None, given.before) else ""
        return quoted(given.before) + after
    return process.address(given.value) if given.value > 1 << 20 else number(given.value)


def _decimal(given: Given, made: Made, process: ProcessState) -> str:
    return str(given.value) if given.before is None else _number(given, made, process)


def _fd(given: Given, made: Made, process: ProcessState) -> str:
    return process.fd(given.value) if given.before is None else _number(given, made, process)


def _directory(given: Given, made: Made, process: ProcessState) -> str:
    return "AT_FDCWD" if given.value == AT_FDCWD else _fd(given, made, process)


def _path(given: Given, made: Made, process: ProcessState) -> str:
    return _number(given, made, process) if given.before is None else path(given.before)


def _filled(given: Given, made: Made, process: ProcessState) -> str:
    """A buffer that the call fills: as much as its value says."""
    if given.before is None:
        return _number(given, made, process)
    if given.after is None or made.value is None or made.value < 0:
        return "..."
    return quoted(given.after[: made.value])


def _names(given: Given, made: Made, process: ProcessState) -> str:
    """A directory's, as far as the buffer has them."""
    if not given.after or not made.value or made.value < 0:
        return _filled(given, made, process)
    entries = given.after[: made.value]
    names = [name for name in entry_names(entries) if name not in (".", "..")]
    return f"[{quoted(os.fsencode(', '.join(names)), _NAMES)[1:-1]}]"


def _address(given: Given, made: Made, process: ProcessState) -> str:
    del made
    return process.address(given.value)


def _offset(given: Given, made: Made, process: ProcessState) -> str:
    file = process.files.get(made.arg(0))
    return file.place(given.value) if file else number(given.value)


def _flags(names: Mapping[str, int]) -> _Show:
    return lambda given, *_: named(given.value, names)


def _open_flags(given: Given, *_: object) -> str:
    return open_flags(given.value)


def _mode(given: Given, made: Made, process: ProcessState) -> str:
    del made, process
    return f"{given.value:#o}"


def _signal(given: Given, made: Made, process: ProcessState) -> str:
    del made, process
    return signal_name(given.value)


def _request(given: Given, made: Made, process: ProcessState) -> str:
    return name_of_request(given.value, process.kind(made.arg(0)))


def _request_argument(given: Given, made: Made, process: ProcessState) -> str:
    request = request_of(made.arg(1), process.kind(made.arg(0)))
    if given.before is None:
        return plain_argument(request, given.value, process)
    return argument(request, given.before, given.after, process)


_SHOWN: Mapping[int, Sequence[_Show]] = {
    Syscall.READ: (_fd, _filled, _decimal),
    Syscall.WRITE: (_fd, _number, _decimal),
    Syscall.CLOSE: (_fd,),
    Syscall.LSEEK: (_fd, _number, _number),
    Syscall.MMAP: (_address, _number, _flags(PROTECTIONS), _flags(MAP_FLAGS), _fd, _number),
    Syscall.MPROTECT: (_address, _number, _flags(PROTECTIONS)),
    Syscall.MUNMAP: (_address, _number),
    Syscall.IOCTL: (_fd, _request, _request_argument),
    Syscall.PREAD64: (_fd, _filled, _decimal, _offset),
    Syscall.PWRITE64: (_fd, _number, _decimal, _offset),
    Syscall.DUP: (_fd,),
    Syscall.DUP2: (_fd, _decimal),
    Syscall.DUP3: (_fd, _decimal, _open_flags),
    Syscall.SENDMSG: (_fd,),
    Syscall.RECVMSG: (_fd,),
    Syscall.KILL: (_decimal, _signal),
    Syscall.FCNTL: (_fd, _number),
    Syscall.FTRUNCATE: (_fd, _number),
    Syscall.GETDENTS64: (_fd, _names, _decimal),
    Syscall.OPENAT: (_directory, _path, _open_flags, _mode),
    Syscall.MKDIRAT: (_directory, _path, _mode),
    Syscall.FCHOWNAT: (_directory, _path, _decimal, _decimal),
    Syscall.UNLINKAT: (_directory, _path),
    Syscall.READLINKAT: (_directory, _path, _filled, _decimal),
    Syscall.FACCESSAT: (_directory, _path),
    Syscall.MEMFD_CREATE: (_path,),
    Syscall.PIDFD_GETFD: (_fd, _decimal),
    Syscall.DELETE_MODULE: (_path,),
    Syscall.FINIT_MODULE: (_fd, _path),
}
# Those whose value is an fd, and what it is then.
_OPENED: Mapping[int, Callable[[Made], str]] = {
    Syscall.OPENAT: lambda made: escaped(made.data(1).partition(b"\0")[0]),
    Syscall.EVENTFD2: lambda _: "eventfd",
    Syscall.MEMFD_CREATE: lambda _: "memfd",
    Syscall.EPOLL_CREATE1: lambda _: "epoll",
    Syscall.PIDFD_OPEN: lambda made: f"pidfd of {made.arg(0)}",
}
_ADDRESSES = (Syscall.MMAP, Syscall.MREMAP)
_MAP_ANONYMOUS = MAP_FLAGS["MAP_ANONYMOUS"]


def words(made: Made, process: ProcessState) -> str:
    """The call and its arguments, without what it returned."""
    shown = _SHOWN.get(made.nr, ())
    shows = [*shown, *[_number] * (len(made.args) - len(shown))]
    args = [
        given.unknown or show(given, made, process)
        for given, show in zip(made.args, shows, strict=False)
    ]
    if made.nr == Syscall.OPENAT and len(args) == 4 and not made.arg(2) & os.O_CREAT:
        args.pop()
    if made.nr == Syscall.IOCTL and len(args) == 3 and made.args[2] == Given(0):
        args.pop()
    name = name_of(made.nr) if made.nr in set(Syscall) else f"syscall_{made.nr}"
    return f"{name}({', '.join(args)})"


def value_words(made: Made, process: ProcessState) -> str:
    """What it returned, once `apply` was told."""
    assert made.value is not None
    if made.nr in _ADDRESSES:
        return hex(made.value)
    opens = made.nr in _OPENED or made.nr in (Syscall.DUP, Syscall.PIDFD_GETFD)
    if opens or _request_made(made, process) is GroupRequest.VFIO_GROUP_GET_DEVICE_FD:
        return process.fd(made.value)
    return number(made.value)


def apply(made: Made, process: ProcessState, world: World) -> None:
    """Note what a call that succeeded has changed."""
    assert made.value is not None
    files, value = process.files, made.value
    match made.nr:
        case nr if nr in _OPENED:
            name = _OPENED[nr](made)
            files[value] = File(name, Kind.of_path(name))
        case Syscall.CLOSE:
            files.pop(made.arg(0), None)
        case Syscall.DUP | Syscall.DUP2 | Syscall.DUP3:
            _copy(files, made.arg(0), files, value)
        case Syscall.PIDFD_GETFD:
            handle = files.get(made.arg(0))
            pid = handle.name.removeprefix("pidfd of ") if handle else ""
            other = world.get(int(pid)) if pid.isdigit() else None
            _copy(other.files if other else {}, made.arg(1), files, value)
        case Syscall.MMAP:
            anonymous = made.arg(3) & _MAP_ANONYMOUS
            file = None if anonymous else files.get(made.arg(4), File(f"fd {made.arg(4)}"))
            process.unmap(value, made.arg(1))
            process.memory.append(Mapped(value, made.arg(1), file, made.arg(5)))
        case Syscall.MUNMAP:
            process.unmap(made.arg(0), made.arg(1))
        case Syscall.SOCKETPAIR:
            pair = (made.args[3].after or b"") if len(made.args) > 3 else b""
            for at in range(0, len(pair), 4):
                files[int.from_bytes(pair[at : at + 4], "little")] = File("socketpair")
        case Syscall.IOCTL:
            _apply_ioctl(made, process)
        case _:
            pass


def _apply_ioctl(made: Made, process: ProcessState) -> None:
    assert made.value is not None
    request = _request_made(made, process)
    if request is GroupRequest.VFIO_GROUP_GET_DEVICE_FD:
        name = escaped(made.data(2).partition(b"\0")[0])
        process.files[made.value] = File(f"device {name}", Kind.DEVICE)
    elif request is DeviceRequest.VFIO_DEVICE_GET_REGION_INFO and made.args[2].after:
        region = region_info(made.args[2].after)
        if file := process.files.get(made.arg(0)):
            file.learn(region.index, region.offset, region.size)


def _request_made(made: Made, process: ProcessState) -> object:
    if made.nr != Syscall.IOCTL:
        return None
    return request_of(made.arg(1), process.kind(made.arg(0)))


def _copy(source: Mapping[int, File], fd: int, target: dict[int, File], new: int) -> None:
    target.pop(new, None)
    if fd in source:
        target[new] = source[fd]
