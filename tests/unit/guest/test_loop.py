# SPDX-License-Identifier: GPL-2.0-only
"""The thread that starts guests outlives whoever asked it to."""

import asyncio
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import InfrastructureError
from lab.guest import Loop

LEASH = ["setpriv", "--pdeathsig", "KILL"]
SLEEP = ["sleep", "60"]


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop
        loop.end_children()


def start() -> "subprocess.Popen[bytes]":
    """A child that is on its leash when this returns."""
    child = subprocess.Popen([*LEASH, *SLEEP])
    while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\n":
        time.sleep(0.01)
    return child


def ended(child: "subprocess.Popen[bytes]", seconds: float) -> bool:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def on_a_thread_that_ends(work: object) -> None:
    assert callable(work)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_function_runs_there_and_its_result_comes_back(loop: Loop) -> None:
    assert loop.call(lambda: threading.current_thread().name) == "guests"


def test_an_error_comes_back_too(loop: Loop) -> None:
    def fail() -> None:
        raise KeyError("there")

    with pytest.raises(KeyError, match="there"):
        loop.call(fail)
    assert loop.call(lambda: 1) == 1


def test_a_coroutine_runs_while_others_wait(loop: Loop) -> None:
    event = asyncio.Event()

    async def wait() -> str:
        await event.wait()
        return "woken"

    future = loop.submit(wait())
    loop.call(event.set)
    assert future.result(10) == "woken"


def test_what_has_arrived_is_read_when_settle_returns(loop: Loop) -> None:
    read: list[bytes] = []

    class Reader(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            read.append(data)

    out, into = os.pipe()
    with os.fdopen(out, "rb") as pipe:

        async def connect() -> None:
            await asyncio.get_running_loop().connect_read_pipe(Reader, pipe)

        loop.submit(connect()).result(10)
        for number in range(100):
            os.write(into, b"word")
            loop.settle()
            assert b"".join(read) == b"word" * (number + 1)
        os.close(into)


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv")
def test_a_child_outlives_the_thread_that_asked_for_it(loop: Loop) -> None:
    children: list[subprocess.Popen[bytes]] = []
    on_a_thread_that_ends(lambda: children.append(loop.spawn(start)))
    # the control: a child of the thread itself dies with it
    on_a_thread_that_ends(lambda: children.append(start()))
    spawned, control = children
    assert ended(control, 10)
    assert not ended(spawned, 0.2)


def test_every_child_is_ended(loop: Loop) -> None:
    children = [loop.spawn(lambda: subprocess.Popen(SLEEP)) for _ in range(3)]
    started = time.monotonic()
    loop.end_children()
    assert all(ended(child, 10) for child in children)
    assert time.monotonic() - started < 5


def test_no_child_starts_after_the_end(loop: Loop) -> None:
    loop.end_children()
    with pytest.raises(InfrastructureError, match="shutting down"):
        loop.spawn(lambda: pytest.fail("it was started"))


def test_a_child_that_cannot_start_is_the_callers_trouble(loop: Loop) -> None:
    with pytest.raises(FileNotFoundError):
        loop.spawn(lambda: subprocess.Popen(["/no/such/program"]))


def test_the_thread_ends_with_the_block() -> None:
    with Loop() as loop:
        thread = loop.call(threading.current_thread)
        assert thread.is_alive()
    assert not thread.is_alive()
