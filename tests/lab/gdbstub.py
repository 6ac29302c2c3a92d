# SPDX-License-Identifier: GPL-2.0-only
"""Hangs are planted in a running kernel: QEMU's gdb stub writes over one of its functions."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from lab.testbed import Testbed

SPIN = bytes.fromhex("ebfe")  # jmp .
SPIN_DEAF = bytes.fromhex("faebfe")  # cli; jmp .


def plant(testbed: Testbed, function: str, code: bytes) -> None:
    """From now on the kernel runs `code` where it calls `function`, on every CPU."""
    listed = testbed.hands.read_text("/proc/kallsyms").splitlines()
    (address,) = (line.split()[0] for line in listed if line.split()[2] == function)
    with _stub(testbed) as stub:
        _ask(stub, "qSupported")
        assert b"$OK#" in _ask(stub, f"M{address},{len(code):x}:{code.hex()}")
        assert b"$OK#" in _ask(stub, "D")  # and the guest runs on


@contextmanager
def _stub(testbed: Testbed) -> Iterator[socket.socket]:
    guest = testbed.guest
    guest.monitor.human("gdbserver unix:gdb.sock,server=on,wait=off")
    folder = os.open(guest.folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as stub:
            stub.settimeout(5.0)
            stub.connect(f"/proc/self/fd/{folder}/gdb.sock")  # a socket's path is short
            yield stub
    finally:
        os.close(folder)
    guest.monitor.human("gdbserver none")


def _ask(stub: socket.socket, packet: str) -> bytes:
    data = packet.encode()
    stub.sendall(b"$%s#%02x" % (data, sum(data) % 256))
    answer = b""
    while b"#" not in answer:
        answer += stub.recv(4096)
    stub.sendall(b"+")
    return answer
