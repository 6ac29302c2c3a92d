# SPDX-License-Identifier: GPL-2.0-only
"""The one thread that starts every QEMU, reads every console and speaks QMP.

QEMU is told to die with its parent (PR_SET_PDEATHSIG), and to the kernel the parent is the
*thread* that forked. This thread lives as long as the lab's session, so guests do, too.
"""

import asyncio
import subprocess
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from lab.errors import InfrastructureError

T = TypeVar("T")


class Loop:
    """An asyncio event loop on a thread of its own; a context manager."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._ending = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="guests", daemon=True)

    def __enter__(self) -> "Loop":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def spawn(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Start a child from that thread. Raises InfrastructureError once all were ended."""

        def work() -> subprocess.Popen[bytes]:
            if self._ending:
                raise InfrastructureError("the lab is shutting down")
            child = start()
            self._children.append(child)
            return child

        return self.call(work)

    def end_children(self) -> None:
        """Kill every child that is left, and let no new one start."""

        def work() -> None:
            self._ending = True
            for child in self._children:
                child.kill()

        self.call(work)

    def settle(self) -> None:
        """Return once everything that has arrived until now has been read."""
        # One turn of the loop collects what is ready, the next one has dealt with it.
        for _ in range(2):
            self.call(lambda: None)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine there; its result comes with the future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[[], T]) -> T:
        """Run a plain function there and wait for what it returns."""

        async def work() -> T:
            return function()

        return self.submit(work()).result()
