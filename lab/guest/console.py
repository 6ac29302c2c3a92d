# SPDX-License-Identifier: GPL-2.0-only
"""A guest's serial console: always read, always stored, and searched as it comes.

Reading never stops, for a guest whose console nobody reads stands still: not when the disk is full,
and not when it prints for hours.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from lab.deadline import Deadline
from lab.text import printable

_KEPT = 16 << 20  # bytes in memory, up to twice as many; the file has all
_LINE = 1 << 10  # bytes that a line has at the most, for who waits for one
_TAIL = 8 << 10  # bytes that an error message may show


class Console(asyncio.Protocol):
    """Reads one guest's console to its end. The file holds every byte; `text` decodes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = path.open("wb", buffering=0)
        self._bytes = bytearray()
        self._dropped = 0  # bytes before those
        self._stored = 0  # bytes of those that are in the file
        self._changed = threading.Condition()
        self._ended = False
        self._answers: list[tuple[int, int]] = []
        self._watched: list[tuple[re.Pattern[bytes], Callable[[], None]]] = []

    def data_received(self, data: bytes) -> None:
        with self._changed:
            start = max(0, len(self._bytes) - _LINE)
            self._bytes += data
            due = [each for each in self._watched if each[0].search(self._bytes, start)]
            self._store()
            self._changed.notify_all()
            self._watched = [each for each in self._watched if each not in due]
        for _, action in due:
            action()

    def when(self, line: re.Pattern[bytes], action: Callable[[], None]) -> None:
        """Have `action` called, on the guests' thread, once what is printed from now on matches."""
        with self._changed:
            self._watched.append((line, action))

    def _store(self) -> None:
        # What a full disk does not take now it may take next time. That it is full is told by
        # whoever writes the run's results to it.
        with contextlib.suppress(OSError), memoryview(self._bytes) as held:
            while self._stored < len(held):
                self._stored += self._file.write(held[self._stored :])
        if len(self._bytes) > 2 * _KEPT:
            doomed = len(self._bytes) - _KEPT
            del self._bytes[:doomed]
            self._dropped += doomed
            self._stored = max(0, self._stored - doomed)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        with self._changed:
            self._store()
            self._file.close()
            self._ended = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Let those who wait look again: something else about the guest has changed."""
        with self._changed:
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """QEMU has closed it: nothing more will come."""
        with self._changed:
            return self._ended

    @property
    def size(self) -> int:
        """Bytes read so far; a position for `text`."""
        with self._changed:
            return self._dropped + len(self._bytes)

    def text(self, start: int = 0, end: int | None = None) -> str:
        """What the guest has printed from byte `start` on, at least the last 16 MiB of it; up to
        byte `end` where there is one."""
        with self._changed:
            until = None if end is None else max(0, end - self._dropped)
            data = self._bytes[max(0, start - self._dropped) : until]
        return _decoded(data)

    def is_longer(self, size: int) -> bool:
        """Whether more than so many bytes have been read."""
        return self.size > size

    def was_asked(self, start: int) -> None:
        """What came from byte `start` on was asked for: it is none of the guest's last words."""
        with self._changed:
            self._answers.append((start, self._dropped + len(self._bytes)))

    def tail(self, lines: int = 15) -> str:
        """The last lines that nobody asked for, for an error message: 8 KiB at the most, and
        nothing that acts on a terminal."""
        with self._changed:
            data = self._bytes[:]
            for start, end in reversed(self._answers):
                del data[max(0, start - self._dropped) : max(0, end - self._dropped)]
        last = printable(_decoded(data[-_TAIL:]))
        return "\n".join(f"    {line}" for line in last.splitlines()[-lines:])

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Whether `condition` held before the console ended or time was up.

        It is looked at again whenever something was printed, and after each `wake`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or condition(), deadline.left)
            return condition()

    def wait_for_silence(self, seconds: float, deadline: Deadline) -> None:
        """Return once nothing was printed for so many seconds, the console ended, or time is up."""
        while not deadline.passed:
            grows = partial(self.is_longer, self.size)
            if not self.wait_until(grows, Deadline.after(seconds)):
                return

    def wait_for_end(self, deadline: Deadline) -> bool:
        """Whether QEMU closed the console in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, deadline.left)


def _decoded(data: bytearray) -> str:
    return data.decode(errors="replace").replace("\r\n", "\n")
