# SPDX-License-Identifier: GPL-2.0-only
"""Every night by systemd, whose `systemctl` here only notes what it is told; or by crontab."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lab.config import Lab
from lab.errors import ConfigurationError
from lab.nightly import install as module
from lab.nightly.install import SERVICE, TIMER, install, uninstall
from lab.nightly.post import PASSWORD

ODD = 'a lab of "100%n" $HOME \\x'


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return cast("Lab", SimpleNamespace(root=tmp_path / ODD))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state of 5%"))
    monkeypatch.setattr(module, "_BOOTED", tmp_path / "booted")
    monkeypatch.setattr(module, "_LINGER", tmp_path / "linger")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    return tmp_path / "config" / "systemd" / "user"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """It runs. Tells what it was told since."""
    said, program = tmp_path / "said", tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{said}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (tmp_path / "booted").mkdir()

    def told() -> list[str]:
        lines = said.read_text().splitlines()
        said.unlink()
        return [line for line in lines if line != "--user show-environment"]

    return told


@pytest.mark.parametrize("at", ["25:00", "21:60", "9:00", "21", "21:00:00", "21:00\n", "ab:cd", ""])
def test_what_is_no_time_of_day_is_the_user_s(lab: Lab, at: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a time of day"):
        install(lab, at)


def test_a_timer_starts_a_service(lab: Lab, systemd: Callable[[], list[str]], units: Path) -> None:
    said = install(lab, "21:30")
    assert said[0] == f"every night at 21:30: {units / TIMER}"
    assert systemd() == [
        "--user daemon-reload",
        f"--user stop {TIMER}",
        f"--user clean --what=state {TIMER}",
        f"--user enable --now {TIMER}",
    ]
    timer = (units / TIMER).read_text().splitlines()
    assert "OnCalendar=*-*-* 21:30:00" in timer
    assert "Persistent=true" in timer
    assert "Nice=10" in (units / SERVICE).read_text().splitlines()


def test_it_is_installed_once(lab: Lab, systemd: Callable[[], list[str]], units: Path) -> None:
    first = install(lab, "21:30")
    before = (units / SERVICE).read_bytes(), systemd()
    assert install(lab, "21:30") == first
    assert ((units / SERVICE).read_bytes(), systemd()) == before
    install(lab, "22:00")
    assert sorted(file.name for file in units.iterdir()) == [SERVICE, TIMER]
    assert "OnCalendar=*-*-* 22:00:00" in (units / TIMER).read_text()


def test_words_are_quoted_as_systemd_reads_them(
    lab: Lab, systemd: Callable[[], list[str]], units: Path, tmp_path: Path
) -> None:
    install(lab, "21:30")
    systemd()
    service = (units / SERVICE).read_text().splitlines()
    (start,) = [line for line in service if line.startswith("ExecStart=")]
    assert start.startswith('ExecStart=:"/usr/bin/env" "PATH=')
    assert start.endswith(rf'"--lab" "{tmp_path}/a lab of \"100%%n\" $HOME \\x"')
    assert f'"VFIO_LAB_STATE={tmp_path}/state of 5%%"' in start


def test_no_secret_is_written(
    lab: Lab, systemd: Callable[[], list[str]], units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD, "Tr0ub4dor")
    install(lab, "21:30")
    systemd()
    assert "Tr0ub4dor" not in (units / SERVICE).read_text()


def test_a_user_who_is_away_is_told(
    lab: Lab, systemd: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "me")
    assert "enable-linger" in install(lab, "21:30")[-1]
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / "me").touch()
    assert "enable-linger" not in install(lab, "21:30")[-1]
    systemd()


def test_what_is_installed_can_go(lab: Lab, systemd: Callable[[], list[str]], units: Path) -> None:
    install(lab, "21:30")
    systemd()
    assert uninstall() == [f"removed {units / SERVICE}", f"removed {units / TIMER}"]
    assert systemd() == [f"--user disable --now {TIMER}", "--user daemon-reload"]
    assert list(units.iterdir()) == []
    assert uninstall() == [f"nothing is installed in {units}"]


def test_without_systemd_it_is_a_line_of_crontab(lab: Lab, tmp_path: Path) -> None:
    _, line = install(lab, "05:07")
    assert line.startswith("7 5 * * * nice -n 10 /usr/bin/env ")
    assert (tmp_path / "state of 5%").is_dir()
    assert line.endswith(f">>'{tmp_path}/state of 5\\%/nightly.log' 2>&1")
    assert "crontab -e" in uninstall()[0]


def test_a_shell_reads_the_words_out_of_the_line(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = tmp_path / "python of mine"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$VFIO_LAB_STATE" "$@"\n')
    echo.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(echo))
    line = install(lab, "05:07")[1]
    command = line.split(maxsplit=5)[5].replace(r"\%", "%")  # as cron does
    subprocess.run(["/bin/sh", "-c", command], check=True, env={})
    state = tmp_path / "state of 5%"
    words = (state / "nightly.log").read_text().splitlines()
    assert words == [str(state), "-P", "-m", "lab", "nightly", "--lab", str(lab.root)]


@pytest.mark.usefixtures("systemd")
def test_a_manager_that_does_not_answer_is_none(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    assert "crontab" in install(lab, "21:30")[0]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("manager", ["--system", "--user"])
def test_systemd_itself_takes_the_units(
    lab: Lab, systemd: Callable[[], list[str]], units: Path, manager: str, tmp_path: Path
) -> None:
    install(lab, "21:30")
    systemd()
    argv = ["systemd-analyze", manager, "verify", str(units / SERVICE), str(units / TIMER)]
    done = subprocess.run(
        argv,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
