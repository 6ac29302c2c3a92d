# SPDX-License-Identifier: GPL-2.0-only
"""A guest is held until somebody has had enough, and told how to get in."""

import os
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from lab import deadline
from lab.debug.hold import FILE, also_known, hold, ways_in
from lab.living import Living, announced, born, living


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Living:
    """This test's own process plays QEMU."""
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))
    pid, since = os.getpid(), born(os.getpid())
    assert since
    return Living(pid, since, tmp_path, 2222, "00", "vtd", "6.12.117", Path("/k/bzImage"), 1.0, {})


def test_until_its_file_is_removed(guest: Living) -> None:
    file = guest.folder / FILE
    seen: list[str] = []

    def leave() -> None:
        while not file.exists():
            time.sleep(0.01)
        seen.extend([file.read_text(), living()[0].why])
        file.unlink()

    with announced(guest):
        leaver = Thread(target=leave)
        leaver.start()
        hold(guest.pid, "test_x: it failed", None)
        leaver.join()
        assert living() == [guest]
    assert seen[0].startswith("held: test_x: it failed\nguest ")
    assert f"It goes on when {file} is removed." in seen[0]
    assert seen[1] == "held: test_x: it failed"


def test_until_its_prompt_has_ended(guest: Living, capsys: pytest.CaptureFixture[str]) -> None:
    with announced(guest):
        hold(guest.pid, "test_x: it failed", lambda: print("(prompt)"))
    assert not (guest.folder / FILE).exists()
    assert capsys.readouterr().out.endswith(f"{ways_in(guest)}\n(prompt)\n")


def test_an_interrupt_leaves_nothing(guest: Living) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with announced(guest):
        with pytest.raises(KeyboardInterrupt):
            hold(guest.pid, "test_x", interrupt)
        assert living() == [guest]


def test_no_deadline_comes_nearer(guest: Living) -> None:
    with announced(guest), deadline.limit(0.2, "it"):
        hold(guest.pid, "test_x", lambda: time.sleep(0.4))
        with pytest.raises(deadline.Overrun):
            time.sleep(0.4)


def test_names_that_are_there_stay_what_they_are() -> None:
    frame = sys._getframe()  # noqa: SLF001
    with also_known(frame, {"time": None, "edu0": "a device"}):
        assert frame.f_globals["edu0"] == "a device"
        assert frame.f_globals["time"] is time
    assert "edu0" not in frame.f_globals
