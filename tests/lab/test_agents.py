# SPDX-License-Identifier: GPL-2.0-only
"""A thousand agents on one guest, and no lost transport: before anything is built on it.

How dropbear loses one is told in lab/guest/ssh.py.
"""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from lab.agent import install
from lab.agent.errors import AgentDied
from lab.agent.syscalls import Syscall
from lab.cache import Cache
from lab.testbed import Testbed

_AGENTS = 1000
_AT_ONCE = 8


@pytest.fixture
def same_transport(shared_testbed: Testbed) -> Iterator[None]:
    """The connection lives when the test ends, with the channel that was opened first."""
    hands = shared_testbed.hands
    yield
    assert shared_testbed.guest.ssh.alive
    assert shared_testbed.hands is hands
    assert shared_testbed.hands.syscall(Syscall.GETPID) == shared_testbed.hands.pid


@contextmanager
def _measured(count: int, record: Callable[[str, object], None]) -> Iterator[None]:
    started = time.monotonic()
    yield
    rate = count / (time.monotonic() - started)
    record("agents_per_second", round(rate, 1))
    print(f"{count} agents, {rate:.1f} a second")


def _use(testbed: Testbed) -> int:
    with testbed.start_process() as process:
        assert process.syscall(Syscall.GETPID) == process.pid
        return process.pid


@pytest.mark.usefixtures("same_transport")
def test_a_thousand_agents_one_after_the_other(
    shared_testbed: Testbed, record_property: Callable[[str, object], None]
) -> None:
    with _measured(_AGENTS, record_property):
        pids = {_use(shared_testbed) for _ in range(_AGENTS)}
    assert len(pids) == _AGENTS


@pytest.mark.usefixtures("same_transport")
def test_a_thousand_agents_eight_at_a_time(
    shared_testbed: Testbed, record_property: Callable[[str, object], None]
) -> None:
    with _measured(_AGENTS, record_property), ThreadPoolExecutor(_AT_ONCE) as pool:
        pids = set(pool.map(lambda _: _use(shared_testbed), range(_AGENTS)))
    assert len(pids) == _AGENTS


@pytest.mark.usefixtures("same_transport")
def test_agents_and_programs_that_end_by_themselves(shared_testbed: Testbed) -> None:
    """At any moment, that is: while others are being opened."""

    def die(number: int) -> None:
        if number % 2:
            assert shared_testbed.guest.ssh.run("true").status == 0
            return
        with shared_testbed.start_process() as process, pytest.raises(AgentDied):
            process.syscall(Syscall.KILL, process.pid, signal.SIGKILL)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(die, range(200)))


@pytest.mark.usefixtures("same_transport")
def test_files_are_pushed_between_agents(shared_testbed: Testbed) -> None:
    program = install.binary(Cache.of_user())

    def push(number: int) -> None:
        place = f"/run/copy-{number}"
        shared_testbed.guest.ssh.push(program, place)
        assert shared_testbed.guest.ssh.run("cmp", place, install.PLACE).status == 0
        assert _use(shared_testbed)
        assert shared_testbed.guest.ssh.run("rm", place).status == 0

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(push, range(40)))
