# SPDX-License-Identifier: GPL-2.0-only
"""Guests that boot and end while tests run, so that nobody waits for them.

QEMU's own snapshots would be quicker than a boot (0.5 s to restore a guest beside 2.4 s to boot it,
measured with QEMU 10.0), but not honest: `edu` has no state that QEMU saves, nor does it refuse to.
The restored device has lost its BARs and its command register, of which the guest's kernel knows
nothing. A guest that is ready beforehand costs no waiting either.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Things that take seconds to start and a moment to end, such as guests; by a name, such as
    that of their machine.

    `start`, `unused` and `end` are called on threads of the pool's own. At most one thing is on its
    way or stands ready: what is `expected`. What was taken is the taker's, who gives it back to be
    ended; `unused` has a last look at what nobody took.
    """

    def __init__(
        self, start: Callable[[str], T], end: Callable[[T], None], unused: Callable[[T], None]
    ) -> None:
        self._start = start
        self._end = end
        self._unused = unused
        self._threads = ThreadPoolExecutor(3, "guests")  # one boots, another takes its place, ends
        self._name: str | None = None
        self._coming: Future[T] | None = None
        self._ending: list[Future[None]] = []
        self._hurried = False  # whether starts fail because they are made to

    @property
    def expected(self) -> str | None:
        """The name of what is on its way or stands ready."""
        return self._name

    def expect(self, name: str | None) -> None:
        """`name` is what will be asked for next: start it now. None: nothing will.

        What was expected under another name is ended.
        """
        if name == self._name:
            return
        if self._coming:
            self._ending.append(self._threads.submit(self._drop, self._coming))
        self._name = name
        self._coming = self._threads.submit(self._start, name) if name else None

    def take(self, name: str) -> T:
        """What was expected, or else a new one, as soon as it has started.

        Raises what `start` raised. Who is interrupted meanwhile leaves it expected.
        """
        self.expect(name)
        assert self._coming is not None
        wait([self._coming])
        coming, self._coming, self._name = self._coming, None, None
        return coming.result()

    def give_back(self, thing: T) -> None:
        """End it, and do not wait for that."""
        self._ending.append(self._threads.submit(self._end, thing))

    def close(self, hurry: Callable[[], None]) -> list[BaseException]:
        """End everything, and wait for it; after `hurry` starts that are under way fail soon.

        Returns why things could not be ended, or had failed to start when nobody asked for them.
        """
        unasked: list[Future[Any]] = []
        if self._coming and self._coming.done():
            unasked.append(self._coming)
            if not self._coming.exception():  # it stands ready: `hurry` would end it unseen
                unasked.append(self._threads.submit(self._unused, self._coming.result()))
                wait(unasked)
        self._hurried = True
        hurry()
        self.expect(None)
        self._threads.shutdown()
        failed = [future.exception() for future in unasked]
        failed += [future.exception() for future in self._ending]
        return [error for error in failed if error]

    def _drop(self, coming: Future[T]) -> None:
        """End what nobody wants any more, once it has started. Raises why it did not start."""
        wait([coming])
        if coming.exception() and self._hurried:
            return
        try:
            if not self._hurried:
                self._unused(coming.result())
        finally:
            self._end(coming.result())
