# SPDX-License-Identifier: GPL-2.0-only
"""The agent is an ordinary Linux program: these tests run it on the host, with no guest."""

import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.agent.build import compile_agent, find_compiler
from lab.agent.process import Process


class LocalTransport:
    """A channel to an agent that is a child of this process, over pipes or a socketpair."""

    def __init__(self, agent: Path, *, over_socket: bool = False) -> None:
        self._socket: socket.socket | None = None
        if over_socket:
            self._socket, theirs = socket.socketpair()
            with theirs:
                end = theirs.fileno()
                self.child = subprocess.Popen([agent], stdin=end, stdout=end)
        else:
            pipe = subprocess.PIPE
            self.child = subprocess.Popen([agent], stdin=pipe, stdout=pipe, bufsize=0)

    def send(self, data: bytes) -> None:
        if self._socket:
            self._socket.sendall(data)
            return
        assert self.child.stdin
        while data:
            data = data[self.child.stdin.write(data) :]

    def recv(self, deadline: float) -> bytes:
        source = self._socket or self.child.stdout
        assert source
        left = max(deadline - time.monotonic(), 0)
        if not select.select([source], [], [], left)[0]:
            raise TimeoutError
        if self._socket:
            return self._socket.recv(1 << 20)
        assert self.child.stdout
        return self.child.stdout.read(1 << 20) or b""

    def close(self) -> None:
        for end in (self._socket, self.child.stdin, self.child.stdout):
            if end:
                end.close()


Connect = Callable[[], LocalTransport]


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / "agent"
    compile_agent(path, find_compiler())
    return path


@pytest.fixture(params=["pipe", "socket"])
def connect(agent: Path, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Starts an agent; `.child` is its subprocess. Each is gone after the test."""
    with ExitStack() as stack:

        def start() -> LocalTransport:
            transport = LocalTransport(agent, over_socket=request.param == "socket")
            stack.callback(transport.child.wait, 5)
            stack.callback(transport.child.kill)
            stack.callback(transport.close)
            return transport

        yield start


@pytest.fixture
def spawn(agent: Path) -> Iterator[Callable[[], Process]]:
    with ExitStack() as stack:

        def start() -> Process:
            transport = LocalTransport(agent)
            stack.callback(transport.child.wait, 5)
            stack.callback(transport.child.kill)
            return stack.enter_context(Process(transport))

        yield start


@pytest.fixture
def process(spawn: Callable[[], Process]) -> Process:
    return spawn()
