# SPDX-License-Identifier: GPL-2.0-only
"""Whole runs in which a guest, QEMU or the machine fails: the verdict, the status, what goes on."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.guest.guest import DYING

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

_LOSES_ITS_GUEST = """\
import os
import signal
from pathlib import Path

from lab.agent.syscalls import Syscall

def test_before(process):
    assert process.syscall(Syscall.GETPID) == process.pid

def test_loses_it(testbed, process):
    {act}

def test_after(testbed, process):
    assert testbed.number == 2
    assert process.syscall(Syscall.GETPID) == process.pid

def test_after_that(testbed, process):
    assert testbed.number == 2
"""
_KILLS_QEMU = """\
for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.readlink() == testbed.guest.folder:
                os.kill(int(path.parent.name), signal.SIGKILL)
        except OSError:
            pass
    process.syscall(Syscall.GETPID)"""
_ACTS = {
    "panic": 'process.write_text("/proc/sysrq-trigger", "c")',
    "hang": 'testbed.guest.monitor.execute("stop"); process.syscall(39, timeout=1.0)',
    "kill": _KILLS_QEMU,
}


@pytest.mark.parametrize("way", _ACTS)
def test_a_lost_guest_costs_one_test(small_lab: "SmallLab", way: str) -> None:
    """A panic is the kernel's, and the run's status says so; what left no splat is the lab's."""
    small_lab.suite(_LOSES_ITS_GUEST.format(act=_ACTS[way]))
    outcome = small_lab.pytest()
    assert outcome.verdicts == {
        "test_before": "kept",
        "test_loses_it": "guest-lost",
        "test_after": "kept",
        "test_after_that": "kept",
    }
    lost = outcome.tests["test_loses_it"]
    assert outcome.status == (1 if way == "panic" else 2)
    splats = "".join(lost["splats"])
    assert ("sysrq triggered crash" in splats) is (way == "panic")
    assert ("(drivers/tty/sysrq.c:" in splats) is (way == "panic"), "no file and line"
    assert "the last lines of its console:" in lost["message"]
    assert lost["evidence"][0] == "guests/001/console.log"
    assert outcome.tests["test_after"]["evidence"][0] == "guests/002/console.log"
    assert outcome.results["finished"] is True


_OOPSES = """
import time

from lab.agent.syscalls import Syscall

def test_oopses(process, hands):
    for number in {numbers}:
        hands.write_text("/dev/kmsg", f"<1>Oops: Oops: 0000 [#{{number}}] SMP\\n")
    {then}
"""


def test_a_kernel_that_oopses_again_and_again_is_not_waited_for(small_lab: "SmallLab") -> None:
    """One has printed thousands, and the test waited for its deadline."""
    small_lab.suite(_OOPSES.format(numbers=(1, 2, 3), then="process.syscall(34)  # pause()"))
    started = time.monotonic()
    found = small_lab.pytest().tests["test_oopses"]
    assert time.monotonic() - started < 60.0
    assert found["verdict"] == "guest-lost"
    assert "the kernel oopses again and again, and comes to no panic" in found["message"]
    assert "Oops" in "".join(found["splats"])


def test_one_oops_alone_is_no_such_end(small_lab: "SmallLab") -> None:
    """The guest answers when the time is over in which a second one would have ended it."""
    answers = f"time.sleep({DYING + 2}); assert process.syscall(Syscall.GETPID) == process.pid"
    small_lab.suite(_OOPSES.format(numbers=(1,), then=answers))
    found = small_lab.pytest().tests["test_oopses"]
    assert found["verdict"] == "broken"
    assert found["message"].startswith("the kernel reported: Oops")


_ONE_TEST = """\
def test_one(process):
    assert process.alive

def test_two(process):
    assert process.alive
"""


@pytest.mark.parametrize("runner", ["run", "pytest"])
def test_a_device_that_qemu_has_not(small_lab: "SmallLab", runner: str) -> None:
    """QEMU's own words are shown, once, and no later test tries again."""
    small_lab.suite(_ONE_TEST)
    started = time.monotonic()
    outcome = getattr(small_lab, runner)("--qemu-arg=-device", "--qemu-arg=nosuchdevice")
    assert time.monotonic() - started < 15.0
    assert outcome.status == 2
    assert outcome.verdicts == {"test_one": "lab-error"}
    message = outcome.tests["test_one"]["message"]
    assert message.startswith("QEMU refuses to start:")
    assert "'nosuchdevice' is not a valid device model name" in message
    assert "'nosuchdevice' is not a valid device model name" in outcome.stdout


