# SPDX-License-Identifier: GPL-2.0-only
"""One deadline is handed down; nobody below gets more time."""

import time

import pytest

from lab.deadline import Deadline


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
