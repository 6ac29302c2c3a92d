# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab splats`: any log, several at a time, and a status that a script can use."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.commands.splats import show_splats, symbols_of
from lab.errors import ConfigurationError
from lab.splats.symbols import Symbols

SPLAT = "[    1.000001] WARNING: suspicious RCU usage\n"
CLEAN = "[    1.000000] vfio-pci 0000:00:05.0: resetting\n"


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clean.log").write_text(CLEAN)
    (tmp_path / "bad.log").write_bytes(
        CLEAN.encode() + b"[    1.0] \xff\xfe \x1b[31m\n" + SPLAT.encode()
    )
    (tmp_path / "bad.log.gz").write_bytes(gzip.compress(SPLAT.encode()))
    (tmp_path / "torn.gz").write_bytes(gzip.compress(SPLAT.encode() * 100)[:40])
    return tmp_path


def status(*files: str, texts: bool = False, as_json: bool = False) -> int:
    return show_splats(files, None, texts=texts, as_json=as_json)


@pytest.mark.usefixtures("logs")
def test_each_file_says_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("clean.log", "bad.log", "bad.log.gz") == 1
    assert capsys.readouterr().out.splitlines() == [
        "bad.log:3-3: rcu-usage: WARNING: suspicious RCU usage",
        "bad.log.gz:1-1: rcu-usage: WARNING: suspicious RCU usage",
    ]


@pytest.mark.usefixtures("logs")
def test_a_clean_log_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("clean.log") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("name", ["missing.log", "torn.gz", "."])
def test_what_cannot_be_read_is_trouble_and_hides_nothing(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(name, "bad.log") == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"vfio-lab: {name}: ")
    assert "bad.log:3-3" in printed.out


@pytest.mark.usefixtures("logs")
def test_the_reports_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("bad.log", texts=True) == 1
    assert SPLAT in capsys.readouterr().out


@pytest.mark.usefixtures("logs")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("bad.log", "missing.log", as_json=True) == 2
    bad, missing = json.loads(capsys.readouterr().out)
    assert bad["splats"] == [
        {
            "kind": "rcu-usage",
            "title": "WARNING: suspicious RCU usage",
            "first": 3,
            "last": 3,
            "headline": "WARNING: suspicious RCU usage",
            "text": SPLAT.strip(),
        }
    ]
    assert (missing["splats"], bool(missing["error"])) == ([], True)


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(SPLAT.encode())))
    assert status() == 1
    assert capsys.readouterr().out.startswith("-:1-1: rcu-usage")


def test_the_command_itself(logs: Path) -> None:
    argv = [sys.executable, "-m", "lab", "splats", "bad.log"]
    done = subprocess.run(argv, cwd=logs, capture_output=True, text=True, check=False,
                          env={"PYTHONPATH": str(Path(__file__).parents[3])})  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "bad.log:3-3: rcu-usage: WARNING: suspicious RCU usage\n"


def test_the_words_for_symbols(tmp_path: Path) -> None:
    assert symbols_of(None, None, None, None) is None
    assert isinstance(symbols_of(None, None, tmp_path, None), Symbols)
    with pytest.raises(ConfigurationError, match="two ways"):
        symbols_of(None, "v6.12", tmp_path, None)
    with pytest.raises(ConfigurationError, match="--modules"):
        symbols_of(None, None, None, tmp_path)
