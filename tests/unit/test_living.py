# SPDX-License-Identifier: GPL-2.0-only
"""Living guests are found by whoever is their user, and dead ones are not."""

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import ConfigurationError
from lab.living import Living, announced, born, chosen, free_to_enter, living


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))


@pytest.fixture
def guest(tmp_path: Path) -> Living:
    """This test's own process plays QEMU."""
    return make(os.getpid(), tmp_path / "20261123T000000Z-1" / "guests" / "001")


def make(pid: int, folder: Path) -> Living:
    folder.mkdir(parents=True)
    since = born(pid)
    assert since
    bzimage = Path("/kernel/bzImage")
    devices = {"edu0": "0000:00:01.0"}
    return Living(pid, since, folder, 2222, "00ff", "vtd", "6.12.117", bzimage, 1.0, devices)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Living]:
    """A second one, which was started later."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield make(process.pid, tmp_path / "20261123T000000Z-1" / "guests" / "002")
        process.kill()


def test_it_is_found_while_it_lives(guest: Living) -> None:
    assert living() == []
    with announced(guest):
        assert living() == [guest]
    assert living() == []


def test_nobody_else_reads_where_it_is(guest: Living, tmp_path: Path) -> None:
    with announced(guest):
        registry = tmp_path / "state" / "living"
        assert stat.S_IMODE(registry.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in registry.iterdir()} == {0o600}


def test_a_dead_one_is_forgotten(other: Living, guest: Living, tmp_path: Path) -> None:
    """Also where another process has its number by now."""
    with announced(other), announced(replace(guest, born=guest.born - 1)):
        os.kill(other.pid, 9)
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert living() == []
        assert list((tmp_path / "state" / "living").iterdir()) == []


def test_what_another_version_wrote_is_passed_over(guest: Living, tmp_path: Path) -> None:
    with announced(guest):
        (tmp_path / "state" / "living" / "1.json").write_text('{"pid": 1, "since": "ever"}')
        assert living() == [guest]


def test_without_a_name_it_is_the_newest_that_is_free(guest: Living, other: Living) -> None:
    assert chosen(None, [other, guest]) is None
    held, shell = replace(guest, why="held"), replace(other, why="vfio-lab shell")
    assert chosen(None, [other, held]) is held
    assert chosen(None, [shell, held]) is shell


def test_its_names(guest: Living, other: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [other, guest]
    run = guest.folder.parents[1]
    assert chosen(str(guest.pid), both) is guest
    assert chosen(str(other.folder), both) is other
    assert chosen(run.name, [guest]) is guest
    assert chosen(str(run), [guest]) is guest
    monkeypatch.chdir(run)
    assert chosen("guests/002", both) is other
    with pytest.raises(ConfigurationError, match="is 2 guests that can be entered"):
        chosen(run.name, both)
    assert chosen(run.name, [other, held := replace(guest, why="held")]) is held
    with pytest.raises(
        ConfigurationError, match="nosuch is no guest that can be entered"
    ) as refused:
        chosen("nosuch", both)
    assert str(guest.pid) in str(refused.value)


def test_it_is_free_to_enter_for_a_while(guest: Living) -> None:
    with pytest.raises(ConfigurationError, match="has no doors"), free_to_enter(guest.pid, "x"):
        pass
    with announced(guest):
        with free_to_enter(guest.pid, "held: test_x") as held:
            assert held.why == "held: test_x"
            assert chosen(None, living()) == held
        assert living() == [guest]