@pytest.mark.parametrize("runner", ["run", "pytest"])
def test_a_qemu_that_is_missing(small_lab: "SmallLab", runner: str) -> None:
    small_lab.suite(_ONE_TEST)
    outcome = getattr(small_lab, runner)("--qemu", "/nonexistent")
    assert outcome.status == 2
    assert "QEMU is missing: /nonexistent is no program" in outcome.troubles
    assert "QEMU is missing: /nonexistent is no program" in outcome.stdout
    assert outcome.verdicts == {}


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("QEMU emulator version 6.2.0", "is too old: QEMU emulator version 6.2.0"),
        ("bochs 2.7", "this is no QEMU: it says 'bochs 2.7'"),
    ],
)
def test_a_qemu_that_will_not_do(
    small_lab: "SmallLab", tmp_path: Path, says: str, message: str
) -> None:
    small_lab.suite(_ONE_TEST)
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\necho '{says}'\n")
    qemu.chmod(0o755)
    outcome = small_lab.run("--qemu", str(qemu))
    assert outcome.status == 2
    assert message in outcome.troubles
    assert message in outcome.stdout


def test_a_boot_that_fails_twice_ends_the_run(small_lab: "SmallLab") -> None:
    """It is tried again, for a host may have stumbled; the third time would be the same."""
    small_lab.suite(_ONE_TEST)
    outcome = small_lab.run("--boot-timeout", "0.5")
    assert outcome.status == 2
    assert outcome.verdicts == {"test_one": "guest-lost"}
    assert "no login within" in outcome.troubles
    assert outcome.tests["test_one"]["splats"] == []
    assert sorted(p.name for p in (outcome.folder / "guests").iterdir()) == ["001", "002"]


def test_two_runs_at_once(small_lab: "SmallLab") -> None:
    """They share a cache, and nothing else."""
    small_lab.suite(_ONE_TEST)
    runs = [small_lab.start(), small_lab.start()]
    for outcome in [run.outcome() for run in runs]:
        assert outcome.status == 0, outcome.stderr
        assert outcome.verdicts == {"test_one": "kept", "test_two": "kept"}


_OVERRUNS = """\
import time
import pytest

def test_before(testbed, process):
    assert testbed.number == 1

def test_spins():
    while True:
        try:
            while True:
                pass
        except Exception:
            pass

def test_calls_without_end(process):
    while True:
        process.run(SLEEP, timeout=60.0)

@pytest.mark.timeout(1)
def test_marked(process):
    time.sleep(60)

@pytest.fixture
def slow_end(process):
    yield
    time.sleep(0.1)

def test_after(testbed, process, slow_end):
    assert testbed.number == 4
"""
_SLEEP = """\
from lab.agent.program import Buf, Call, Imm, Program

REQUEST = (50).to_bytes(8, "little") + bytes(8)
SLEEP = Program(setup=(Call(35, (Buf(REQUEST, returned=False), Imm(0))),))

"""


@pytest.mark.parametrize("runner", ["run", "pytest"])
def test_a_test_that_overruns_costs_itself(small_lab: "SmallLab", runner: str) -> None:
    """It is no kernel's fault, whatever catches its end; the next one has a new guest."""
    small_lab.suite(_SLEEP + _OVERRUNS)
    if runner == "run":
        outcome = small_lab.run("--test-timeout", "3")
    else:
        outcome = small_lab.pytest("--timeout", "3", "-k", "before or spins or marked")
    assert outcome.status == 2
    late = ("test_spins", "test_calls_without_end", "test_marked")
    wanted = {"test_before": "kept", **dict.fromkeys(late, "lab-error"), "test_after": "kept"}
    assert outcome.verdicts == {name: wanted[name] for name in outcome.verdicts}
    messages = {name: test["message"] for name, test in outcome.tests.items()}
    assert messages["test_spins"] == "the test took longer than 3 s"
    assert messages["test_marked"] == "the test took longer than 1 s"
    if runner == "run":
        assert messages["test_calls_without_end"].startswith("the test took longer than 3 s\n")
        assert "nanosleep" in messages["test_calls_without_end"]
        assert outcome.tests["test_after"]["evidence"][0] == "guests/004/console.log"
    assert outcome.results["finished"] is True
