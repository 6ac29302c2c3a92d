# SPDX-License-Identifier: GPL-2.0-only
"""What the processes of a guest were asked to do, and what they answered.

It is noted as it goes over the wire, which costs next to nothing, and is read only where somebody
wants to see it.
"""

import threading
from collections import deque
from dataclasses import dataclass

from lab.agent.program import Program, ProgramResult
from lab.agent.protocol import decode_results

ROOM = 16 << 20
"""Bytes, about, that a trace may take."""
_EACH = 1024  # bytes, about, of the Python objects of one event


@dataclass(slots=True, eq=False)
class Exchange:
    """A program on its way and back; `sent` is a value of `time.monotonic()`.

    `size` is in bytes on the wire. `answer` is what the agent made of it, still encoded; None where
    none came, or while it is `lost`: no longer in a trace. `note` says what came in its place: the
    agent refused the program, or a new one has taken its place.
    """

    pid: int
    program: Program
    sent: float
    size: int
    answer: bytes | None = None
    note: str = ""
    lost: bool = False

    def result(self) -> ProgramResult | None:
        """What was answered."""
        return None if self.answer is None else decode_results(self.program, self.answer)


@dataclass(frozen=True, slots=True)
class Began:
    """An agent of this name said hello."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class Ended:
    """An agent was closed, or seen to be gone, at a value of `time.monotonic()`."""

    pid: int
    why: str
    at: float


Event = Exchange | Began | Ended


@dataclass(frozen=True)
class Recording:
    """Events in the order in which they began. `dropped` older ones were not kept."""

    events: tuple[Event, ...] = ()
    dropped: int = 0


class Trace:
    """Takes down what happens in one guest: of the latest events as many as fit into `room` bytes.

    Its processes may belong to several host threads.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._events: deque[Event] = deque()
        self._size = 0
        self._dropped = 0
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        """Something begins."""
        with self._lock:
            self._events.append(event)
            self._grow(_size(event))

    def answer(self, exchange: Exchange, answer: bytes) -> None:
        """What was added before is answered."""
        with self._lock:
            if not exchange.lost:
                exchange.answer = answer
                self._grow(len(answer))

    def take(self) -> Recording:
        """What has happened since the last time, as far as it has come."""
        with self._lock:
            recording = Recording(tuple(self._events), self._dropped)
            for event in self._events:
                _lose(event)
            self._events.clear()
            self._size = self._dropped = 0
        return recording

    def _grow(self, size: int) -> None:
        self._size += size
        while self._size > self._room:
            event = self._events.popleft()
            _lose(event)
            self._size -= _size(event)
            self._dropped += 1


def _size(event: Event) -> int:
    """Bytes that it takes, about."""
    if isinstance(event, Exchange):
        return _EACH + event.size + len(event.answer or b"")
    return _EACH


def _lose(event: Event) -> None:
    if isinstance(event, Exchange):
        event.lost = True
