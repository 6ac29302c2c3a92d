# SPDX-License-Identifier: GPL-2.0-only
"""What the lab is doing and how far it is, for a person who waits.

Everything goes to standard error, so that standard output stays a script's. On a terminal a
step is one live line; in a log it is a line when it starts, one every ten seconds, and one
with its time when it is done.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from lab.text import printable

_LOG_INTERVAL = 10.0  # seconds between two lines of one step in a log
_LIVE_INTERVAL = 0.1  # seconds between two drawings of the live line


class Step:
    """One thing that takes time. `advance` and `note` may be called as often as one likes."""

    def __init__(self, console: Console, name: str, status: Status | None) -> None:
        self._console = console
        self._name = name
        self._status = status
        self._started = time.monotonic()
        self._shown = self._started
        self._result = ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def advance(self, done: int, total: int | None = None, unit: str = "") -> None:
        """`done` of `total` (None where nobody knows it) have been dealt with."""
        share = f"{done}/{total}" if total else f"{done}"
        percent = f" ({100 * done // total} %)" if total else ""
        self.note(f"{share} {unit}{percent}".strip())

    def note(self, text: str) -> None:
        """What is happening just now."""
        interval = _LIVE_INTERVAL if self._status else _LOG_INTERVAL
        if time.monotonic() - self._shown < interval:
            return
        self._shown = time.monotonic()
        line = f"{_shown(self._name)}: {_shown(text)}, {self.seconds:.0f} s"
        if self._status:
            self._status.update(line)
        else:
            self._console.print(f"  {line}", highlight=False, soft_wrap=True)

    def result(self, text: str) -> None:
        """What came of it; printed behind the name when the step ends."""
        self._result = text


class Progress:
    """The steps of one command, in the order in which they happen."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        # A descriptor of our own: pytest captures what goes to number 2 while a test runs.
        self._console = console or Console(file=os.fdopen(os.dup(2), "w"))
        self._quiet = quiet
        self._said: set[str] = set()
        self._live: list[Status] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Name a step, show it while it runs, and print its time when it is done."""
        if self._quiet:
            yield Step(Console(quiet=True), name, None)
            return
        live = self._console.is_terminal
        status = Status(_shown(name), console=self._console) if live else None
        step = Step(self._console, name, status)
        if status:
            self._live.append(status)
            status.start()
        else:
            self._console.print(f"… {_shown(name)}", highlight=False)
        mark = "[red]✗[/red]"
        try:
            yield step
            mark = "[green]✓[/green]"
        finally:
            if status:
                self._live.remove(status)
                status.stop()
            result = f": {_shown(step._result)}" if step._result else ""  # noqa: SLF001
            self._console.print(
                f"{mark} {_shown(name)}{result} [dim]{step.seconds:.1f} s[/dim]", highlight=False
            )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is drawn in the block: the terminal is somebody else's."""
        for status in self._live:
            status.stop()
        try:
            yield
        finally:
            for status in self._live:
                status.start()

    def say(self, text: str) -> None:
        """One line that is no step."""
        if not self._quiet:
            # a path that is cut cannot be copied
            self._console.print(_shown(text), highlight=False, soft_wrap=True)

    def say_once(self, text: str) -> None:
        """One line that is no step, the first time only."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)


def _shown(text: str) -> str:
    """Names and subjects are others' words: nothing of them acts on the terminal, nor on rich."""
    return escape(printable(text))
