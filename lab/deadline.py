# SPDX-License-Identifier: GPL-2.0-only
"""One deadline, handed down, instead of a number of seconds that each layer starts anew."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_AGAIN = 10.0  # seconds


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock."""

    moment: float
    seconds: float  # what was allowed when it was set, for messages

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds, seconds)

    @property
    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.moment - time.monotonic())

    def within(self, seconds: float) -> "Deadline":
        """The same, or one after so many seconds where that is earlier."""
        return min(self, Deadline.after(seconds), key=lambda each: each.moment)

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.moment


class Overrun(BaseException):
    """What was limited took longer. No Exception, since what spins may catch those."""


@contextmanager
def limit(seconds: float, what: str) -> Iterator[None]:
    """Raise Overrun in the block once its seconds are up, whatever it does then.

    What swallows that has it raised again. A signal does it, so that it works in the main thread
    only: in another one there is no limit. Limits do not nest.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise Overrun(f"{what} took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def held() -> Iterator[None]:
    """The limit that there is does not come nearer in the block."""
    left, again = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, again)


def lift() -> None:
    """End the limit that there is: a person has a debugger's prompt."""
    signal.setitimer(signal.ITIMER_REAL, 0)
