# SPDX-License-Identifier: GPL-2.0-only
"""A guest's serial console: always read, always stored, and searched as it comes."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from lab.deadline import Deadline


class Console(asyncio.Protocol):
    """Reads one guest's console to its end. The file holds every byte; `text` decodes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = path.open("wb", buffering=0)
        self._bytes = bytearray()
        self._changed = threading.Condition()
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._file.write(data)
        with self._changed:
            self._bytes += data
            self._changed.notify_all()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        self._file.close()
        with self._changed:
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
            return len(self._bytes)

    def text(self, start: int = 0) -> str:
        """What the guest has printed from byte `start` on."""
        with self._changed:
            data = bytes(self._bytes[start:])
        return data.decode(errors="replace").replace("\r\n", "\n")

    def tail(self, lines: int = 15) -> str:
        """The last lines, for an error message."""
        return "\n".join(f"    {line}" for line in self.text().splitlines()[-lines:])

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Whether `condition` held before the console ended or time was up.

        It is looked at again whenever something was printed, and after each `wake`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or condition(), deadline.left)
            return condition()

    def wait_for_end(self, deadline: Deadline) -> bool:
        """Whether QEMU closed the console in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, deadline.left)
