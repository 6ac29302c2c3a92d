# SPDX-License-Identifier: GPL-2.0-only
"""Doors: ways into a guest for others than the process that booted it.

They are sockets of QEMU's in a folder that nobody but the user enters: `qmp`, where commands do
something and leave; `monitor` and `drgn`, where a person stays; and, while it is wanted, `gdb`.
Each takes one at a time, the next one waits. A guest has none unless it is asked for.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = "doors"  # in the guest's own
QMP, MONITOR, DRGN, GDB = "qmp", "monitor", "drgn", "gdb"
GDB_SERVER = f"gdbserver unix:{FOLDER}/{GDB},server=on,wait=off"  # for the human monitor


def options() -> list[str]:
    """QEMU's for its monitors; it stands in the guest's folder."""
    return [
        word
        for name in (QMP, MONITOR, DRGN)
        for word in (
            *("-chardev", f"socket,id=door-{name},path={FOLDER}/{name},server=on,wait=off"),
            *("-mon", f"chardev=door-{name},mode=control"),
        )
    ]


@contextmanager
def framed(folder: Path) -> Iterator[None]:
    """The folder for them, in the guest's, as long as the block lasts."""
    place = folder / FOLDER
    place.mkdir(mode=0o700)
    try:
        yield
    finally:
        shutil.rmtree(place)


@contextmanager
def reached(folder: Path) -> Iterator[Path]:
    """The folder of a guest's doors by a short name, since a socket's has 108 bytes at most. A
    child has it, too, that is given the descriptor (`descriptor_of`)."""
    place = os.open(folder / FOLDER, os.O_PATH | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{place}")
    finally:
        os.close(place)


def descriptor_of(reached_folder: Path) -> int:
    """For `pass_fds` of a child that is told of a folder that was `reached`."""
    return int(reached_folder.name)


def connect(folder: Path, name: str) -> socket.socket:
    """A connection to one of the doors of the guest in `folder`. Raises OSError."""
    end = socket.socket(socket.AF_UNIX)
    try:
        with reached(folder) as place:
            end.connect(str(place / name))
    except OSError:
        end.close()
        raise
    return end
