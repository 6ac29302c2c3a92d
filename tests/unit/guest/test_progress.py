# SPDX-License-Identifier: GPL-2.0-only
"""Who waits sees what is done; who reads a log sees it in lines."""

import io
import itertools
import os
import re
import time

import pytest
from rich.console import Console

from lab import progress
from lab.progress import Progress


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def steps(log: io.StringIO) -> Progress:
    return Progress(Console(file=log, width=80))


@pytest.fixture
def chatty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log in which every note is a line."""
    monkeypatch.setattr(progress, "_LOG_INTERVAL", 0.0)


def lines(log: io.StringIO) -> list[str]:
    """What was written, with times as T."""
    return [re.sub(r"\d+(\.\d)? s$", "T", line) for line in log.getvalue().splitlines()]


def test_a_step_has_its_name_and_its_time(steps: Progress, log: io.StringIO) -> None:
    with steps.step("build v6.12"):
        assert lines(log) == ["… build v6.12"]
    assert lines(log) == ["… build v6.12", "✓ build v6.12 T"]


def test_a_step_says_what_came_of_it(steps: Progress, log: io.StringIO) -> None:
    with steps.step("build v6.12") as step:
        step.result("1718 commands")
    assert lines(log)[-1] == "✓ build v6.12: 1718 commands T"


def test_a_step_that_fails_is_marked_and_the_error_goes_on(
    steps: Progress, log: io.StringIO
) -> None:
    with pytest.raises(KeyboardInterrupt), steps.step("build v6.12"):
        raise KeyboardInterrupt
    assert lines(log)[-1] == "✗ build v6.12 T"


@pytest.mark.usefixtures("chatty")
def test_a_log_shows_how_far_a_step_is(steps: Progress, log: io.StringIO) -> None:
    with steps.step("test") as step:
        step.advance(3, 12, "tests")
        step.advance(4, unit="MB")
        step.note("waiting")
    assert lines(log)[1:-1] == [
        "  test: 3/12 tests (25 %), T",
        "  test: 4 MB, T",
        "  test: waiting, T",
    ]


def test_a_log_is_not_flooded(
    steps: Progress, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0, 0.01)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with steps.step("test") as step:
        while step.seconds < 35:
            step.note("at it")
    assert lines(log) == ["… test", *["  test: at it, T"] * 3, "✓ test T"]


@pytest.mark.usefixtures("chatty")
def test_brackets_are_words_and_no_colours(steps: Progress, log: io.StringIO) -> None:
    with steps.step("test [iommufd]") as step:
        step.note("[bold]")
        step.result("[red]")
    steps.say("[/nothing]")
    assert lines(log) == [
        "… test [iommufd]",
        "  test [iommufd]: [bold], T",
        "✓ test [iommufd]: [red] T",
        "[/nothing]",
    ]


def test_a_terminal_has_one_live_line(log: io.StringIO) -> None:
    steps = Progress(Console(file=log, width=80, force_terminal=True, color_system=None))
    with steps.step("build v6.12") as step:
        step.advance(1, 2)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", log.getvalue())
    assert "… build" not in plain
    assert plain.rstrip().splitlines()[-1].startswith("✓ build v6.12 ")


def test_quiet_is_silent(log: io.StringIO) -> None:
    steps = Progress(Console(file=log, width=80), quiet=True)
    with steps.step("build") as step:
        step.advance(1, 2)
        step.result("done")
    steps.say("a word")
    assert log.getvalue() == ""


def test_steps_go_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    steps = Progress()
    with steps.step("build"):
        os.write(1, b"a script's\n")
    seen = capfd.readouterr()
    assert seen.out == "a script's\n"
    assert "build" in seen.err


def test_names_do_not_act_on_the_terminal(steps: Progress, log: io.StringIO) -> None:
    """A patch's subject, or a compiler that shows the line of a source, may hold anything."""
    with steps.step("apply \x1b[2J[red]x") as step:
        step.result("\x9b31m")
    steps.say("\x1b]0;title\x07")
    steps.say_once("once")
    steps.say_once("once")
    assert "\x1b" not in log.getvalue()
    assert "\x9b" not in log.getvalue()
    assert "apply \\x1b[2J[red]x" in log.getvalue()
    assert log.getvalue().count("once") == 1
