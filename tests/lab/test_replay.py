# SPDX-License-Identifier: GPL-2.0-only
"""A run is repeated by what it left in its folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

_SUITE = """\
from errno import EINVAL

import pytest
from lab.agent.syscalls import Syscall
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


def test_a_bundle_needs_neither_cache_nor_network(small_lab: "SmallLab", tmp_path: Path) -> None:
    small_lab.suite(_SUITE)
    first = small_lab.run("-k", "kept or broken")
    first_kernel = first.results["kernel"]["key"]
    lab = [sys.executable, "-m", "lab"]
    bundle, out = tmp_path / "bundle.tar.gz", tmp_path / "out"
    subprocess.run([*lab, "bundle", str(first.folder), "--out", str(bundle)], check=True)
    small_lab.root.rename(tmp_path / "moved")
    environment = {
        **os.environ,
        "VFIO_LAB_CACHE": str(tmp_path / "empty"),
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [*lab, "replay", str(bundle), "--out", str(out)],
        env=environment,
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2 tests as recorded, 0 differ" in done.stdout
    now = json.loads((out / "results.json").read_text())
    assert now["kernel"]["key"] == first_kernel
    assert {path.name for path in (tmp_path / "empty").iterdir()} <= {"facts", "locks"}
