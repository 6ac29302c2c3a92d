# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab console`: a guest's serial console, followed and typed into."""

import os
import select
import sys
import time
from codecs import getincrementaldecoder
from pathlib import Path

from lab.cell import Choice
from lab.config import Lab
from lab.debug.place import at_hand
from lab.debug.terminal import raw
from lab.debug.visit import monitor_of
from lab.living import Living
from lab.text import printable

LEAVE = b"\x1d"  # Ctrl-]
BREAK = b"\x1c"  # Ctrl-backslash: to the kernel the beginning of a SysRq
_SHOWN = 40  # lines of what was printed before
_LOOKS = 0.1  # seconds between two at the console
_QUIET = 1.0  # seconds of silence after the last key, where input has an end


class Follower:
    """What a guest prints, from its last lines on, made fit for a terminal."""

    def __init__(self, log: Path) -> None:
        self._file = log.open("rb")
        self._decoder = getincrementaldecoder("utf-8")(errors="replace")
        self._file.seek(-len(b"".join(log.read_bytes().splitlines(True)[-_SHOWN:])), os.SEEK_END)

    def show(self) -> bool:
        """Show what has come; whether there was anything."""
        data = self._file.read()
        text = printable(self._decoder.decode(data).replace("\r\n", "\n").replace("\r", ""))
        sys.stdout.write(text.replace("\n", "\r\n") if sys.stdin.isatty() else text)
        sys.stdout.flush()
        return bool(data)

    def close(self) -> None:
        self._file.close()


class Keyboard:
    """What is typed goes to the guest's serial port, but for two keys.

    QEMU reads it from its standard input, a pipe, of which every process of the user can have an
    end (proc_pid_fd(5)).
    """

    def __init__(self, guest: Living) -> None:
        self._guest = guest
        self._pipe = os.open(f"/proc/{guest.pid}/fd/0", os.O_WRONLY)

    def type(self, data: bytes) -> bool:
        """False at the key that leaves."""
        typed, leave, _ = data.partition(LEAVE)
        while typed:
            keys, is_break, typed = typed.partition(BREAK)
            os.write(self._pipe, keys)
            if is_break:
                with monitor_of(self._guest) as monitor:
                    monitor.execute("chardev-send-break", {"id": "console"})
        return not leave

    def close(self) -> None:
        os.close(self._pipe)


def open_console(lab: Lab, name: str | None, choice: Choice | None) -> int:
    """Show and follow the console of the guest that `at_hand` finds or boots, and type into it,
    until somebody leaves, or the guest or the input ends."""
    with at_hand(lab, name, choice, "vfio-lab console") as place:
        if sys.stdin.isatty():
            print(
                "Ctrl-] leaves; Ctrl-\\ is a break: with a key after it, a SysRq", file=sys.stderr
            )
        follower = Follower(place.living.folder / "console.log")
        keyboard = Keyboard(place.living)
        try:
            with raw():
                _relay(place.living, follower, keyboard)
        finally:
            keyboard.close()
            follower.close()
    return 0


def _relay(guest: Living, follower: Follower, keyboard: Keyboard) -> None:
    ours = sys.stdin.fileno()
    reading = [ours]
    last = time.monotonic()
    while guest.lives:
        ready, _, _ = select.select(reading, [], [], _LOOKS)
        if ready:
            typed = os.read(ours, 4096)
            if not typed:
                reading.clear()
            elif not keyboard.type(typed):
                return
            last = time.monotonic()
        if follower.show():
            last = time.monotonic()
        if not reading and time.monotonic() - last > _QUIET:
            return
