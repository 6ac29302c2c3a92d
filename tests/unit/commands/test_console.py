# SPDX-License-Identifier: GPL-2.0-only
"""What is typed reaches the guest's serial port, but for two keys; what it prints is shown."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.commands import console
from lab.commands.console import BREAK, LEAVE, Follower, Keyboard
from lab.living import Living

Typed = tuple[Keyboard, Callable[[], bytes], list[str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Typed]:
    """A keyboard, what it typed, and what was asked of the monitor."""
    asked: list[str] = []

    class Monitor:
        def execute(self, command: str, arguments: dict[str, str]) -> None:
            asked.append(f"{command} {arguments['id']}")

    @contextmanager
    def monitor_of(guest: Living) -> Iterator[Monitor]:
        del guest
        yield Monitor()

    monkeypatch.setattr(console, "monitor_of", monitor_of)
    ours, theirs = os.pipe()
    with subprocess.Popen(["sleep", "60"], stdin=ours) as qemu:
        guest = Living(qemu.pid, 0, tmp_path, 0, "", "vtd", "6.12", Path("/k"), 1.0, {})
        keyboard = Keyboard(guest)
        yield keyboard, lambda: os.read(ours, 4096), asked
        keyboard.close()
        qemu.kill()
    os.close(ours)
    os.close(theirs)


def test_keys_go_to_the_guest(typed: Typed) -> None:
    keyboard, read, asked = typed
    assert keyboard.type(b"ls\r\x03")
    assert (read(), asked) == (b"ls\r\x03", [])


def test_one_key_leaves(typed: Typed) -> None:
    keyboard, read, _ = typed
    assert not keyboard.type(b"ab" + LEAVE + b"cd")
    assert read() == b"ab"


def test_one_key_is_a_break(typed: Typed) -> None:
    keyboard, read, asked = typed
    assert keyboard.type(BREAK + b"w")
    assert (read(), asked) == (b"w", ["chardev-send-break console"])


def test_what_a_guest_prints_acts_on_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"".join(b"line %d\r\n" % number for number in range(100)))
    follower = Follower(log)
    follower.show()
    said = capsys.readouterr().out
    assert said.startswith("line 60\n")
    assert said.endswith("line 99\n")
    with log.open("ab") as file:
        file.write(b"\x1b[2Jcleared\r\n")
    assert follower.show()
    assert capsys.readouterr().out == "\\x1b[2Jcleared\n"
    assert not follower.show()
    follower.close()
