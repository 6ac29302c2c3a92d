# SPDX-License-Identifier: GPL-2.0-only
"""Files on their way to another process, and through an exec."""

import os
import select
from errno import EBADF, ENOENT
from fcntl import F_SETFD, FD_CLOEXEC

import pytest

from lab.agent.errors import RemoteError
from lab.agent.inherit import forked, receive_fd, send_fd, socket_between
from lab.agent.process import Process
from lab.agent.syscalls import Syscall

from .conftest import Connect


def test_a_child_holds_the_files_until_the_block_ends(process: Process) -> None:
    with process.eventfd() as event:
        with forked(process) as child:
            link = f"/proc/{child}/fd/{event.fd}"
            event.close()
            assert "eventfd" in process.readlink(link)
            assert process.syscall(Syscall.GETPID) == process.pid
        with pytest.raises(RemoteError) as error:
            process.readlink(link)
        assert error.value.errno == ENOENT


def test_a_child_goes_with_its_parent(process: Process) -> None:
    with forked(process) as child:
        ended = os.pidfd_open(child)
        try:
            process.close()
            assert select.select([ended], [], [], 1)[0], "the child lives on"
        finally:
            os.close(ended)


def test_a_file_travels_through_a_socket(connect: Connect) -> None:
    with (
        Process(connect()) as sender,
        Process(connect()) as receiver,
        socket_between(sender, receiver) as (near, far),
    ):
        with sender.memfd(4096) as file:
            file.write(b"from afar")
            send_fd(near, file.fd)
        with receiver.adopt(receive_fd(far), "memfd") as same:
            assert same.pread(9, 0) == b"from afar"


def test_an_exec_keeps_what_is_not_close_on_exec(process: Process) -> None:
    kept, gone = process.eventfd(), process.eventfd()
    process.syscall(Syscall.FCNTL, gone.fd, F_SETFD, FD_CLOEXEC)
    process.exec()
    kept.close()
    with pytest.raises(RemoteError) as error:
        gone.close()
    assert error.value.errno == EBADF
    assert process.readlink("/proc/self/exe").endswith("agent")
