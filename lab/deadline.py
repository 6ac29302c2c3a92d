# SPDX-License-Identifier: GPL-2.0-only
"""One deadline, handed down, instead of a number of seconds that each layer starts anew."""

import time
from dataclasses import dataclass


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

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.moment
