# SPDX-License-Identifier: GPL-2.0-only
"""One deadline is handed down; nobody below gets more time."""

import contextlib
import signal
import threading
import time

import pytest

from lab import deadline
from lab.deadline import Deadline, Overrun, limit


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, to be turned by hand."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def test_time_runs_out_and_never_below_zero(now: list[float]) -> None:
    deadline = Deadline.after(10)
    seen = []
    for seconds in (0, 4, 6, 100):
        now[0] += seconds
        seen.append((deadline.left, deadline.passed))
    assert seen == [(10, False), (6, False), (0, True), (0, True)]


def test_it_remembers_what_was_allowed_for_messages(now: list[float]) -> None:
    deadline = Deadline.after(10)
    now[0] += 10
    assert deadline.seconds == 10


def test_what_spins_is_ended_whatever_it_catches() -> None:
    """It had no chance to catch anything."""
    caught: list[BaseException] = []

    def spin() -> None:
        try:
            while True:
                pass
        except Exception as error:
            caught.append(error)

    with pytest.raises(Overrun, match=r"it took longer than 0\.05 s"), limit(0.05, "it"):
        spin()
    assert caught == []


def test_what_swallows_its_end_gets_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def swallow_once() -> None:
        with contextlib.suppress(Overrun):
            time.sleep(10.0)
        time.sleep(10.0)

    monkeypatch.setattr(deadline, "_AGAIN", 0.05)
    with pytest.raises(Overrun, match=r"it took longer than 0\.05 s"), limit(0.05, "it"):
        swallow_once()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_is_in_time_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with limit(0.05, "it"):
        pass
    time.sleep(0.1)
    assert signal.getsignal(signal.SIGALRM) is before


def test_another_thread_has_no_limit() -> None:
    ended = []

    def work() -> None:
        with limit(0.01, "it"):
            time.sleep(0.05)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended
