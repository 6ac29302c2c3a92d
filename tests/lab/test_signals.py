# SPDX-License-Identifier: GPL-2.0-only
"""A run that is interrupted: what is left of it is its report, and nothing else."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab, Started

Wait = Callable[[Callable[[], object], float], bool]

_SUITE = """\
import os
import time
from pathlib import Path

from lab.agent.syscalls import Syscall

def test_quick(process):
    assert process.syscall(Syscall.GETPID) == process.pid

def test_slow(process):
    if "STAGE" in os.environ:
        Path(os.environ["STAGE"]).touch()
        {wait}

def test_never_reached(process):
    pass
"""
_IN_PYTHON = "time.sleep(60)"
_IN_A_CALL = "process.syscall(Syscall.FUTEX, b'\\0' * 4, 0, 0, 0, timeout=60)"


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """Is there once the slow test runs."""
    return tmp_path / "stage"


def _terminal_interrupts(started: "Started") -> None:
    """Ctrl-C goes to the whole foreground group."""
    os.killpg(started.process.pid, signal.SIGINT)


def _service_ends(started: "Started") -> None:
    os.kill(started.process.pid, signal.SIGTERM)


def _terminal_closes(started: "Started") -> None:
    os.killpg(started.process.pid, signal.SIGHUP)


_WAYS = [_terminal_interrupts, _service_ends, _terminal_closes]


@pytest.fixture
def ends_cleanly(
    tmp_path: Path, qemus: Callable[[Path], list[int]], wait_until: Wait
) -> Iterator[None]:
    """Every QEMU goes within a moment of the run, not only when the test is torn down."""
    yield
    assert wait_until(lambda: not qemus(tmp_path), 3.0)


@pytest.mark.usefixtures("ends_cleanly")
@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("where", [_IN_PYTHON, _IN_A_CALL], ids=["python", "call"])
def test_interrupted_during_a_test(
    small_lab: "SmallLab",
    stage: Path,
    wait_until: Wait,
    way: Callable[["Started"], None],
    where: str,
) -> None:
    small_lab.suite(_SUITE.format(wait=where))
    started = small_lab.start(env={"STAGE": str(stage)})
    assert wait_until(stage.exists, 60.0)
    way(started)
    outcome = started.outcome(timeout=15.0)
    assert outcome.status == 2
    assert outcome.results["finished"] is False
    assert outcome.verdicts["test_quick"] == "kept"
    assert "test_never_reached" not in outcome.verdicts
    assert "the run did not finish" in outcome.stdout
    assert "Traceback" not in outcome.stderr


@pytest.mark.usefixtures("ends_cleanly")
@pytest.mark.parametrize("way", _WAYS)
def test_interrupted_during_the_boot(
    small_lab: "SmallLab",
    wait_until: Wait,
    qemus: Callable[[Path], list[int]],
    way: Callable[["Started"], None],
) -> None:
    small_lab.suite(_SUITE.format(wait=_IN_PYTHON))
    started = small_lab.start("--qemu-arg=-S")  # which lets no guest begin
    assert wait_until(lambda: qemus(started.folder), 60.0)
    way(started)
    outcome = started.outcome(timeout=15.0)
    assert outcome.status == 2
    assert outcome.results["finished"] is False
    assert "kept" not in outcome.verdicts.values()
    assert "Traceback" not in outcome.stderr


@pytest.mark.usefixtures("ends_cleanly")
def test_plain_pytest_is_interrupted(small_lab: "SmallLab", stage: Path, wait_until: Wait) -> None:
    small_lab.suite(_SUITE.format(wait=_IN_PYTHON))
    started = small_lab.start_pytest(env={"STAGE": str(stage)})
    assert wait_until(stage.exists, 60.0)
    _terminal_interrupts(started)
    outcome = started.outcome(timeout=15.0)
    assert outcome.status == 2
    assert outcome.results["finished"] is False
    assert outcome.verdicts["test_quick"] == "kept"


@pytest.mark.parametrize("in_a_test", [False, True], ids=["boot", "test"])
def test_killed(
    small_lab: "SmallLab",
    stage: Path,
    wait_until: Wait,
    qemus: Callable[[Path], list[int]],
    in_a_test: bool,
) -> None:
    """It cannot clean up: the kernel ends QEMU for it, and nothing is in the next run's way."""
    small_lab.suite(_SUITE.format(wait=_IN_PYTHON))
    started = small_lab.start(env={"STAGE": str(stage)})
    assert wait_until(stage.exists if in_a_test else lambda: qemus(started.folder), 60.0)
    assert qemus(started.folder)
    started.process.kill()
    assert started.outcome().status == -signal.SIGKILL
    assert wait_until(lambda: not qemus(started.folder), 3.0)
    if in_a_test:
        outcome = started.outcome()
        assert outcome.results["finished"] is False
        assert outcome.verdicts == {"test_quick": "kept"}
        assert small_lab.run().status == 0
