# SPDX-License-Identifier: GPL-2.0-only
"""The way to one agent and back: frames over a transport, deadlines, and how it ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from lab.agent.errors import AgentDied, AgentTimeout
from lab.agent.protocol import FRAME_HEADER, ProtocolError, decode_frame_header, decode_hello
from lab.deadline import Overrun


class Transport(Protocol):
    """Bytes to the stdin and from the stdout of one agent."""

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError when the transport is closed or takes no more."""

    def recv(self, deadline: float) -> bytes:
        """Some bytes, b"" at the end.

        `deadline` is a value of `time.monotonic()`; raises TimeoutError when it has passed.
        """

    def close(self) -> None:
        """Close it, upon which the agent exits. A second time does nothing."""


class Frames:
    """Bytes made frames. Raises TimeoutError, OSError, EOFError and ProtocolError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._received = bytearray()

    def send(self, frame: bytes) -> None:
        self._transport.send(frame)

    def receive(self, deadline: float) -> tuple[int, bytes]:
        """The kind of the next frame, and its payload."""
        self._gather(FRAME_HEADER, deadline)
        kind, length = decode_frame_header(bytes(self._received[:FRAME_HEADER]))
        self._gather(FRAME_HEADER + length, deadline)
        payload = bytes(self._received[FRAME_HEADER : FRAME_HEADER + length])
        del self._received[: FRAME_HEADER + length]
        return kind, payload

    def begins(self, deadline: float) -> bool:
        """Whether the next frame begins to arrive by then."""
        try:
            self._gather(FRAME_HEADER, deadline)
        except TimeoutError:
            return False
        return True

    def _gather(self, size: int, deadline: float) -> None:
        while len(self._received) < size:
            data = self._transport.recv(deadline)
            if not data:
                raise EOFError("the channel is at its end")
            self._received += data


class Channel:
    """An agent that said hello, until something goes wrong or `close`.

    `name` is for messages, `timeout` for the hello, in seconds. `ended` is told of its end, once,
    and why. `whereabouts` is asked where the process with this PID is that does not answer, before
    it ends. Raises AgentDied or AgentTimeout when no agent answers at the other end of `transport`,
    which is closed then.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        timeout: float,
        ended: Callable[[str], None],
        whereabouts: Callable[[int], str] | None = None,
    ) -> None:
        self.name = name
        self._whereabouts = whereabouts
        self._transport = transport
        self._ended = ended
        self._frames = Frames(transport)
        self._gone: str | None = None
        self._pid: int | None = None
        with self.use() as frames:
            _, payload = frames.receive(time.monotonic() + timeout)
            self.hello = decode_hello(payload)
        self._pid = self.hello.pid
        self.name = f"{name} (pid {self.hello.pid})"

    @property
    def alive(self) -> bool:
        """False once it was closed or the agent was seen to be gone."""
        return self._gone is None

    @contextmanager
    def use(self) -> Iterator[Frames]:
        """What goes wrong within leaves no agent: nobody knows what it would say next.

        Raises AgentDied or AgentTimeout, and what else the block raises.
        """
        if self._gone:
            raise AgentDied(f"{self.name} is gone: {self._gone}")
        try:
            yield self._frames
        except TimeoutError as error:
            raise AgentTimeout(self._late("it did not answer in time")) from error
        except (OSError, EOFError, ProtocolError) as error:
            self.close(str(error))
            raise AgentDied(f"{self.name} died: {error}") from error
        except Overrun as error:
            error.add_note(self._late("a call to it was interrupted"))
            raise
        except BaseException:
            self.close("a call to it was interrupted")
            raise

    def _late(self, why: str) -> str:
        """Close it, and say where the agent was, which takes seconds: who is interrupted meanwhile
        leaves none either."""
        try:
            where = self._whereabouts(self._pid) if self._whereabouts and self._pid else ""
        finally:
            self.close(why)
        return f"{self.name} did not answer in time" + (f": {where}" if where else "")

    def close(self, why: str) -> None:
        """End the agent; a second time does nothing. `why` is told to whoever asks it again."""
        if self._gone is None:
            self._gone = why
            self._ended(why)
        self._transport.close()
