# SPDX-License-Identifier: GPL-2.0-only
"""How an open file gets to another process: by fork(2), over a socket with SCM_RIGHTS, or taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import EFD_SEMAPHORE
from signal import SIGKILL
from socket import AF_UNIX, SCM_RIGHTS, SOCK_DGRAM, SOL_SOCKET
from struct import pack

from lab.agent.errors import check
from lab.agent.file import RemoteFile
from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm, Reg
from lab.agent.syscalls import Syscall

_FUTEX_WAIT = 0
_PDEATHSIG = 1  # PR_SET_PDEATHSIG
_CHILD = 0  # the register with fork's result
# Where things lie in a message's page, and how long they are: unix(7), cmsg(3).
_VECTOR, _BYTE, _CONTROL = 64, 96, 128
_CONTROL_HEAD = 16
_CONTROL_LENGTH = _CONTROL_HEAD + 4


@contextmanager
def forked(parent: Process) -> Iterator[int]:
    """A child with all of its parent's files, which does nothing; its PID.

    It is killed and reaped after the block, and is killed when its parent ends.
    """
    word, one = Buf(bytes(4), returned=False), Buf((1).to_bytes(8, "little"), returned=False)
    with parent.eventfd(flags=EFD_SEMAPHORE) as ready:
        # The child finds 0 where it compares with its own 0, and sleeps; the parent goes on, and
        # takes back for itself what was meant for the child.
        fork, *_ = parent.batch(
            [
                Call(Syscall.FORK, register=_CHILD),
                Call(Syscall.PRCTL, (Imm(_PDEATHSIG), Imm(SIGKILL))),
                Call(Syscall.WRITE, (Imm(ready.fd), one, Imm(8))),
                Call(Syscall.FUTEX, (word, Imm(_FUTEX_WAIT), Reg(_CHILD), Imm(0))),
                Call(Syscall.PRCTL, (Imm(_PDEATHSIG), Imm(0))),
            ]
        )
        child = check(fork, "fork").value
        for _ in range(2):  # the parent's word, and the child's: it goes with its parent now
            ready.read(8)
    try:
        yield child
    finally:
        if parent.alive:
            parent.syscall(Syscall.KILL, child, SIGKILL)
            parent.syscall(Syscall.WAIT4, child, 0, 0, 0)


def take_fd(taker: Process, file: RemoteFile) -> int:
    """Open another process's file, without its help: pidfd_getfd(2); its fd with the taker."""
    handle = taker.syscall(Syscall.PIDFD_OPEN, file.process.pid, 0)
    with taker.adopt(handle, "pidfd"):
        return taker.syscall(Syscall.PIDFD_GETFD, handle, file.fd, 0)


@contextmanager
def socket_between(sender: Process, receiver: Process) -> Iterator[tuple[RemoteFile, RemoteFile]]:
    """The two ends of a socket that takes files from one process to another."""
    pair = bytearray(8)
    sender.syscall(Syscall.SOCKETPAIR, AF_UNIX, SOCK_DGRAM, 0, pair)
    ends = [
        sender.adopt(int.from_bytes(pair[at : at + 4], "little"), "socketpair") for at in (0, 4)
    ]
    with (
        ends[0] as near,
        ends[1] as far,
        receiver.adopt(take_fd(receiver, far), "socketpair") as there,
    ):
        far.close()
        yield near, there


def send_fd(socket: RemoteFile, fd: int) -> None:
    """Put a file into the socket, where it stays open until somebody takes it out."""
    control = pack("<Qiii", _CONTROL_LENGTH, SOL_SOCKET, SCM_RIGHTS, fd)
    _message(socket, Syscall.SENDMSG, control)


def receive_fd(socket: RemoteFile) -> int:
    """Take the file out; its fd here."""
    control = _message(socket, Syscall.RECVMSG, bytes(_CONTROL_LENGTH))
    return int.from_bytes(control[_CONTROL_HEAD:], "little")


def _message(socket: RemoteFile, nr: Syscall, control: bytes) -> bytes:
    """One byte with `control` beside it, either way; the control data afterwards."""
    process = socket.process
    with Mapping.of(process, process.page_size, what="message") as page:
        base = page.address
        head = pack("<QQQQQQQ", 0, 0, base + _VECTOR, 1, base + _CONTROL, len(control), 0)
        page.write(0, head)
        page.write(_VECTOR, pack("<QQ", base + _BYTE, 1))
        page.write(_CONTROL, control)
        process.syscall(nr, socket.fd, base, 0, what=socket.name)
        return page.read(_CONTROL, len(control))
