# SPDX-License-Identifier: GPL-2.0-only
"""A run is repeated by what it left in its folder."""

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

_SUITE = """\
from errno import EINVAL

import pytest
from lab.agent.protocol import Syscall
from lab.testing import raises_errno

def test_kept(process):
    assert process.syscall(Syscall.GETPID) == process.pid

@pytest.mark.parametrize("fd", [12345])
def test_broken(process, fd):
    with raises_errno(EINVAL):
        process.syscall(Syscall.CLOSE, fd)

def test_not_asked_for():
    pass
"""


def replayed(folder: Path, out: Path, *words: str) -> tuple[int, dict[str, str]]:
    argv = [str(folder / "replay.sh"), *words, "--out", str(out)]
    status = subprocess.run(argv, cwd="/", check=False, capture_output=True, timeout=120).returncode
    tests = json.loads((out / "results.json").read_text())["tests"]
    return status, {test["id"].rpartition("::")[2]: test["verdict"] for test in tests}


@pytest.mark.parametrize("runner", ["run", "pytest"])
def test_replay_repeats_the_run_and_a_part_of_it(
    small_lab: "SmallLab", tmp_path: Path, runner: str
) -> None:
    small_lab.suite(_SUITE)
    first = getattr(small_lab, runner)("-k", "kept or broken", "--qemu-arg=-no-shutdown")
    assert first.verdicts == {"test_kept": "kept", "test_broken[12345]": "broken"}
    assert replayed(first.folder, tmp_path / "all") == (1, first.verdicts)
    failed = {"test_broken[12345]": "broken"}
    assert replayed(first.folder, tmp_path / "failed", "--failed") == (1, failed)
    ours, theirs = first.results, json.loads((tmp_path / "all" / "results.json").read_text())
    assert ours["kernel"]["key"] == theirs["kernel"]["key"]
    assert ours["image"]["key"] == theirs["image"]["key"]
    assert ours["machine"] == theirs["machine"]
    assert "-no-shutdown" in (tmp_path / "all" / "guests" / "001" / "qemu.sh").read_text()
