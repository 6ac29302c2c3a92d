# SPDX-License-Identifier: GPL-2.0-only
"""QMP to one QEMU: commands, and every event that came, in order."""

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from lab.deadline import Deadline
from lab.errors import GuestLost, InfrastructureError
from lab.guest.loop import Loop

_ANSWER = 10.0  # seconds within which a living QEMU answers a command


class Monitor:
    """A connected QMP client whose coroutines run on the guests' thread."""

    def __init__(self, loop: Loop, end: socket.socket, on_event: Callable[[], None]) -> None:
        self._loop = loop
        self._client = QMPClient("guest")
        self._events: list[Message] = []
        self._lock = threading.Condition()
        self._on_event = on_event
        self._actions: list[tuple[Collection[str], Callable[[], None]]] = []
        self._listener = EventListener()
        self._listening: asyncio.Task[None] | None = None
        self._started = loop.submit(self._run(end))

    async def _run(self, end: socket.socket) -> None:
        await self._client.connect(end)
        self._client.register_listener(self._listener)
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for event in self._listener:
            with self._lock:
                self._events.append(event)
                self._lock.notify_all()
                due = [action for names, action in self._actions if event["event"] in names]
            self._on_event()
            for action in due:
                action()

    @property
    def events(self) -> list[Message]:
        """All events so far, as QEMU sent them."""
        with self._lock:
            return list(self._events)

    def saw(self, name: str) -> bool:
        """Whether an event of this name has come."""
        return any(event["event"] == name for event in self.events)

    def when(self, names: Collection[str], action: Callable[[], None]) -> None:
        """Have `action` called each time that an event of these names comes, on the guests' thread,
        and at once if one has come already."""
        with self._lock:
            self._actions.append((names, action))
            late = any(event["event"] in names for event in self._events)
        if late:
            action()

    def wait_for(self, name: str, device: str, deadline: Deadline, *, start: int = 0) -> bool:
        """Whether an event of this name and device is among those from number `start` on, or
        comes in time."""

        def came() -> bool:
            events: list[Any] = [*self._events[start:]]
            return any(
                event["event"] == name and event.get("data", {}).get("device") == device
                for event in events
            )

        with self._lock:
            return self._lock.wait_for(came, deadline.left)

    def drain(self, deadline: Deadline) -> None:
        """Once QEMU has ended: return when all that it said is in `events`."""

        async def drained() -> None:
            while self._client.runstate is Runstate.RUNNING or not self._listener.empty():
                await asyncio.sleep(0.005)

        with contextlib.suppress(TimeoutError):
            self._loop.submit(asyncio.wait_for(drained(), deadline.left)).result()

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout: float = _ANSWER,
    ) -> Any:
        """One QMP command. Raises GuestLost when QEMU is gone or does not answer within `timeout`
        seconds, and InfrastructureError when it refuses."""
        try:
            self._started.result(timeout)
            future = self._loop.submit(self._client.execute(command, arguments))
            return future.result(timeout)
        except ExecuteError as error:
            raise InfrastructureError(f"QEMU refuses {command}: {error}") from error
        except (QMPError, EOFError, OSError, concurrent.futures.TimeoutError) as error:
            raise GuestLost(f"QEMU does not answer {command}: {error!r}") from error

    def human(self, line: str, *, timeout: float = _ANSWER) -> str:
        """A command of the human monitor; what it prints. Raises as `execute` does."""
        words = {"command-line": line}
        text: str = self.execute("human-monitor-command", words, timeout=timeout)
        return text

    def close(self) -> None:
        """End the connection; QEMU may be gone already."""

        async def disconnect() -> None:
            with contextlib.suppress(QMPError, EOFError, OSError):
                await self._client.disconnect()
            if self._listening:
                self._listening.cancel()

        # Told to disconnect while it still connects, qemu.qmp fails an assertion of its own.
        concurrent.futures.wait([self._started], _ANSWER)
        self._loop.submit(disconnect()).result(_ANSWER)
