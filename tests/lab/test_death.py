# SPDX-License-Identifier: GPL-2.0-only
"""Guests and agents that die or hang in use: who is told, how soon, and what is released."""

import os
import signal
import threading
import time
from collections.abc import Callable
from errno import EBUSY, EINVAL
from pathlib import Path

import pytest

from lab.agent.errors import AgentDied, AgentTimeout, RemoteError
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm, Program
from lab.agent.syscalls import Syscall
from lab.cell import Cell
from lab.testbed import Testbed
from lab.vfio.files import Iommufd

Wait = Callable[[Callable[[], object], float], bool]

_SOON = 5.0  # seconds


def _sleep(seconds: int) -> Program:
    request = seconds.to_bytes(8, "little") + bytes(8)
    return Program(setup=(Call(Syscall.NANOSLEEP, (Buf(request, returned=False), Imm(0))),))


# Guests


def test_a_panic_is_told_at_once_and_the_next_guest_is_a_new_one(
    new_cell: Callable[..., Cell],
) -> None:
    cell = new_cell()
    testbed = cell.testbed()
    guest = testbed.guest
    started = time.monotonic()
    with pytest.raises(AgentDied):
        testbed.hands.write_text("/proc/sysrq-trigger", "c")
    assert not guest.alive
    lost = guest.why_lost("a crash on request")
    assert time.monotonic() - started < 10.0
    assert guest.monitor.saw("GUEST_PANICKED")
    assert lost.message.startswith("a crash on request: the kernel panicked: ")
    assert lost.splat
    assert "sysrq triggered crash" in lost.splat
    assert "Call Trace:" in lost.splat

    following = cell.testbed()
    assert following.number == testbed.number + 1
    assert following.hands.syscall(Syscall.GETPID) == following.hands.pid


def test_a_guest_that_stands_still_costs_its_deadline_and_no_more(testbed: Testbed) -> None:
    with testbed.start_process() as process:
        testbed.guest.monitor.execute("stop")
        started = time.monotonic()
        with pytest.raises(AgentTimeout, match="did not answer in time"):
            process.syscall(Syscall.GETPID, timeout=1.0)
        # and the moment that every process gets to end in
        assert time.monotonic() - started < 1.0 + 2.0 + 1.0
        assert not process.alive
        assert testbed.guest.why_lost("a call").splat is None
        started = time.monotonic()
    testbed.close()
    assert time.monotonic() - started < _SOON


def test_a_call_that_does_not_return_harms_only_its_process(shared_testbed: Testbed) -> None:
    with shared_testbed.start_process() as process:
        started = time.monotonic()
        with pytest.raises(AgentTimeout, match="nanosleep"):
            process.run(_sleep(60), timeout=0.5)
        assert time.monotonic() - started < 0.5 + _SOON  # in which the kernel is asked where it is
    assert shared_testbed.guest.alive
    assert shared_testbed.hands.syscall(Syscall.GETPID) == shared_testbed.hands.pid


def test_a_killed_qemu_is_noticed_at_once(
    testbed: Testbed, qemus: Callable[[Path], list[int]]
) -> None:
    (qemu,) = qemus(testbed.guest.folder)
    os.kill(qemu, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(AgentDied):
        testbed.hands.syscall(Syscall.GETPID)
    assert time.monotonic() - started < 2.0
    lost = testbed.guest.why_lost("a call")
    assert "QEMU ended" in lost.message
    assert lost.splat is None


# Agents


@pytest.fixture
def group(shared_testbed: Testbed) -> str:
    """The node of a group that one process at a time may open."""
    return shared_testbed.devices["edu0"].group_path(shared_testbed.hands)


def _fails_with(number: int, call: Callable[[], object]) -> bool:
    """Whether a call still fails as it must while somebody else holds the thing."""
    try:
        call()
    except RemoteError as error:
        if error.errno != number:
            raise
        return True
    return False


def _opens_again(hands: Process, path: str, wait_until: Wait) -> None:
    """Soon: nobody waits for a process that was killed, so its files close a moment later."""
    assert wait_until(lambda: not _fails_with(EBUSY, lambda: hands.open(path).close()), _SOON)


def test_a_killed_agent_lets_go_of_its_group(
    shared_testbed: Testbed, group: str, wait_until: Wait
) -> None:
    hands = shared_testbed.hands
    with shared_testbed.start_process() as owner:
        owner.open(group)
        with pytest.raises(RemoteError) as refused:
            hands.open(group)
        assert refused.value.errno == EBUSY
        pending = owner.start(_sleep(60))
        hands.syscall(Syscall.KILL, owner.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(AgentDied):
            pending.wait()
        assert time.monotonic() - started < 2.0
        assert not owner.alive
        _opens_again(hands, group, wait_until)
        with pytest.raises(AgentDied):
            owner.syscall(Syscall.GETPID)
    assert shared_testbed.guest.ssh.run("true").status == 0


def test_a_killed_agent_lets_go_of_its_device(shared_testbed: Testbed, wait_until: Wait) -> None:
    hands, edu = shared_testbed.hands, shared_testbed.devices["edu0"]
    owner = shared_testbed.start_process()
    cdev = edu.open_cdev(owner)
    cdev.bind(Iommufd.open(owner, Iommufd.PATH))
    hands.syscall(Syscall.KILL, owner.pid, signal.SIGKILL)
    owner.close()
    with (
        shared_testbed.start_process() as next_owner,
        Iommufd.open(next_owner, Iommufd.PATH) as iommufd,
        edu.open_cdev(next_owner) as again,
    ):
        assert wait_until(lambda: not _fails_with(EINVAL, lambda: again.bind(iommufd)), _SOON)


def test_closing_an_agent_ends_its_call_here_and_there(
    shared_testbed: Testbed, group: str, wait_until: Wait
) -> None:
    """The host gives up on an agent that blocks in a system call."""
    hands = shared_testbed.hands
    owner = shared_testbed.start_process()
    owner.open(group)
    pending = owner.start(_sleep(60))
    raised: list[tuple[type[BaseException], float]] = []

    def wait() -> None:
        try:
            pending.wait()
        except AgentDied as error:
            raised.append((type(error), time.monotonic()))

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.2)
    started = time.monotonic()
    owner.close()
    waiter.join(_SOON)
    assert not waiter.is_alive()
    assert [kind for kind, _ in raised] == [AgentDied]
    assert raised[0][1] - started < 2.0
    _opens_again(hands, group, wait_until)
    assert not hands.exists(f"/proc/{owner.pid}")
    assert shared_testbed.guest.ssh.run("true").status == 0
