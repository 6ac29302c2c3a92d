# SPDX-License-Identifier: GPL-2.0-only
"""Nights of real runs: what is new, what an interruption costs, and who is kept out."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.cell import Choice

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

# It stands for a kernel that breaks a rule from some day on.
_SUITE = """\
from pathlib import Path

from lab.contract import Mode
from lab.testing import contract

@contract("OWN-1", Mode.IOMMUFD)
def test_of_the_kernel(process):
    assert not Path(__file__).with_name("broken").exists(), "it is broken"

@contract("OWN-2", Mode.IOMMUFD)
def test_that_is_kept(process):
    pass
"""
_SLOW = """\
import time

def test_that_takes_long(process):
    time.sleep(60)
"""


@pytest.fixture
def kernel(choice: Choice, tmp_path: Path) -> Path:
    """A bzImage whose bits can change from night to night."""
    copy = tmp_path / "bzImage"
    shutil.copyfile(str(choice.kernel), copy)
    return copy


def _nights(small_lab: "SmallLab") -> list[Path]:
    return sorted((small_lab.root.parent / "state" / "nights").glob("2*"))


def _read(file: Path) -> Any:
    return json.loads(file.read_text())


def test_what_broke_since_last_night_is_told(small_lab: "SmallLab", kernel: Path) -> None:
    small_lab.suite(_SUITE)
    small_lab.nightly(kernels=[str(kernel)], machines=["vtd"], suites=["first"], again=1)
    first = small_lab.night("--json").outcome()
    assert first.status == 0, first.stderr
    assert json.loads(first.stdout)["news"] == []

    (small_lab.root / "first" / "broken").touch()
    kernel.write_bytes(kernel.read_bytes() + b"\0")  # another kernel: else the test is flaky
    second = small_lab.night().outcome()
    assert second.status == 1, second.stderr
    assert "newly broken: " in second.stdout

    night = _nights(small_lab)[-1]
    (news,) = _read(night / "news.json")
    assert news["change"] == "newly broken"
    assert (news["rule"], news["before"], news["runs"], news["passed"]) == ("OWN-1", "kept", 2, 0)
    assert (night.parent / news["evidence"] / "replay.sh").is_file()
    assert "test_of_the_kernel" in (night / "index.html").read_text()
    assert "1 newly broken" in (night / "mail.txt").read_text()
    assert 'failures="1"' in (night / "junit.xml").read_text()
    assert "not ok" in (night / "night.ktap").read_text()
    statuses = {test["status"] for test in _read(night / "kcidb.json")["tests"]}
    assert statuses >= {"PASS", "FAIL"}

    (small_lab.root / "first" / "broken").unlink()
    third = small_lab.night("--json").outcome()
    assert third.status == 0
    # the same kernel passes that failed before: nobody mended it
    assert [each["change"] for each in json.loads(third.stdout)["news"]] == ["flaky"]


def test_an_interrupted_night_goes_on_where_it_was(
    small_lab: "SmallLab",
    kernel: Path,
    qemus: Callable[[Path], list[int]],
    wait_until: Callable[[Callable[[], object], float], bool],
) -> None:
    small_lab.suite(_SUITE)
    small_lab.suite(_SLOW, "second")
    small_lab.nightly(kernels=[str(kernel)], machines=["vtd"], suites=["first", "second"])
    started = small_lab.night()

    def cells() -> dict[str, str]:
        found = _nights(small_lab)
        file = found[-1] / "night.json" if found else None
        if not file or not file.exists():
            return {}
        return {each["cell"]["suite"]: each["state"] for each in _read(file)["cells"]}

    assert wait_until(lambda: cells().get("first") == "tested", 90.0)
    log = _nights(small_lab)[-1] / "cells"
    assert wait_until(lambda: cells().get("second") == "running" and qemus(log), 30.0)

    other = small_lab.night().outcome()
    assert other.status == 2
    assert "a night runs already" in other.stderr

    started.process.send_signal(signal.SIGINT)
    cut = started.outcome()
    assert cut.status == 2
    assert "interrupted; `vfio-lab nightly --resume` goes on with" in cut.stderr
    assert not qemus(log)
    assert cells() == {"first": "tested", "second": "waiting"}

    (small_lab.root / "second" / "test_small.py").write_text(_SUITE)
    rest = small_lab.night("--resume", "--json").outcome()
    assert rest.status == 0, rest.stderr
    (night,) = _nights(small_lab)
    assert cells() == {"first": "tested", "second": "tested"}
    assert json.loads(rest.stdout)["night"]["name"] == night.name
    again = small_lab.night("--resume").outcome()
    assert (again.status, "no night was interrupted" in again.stderr) == (2, True)


def test_a_night_whose_time_is_up_tells_what_it_found(small_lab: "SmallLab", kernel: Path) -> None:
    small_lab.suite(_SUITE)
    small_lab.suite(_SLOW, "second")
    small_lab.nightly(
        kernels=[str(kernel)], machines=["vtd"], suites=["first", "second"], budget="40s"
    )
    outcome = small_lab.night("--json").outcome()
    cells = {
        each["cell"]["suite"]: (each["state"], each["why"])
        for each in json.loads(outcome.stdout)["night"]["cells"]
    }
    assert cells["first"] == ("tested", "")
    assert cells["second"][1] == "the night's time was up"
