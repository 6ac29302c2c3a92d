# SPDX-License-Identifier: GPL-2.0-only
"""Guests that hang: who is at fault, where it hangs, and how soon that is known."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.agent.errors import AgentDied, AgentTimeout
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm, Program
from lab.agent.syscalls import Syscall
from lab.cell import Cell
from lab.guest import hang
from lab.testbed import Testbed
from tests.lab.gdbstub import SPIN, SPIN_DEAF, plant

_TIMES, _PAUSE, _GETPRIORITY, _SCHED_SETSCHEDULER = 100, 34, 140, 144  # system calls
_SERIAL = Path("/proc/irq/4/effective_affinity_list")
_FIFO = 1


def _sleep(seconds: int) -> Program:
    request = seconds.to_bytes(8, "little") + bytes(8)
    return Program(setup=(Call(Syscall.NANOSLEEP, (Buf(request, returned=False), Imm(0))),))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block must not take longer."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def test_a_call_that_waits_for_ever_says_where(shared_testbed: Testbed) -> None:
    """pause() sleeps interruptibly: no SysRq but t shows it, and it ends with its process."""
    guest = shared_testbed.guest
    with (
        shared_testbed.start_process() as process,
        within(10.0),
        pytest.raises(AgentTimeout, match=r"did not answer in time: .*\bwaits in .*pause"),
    ):
        process.syscall(_PAUSE, timeout=0.5)
    assert "sysrq: Show State" in (guest.folder / hang.LOG).read_text()
    assert "sysrq" not in guest.console.tail()
    assert guest.alive
    assert guest.clock_goes()


@pytest.mark.parametrize("cpu", [0, 1], ids=["that-of-the-server", "another"])
def test_cpu_that_spins(testbed: Testbed, cpu: int) -> None:
    """With interrupts on the guest lives, and says itself where the call is. That the SSH server
    and the lab's own agent were on that CPU, which nobody else gets any more, does not matter."""
    plant(testbed, "__x64_sys_times", SPIN)
    with testbed.start_process() as process:
        process.syscall(Syscall.SCHED_SETAFFINITY, 0, 8, (1 << cpu).to_bytes(8, "little"))
        with (
            within(12.0),
            pytest.raises(AgentTimeout, match=rf"CPU {cpu} runs .*__x64_sys_times, in agent"),
        ):
            process.syscall(_TIMES, 0, timeout=0.5)
    assert testbed.guest.ssh.run("true").status == 0
    assert testbed.hands.syscall(Syscall.GETPID) == testbed.hands.pid


@pytest.mark.parametrize("hears_keys", [True, False], ids=["another", "that-of-the-console"])
def test_cpu_that_spins_without_interrupts(testbed: Testbed, hears_keys: bool) -> None:
    """Another CPU may print where it is. Where it is the one that hears the console, only QEMU
    knows, and an NMI makes the kernel tell."""
    guest, hands = testbed.guest, testbed.hands
    serial = int(hands.read_text(_SERIAL))
    cpu = next(each for each in range(testbed.machine.cpus) if (each != serial) == hears_keys)
    plant(testbed, "__x64_sys_getpriority", SPIN_DEAF)
    with testbed.start_process() as process:
        process.syscall(Syscall.SCHED_SETAFFINITY, 0, 8, (1 << cpu).to_bytes(8, "little"))
        with within(12.0), pytest.raises(AgentTimeout):
            process.syscall(_GETPRIORITY, 0, 0, timeout=0.5)
    with within(hang.ASKING + 15.0):
        lost = guest.why_lost("a call")
    assert "the guest does not answer: " in lost.message
    assert "__x64_sys_getpriority" in lost.message
    assert lost.splat
    assert not guest.alive
    log = (guest.folder / hang.LOG).read_text()
    assert "RIP=" in log
    # Under TCG the panic of an NMI comes late, or not at all.
    assert ("NMI backtrace for cpu" in log) if hears_keys else ("== an NMI ==\nsent" in log)
    assert guest.why_lost("another").splat == lost.splat  # it is asked once


def _sleep_in_vain(hands: Process) -> None:
    """Until each of the loops has read its line and begun."""
    for _ in range(10):
        hands.run(_sleep(1), timeout=2.0)


def test_user_space_that_has_all_cpus(testbed: Testbed) -> None:
    """Nobody knows whether the kernel is to blame: no report is made up."""
    guest, hands = testbed.guest, testbed.hands
    hands.write_text("/proc/sys/kernel/sched_rt_runtime_us", "-1")
    loop = "echo $$; read -r _; while :; do :; done"
    hogs = [guest.ssh.start(f"sh -c '{loop}'") for _ in range(testbed.machine.cpus)]
    for hog in hogs:
        pid = int(hog.recv(time.monotonic() + 5.0))
        priority = (50).to_bytes(4, "little")  # struct sched_param
        hands.syscall(_SCHED_SETSCHEDULER, pid, _FIFO, priority)
    for hog in hogs:
        hog.send(b"\n")
    with pytest.raises(AgentTimeout):
        _sleep_in_vain(hands)
    lost = guest.why_lost("a call")
    assert lost.splat is None
    assert re.search(r"CPU \d runs user space, in sh \(pid \d+\)", lost.message)


def test_qemu_that_stands_still(testbed: Testbed, qemus: Callable[[Path], list[int]]) -> None:
    """Stopped by a signal it does not answer either: the error says so."""
    (qemu,) = qemus(testbed.guest.folder)
    os.kill(qemu, signal.SIGSTOP)
    with within(20.0):
        with pytest.raises(AgentTimeout):
            testbed.hands.syscall(Syscall.GETPID, timeout=0.5)
        lost = testbed.guest.why_lost("a call")
    assert "QEMU does not answer" in lost.message
    assert lost.splat is None
    with within(5.0):
        testbed.close()


def test_a_connection_that_is_cut(testbed: Testbed) -> None:
    """The guest lives, which its kernel can say, but nobody reaches it."""
    guest = testbed.guest
    guest.ssh.cut()
    with pytest.raises(AgentDied):
        testbed.hands.syscall(Syscall.GETPID)
    assert not guest.alive
    with within(hang.ASKING):
        lost = guest.why_lost("a call")
    assert "SSH's connection broke: its kernel answers SysRq, and hangs nowhere" in lost.message
    assert lost.splat is None


def test_a_clock_that_stands(new_cell: Callable[..., Cell]) -> None:
    """The tick is the PIT's, on request, and is then stopped (mode 0, no count)."""
    words = ("nolapic_timer", "hpet=disable", "clocksource=jiffies")
    testbed = new_cell(command_line=words).testbed()
    guest = testbed.guest
    assert guest.clock_goes()
    guest.monitor.human("o /1 0x43 0x30")
    assert not guest.clock_goes()
    assert testbed.hands.syscall(Syscall.GETPID) == testbed.hands.pid


def test_a_panic_in_the_middle_of_a_reply(testbed: Testbed) -> None:
    """Some of an answer has come, and no more will."""
    guest, process = testbed.guest, testbed.start_process()
    size = 16 << 20
    with process.open("/dev/zero", os.O_RDONLY) as zero:
        read = Call(Syscall.READ, (Imm(zero.fd), Buf(size=size), Imm(size)))
        pending = process.start(Program(setup=(read,)))
        assert pending.done(within=20.0)  # its first bytes are here
        with within(5.0):
            with pytest.raises(AgentDied):
                testbed.hands.write_text("/proc/sysrq-trigger", "c")
            with pytest.raises(AgentDied):
                pending.wait()
    assert "the kernel panicked: " in guest.why_lost("a reply").message
