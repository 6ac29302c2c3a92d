# SPDX-License-Identifier: GPL-2.0-only
"""Who makes something, so that nobody else makes it as well.

A claim is a file of the store that its owner writes anew every few seconds. One that does not
change any more is a dead worker's: whoever has seen it stand still for long enough overtakes it.
No two machines' clocks are compared. Who overtakes creates the file of the next number, which only
one can, so that nobody ends a claim of the living.
"""

import itertools
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from lab.errors import InfrastructureError
from lab.fleet.store import Store

_BEATS = 6  # of a claim that stands still, until it is overtaken


@dataclass(frozen=True)
class Claims:
    """A store's. `beat` is in seconds; `on_wait` is told once whom one waits for, and `pause` waits
    for some seconds: what it raises ends the wait."""

    store: Store
    beat: float = 10.0
    on_wait: Callable[[str], None] = lambda _: None
    pause: Callable[[float], object] = time.sleep

    def once(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The JSON of that name in the store; where there is none, what `make` returns is put
        there. Of several machines that ask, one makes it and the others wait.

        Raises what `make` raises; the next that asks tries anew.
        """
        watched = _Watched()
        while (found := self.store.read(name)) is None:
            with self._claimed(name, watched) as is_ours:
                if is_ours:
                    made = make()
                    # somebody may have taken us for dead, and have been faster
                    if not self.store.create(name, made) and not self.store.read(name):
                        self.store.write(name, made)
                    continue
            if watched.seen and watched.first:
                self.on_wait(f"{watched.seen.get('by')} makes {name}: waiting")
            self.pause(self.beat / 10)
        return found

    @contextmanager
    def _claimed(self, name: str, watched: "_Watched") -> Iterator[bool]:
        """Whether the block may make it."""
        place = f"claims/{name.removesuffix('.json').replace('/', '-')}"
        number, now = self._newest(place)
        if now is not None and not watched.stands_still(number, now, _BEATS * self.beat):
            yield False
            return
        mine = f"{place}.{number if now is None else number + 1}"
        if not self.store.create(mine, _signed(0)):
            yield False
            return
        ended = threading.Event()
        heart = threading.Thread(target=self._live, args=(mine, ended), daemon=True)
        heart.start()
        try:
            yield True
        finally:
            ended.set()
            heart.join()
            for dead in range(number + 2):
                self.store.remove(f"{place}.{dead}")

    def _newest(self, place: str) -> tuple[int, dict[str, Any] | None]:
        """Its number and what it says; None where nobody claims it."""
        numbers = itertools.takewhile(lambda n: self.store.has(f"{place}.{n}"), itertools.count())
        if (last := max(numbers, default=None)) is None:
            return 0, None
        return last, self.store.read(f"{place}.{last}") or {}

    def _live(self, mine: str, ended: threading.Event) -> None:
        for number in itertools.count(1):
            if ended.wait(self.beat):
                return
            with suppress(InfrastructureError):  # the store may come again
                self.store.write(mine, _signed(number))


class _Watched:
    """A claim of somebody else, and since when it stands still."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] | None = None
        self.first = False  # whether it was seen for the first time just now
        self._number = -1
        self._since = 0.0

    def stands_still(self, number: int, now: dict[str, Any], seconds: float) -> bool:
        """Whether it has for so long."""
        if self._number != number or self.seen != now:
            self.first = self._number != number
            self._number, self.seen, self._since = number, now, time.monotonic()
            return False
        self.first = False
        return time.monotonic() - self._since > seconds


def _signed(beat: int) -> dict[str, Any]:
    return {"by": platform.node(), "beat": beat}
