# SPDX-License-Identifier: GPL-2.0-only
"""What is told of a broken test, and that telling it changes no verdict."""

import json
import os
import subprocess
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

_SUITE = """\
import errno
from random import Random

import pytest

from lab.agent.calls import close, openat
from lab.agent.program import Program
from lab.contract import Mode
from lab.testing import raises_errno
from lab.vfio.modes import open_device

ODD = "../../odd\\n" + 300 * "x"

def test_kept(hands):
    hands.write_text("/dev/kmsg", "<2>of another test\\n")

@pytest.mark.parametrize("flow", ["iommufd", "vfio_type1v2_iommu"])
def test_broken(process, devices, hands, dice, flow):
    hands.write_text("/dev/kmsg", "<2>of this test \\x1b[31mred\\n")
    assert dice.randint(0, 1 << 30) == Random(17).randint(0, 1 << 30)
    with open_device(process, devices["edu0"], Mode(flow)) as opened:
        with raises_errno(errno.ENOTTY):
            opened.device.reset()

@pytest.mark.parametrize("word", [ODD], ids=[ODD])
def test_odd(process, word):
    node = "/dev/vfio/vfio"
    ops = (openat(node, 0), close(0))
    process.run(Program(threads=(ops, ops), rounds=300))
    raise AssertionError("\\x1b[2Jof a guest")

def test_loses_its_guest(process, hands):
    process.write_text("/proc/sysrq-trigger", "c")
"""
_FILES = ("detail.txt", "versions.txt", "calls.txt", "console.log", "dmesg.txt", "replay.sh")


def test_a_broken_test_has_a_folder_with_all_that_is_known(small_lab: "SmallLab") -> None:
    small_lab.suite(_SUITE)
    outcome = small_lab.run("--seed", "17")
    assert outcome.status == 1
    assert outcome.results["seed"] == 17
    assert outcome.troubles == ""
    tests = outcome.tests
    assert tests["test_kept"]["folder"] is None

    broken = tests["test_broken[iommufd]"]
    assert broken["folder"] == "tests/test_small.test_broken-iommufd"
    folder = outcome.folder / broken["folder"]
    assert {*_FILES, "seeds.txt", "guest"} == {path.name for path in folder.iterdir()}
    for path in broken["evidence"]:
        assert (outcome.folder / path).is_file()
    assert {f"{broken['folder']}/{name}" for name in _FILES} < set(broken["evidence"])
    calls = (folder / "calls.txt").read_text()
    assert "VFIO_DEVICE_BIND_IOMMUFD, {argsz=16, flags=0, iommufd=3</dev/iommu>}" in calls
    assert "VFIO_DEVICE_RESET) = -1 EINVAL" in calls
    assert 'write(3</sys/bus/pci/drivers_probe>, "0000:' in calls
    console, ring = (folder / "console.log").read_text(), (folder / "dmesg.txt").read_text()
    assert "of this test" in console
    assert "of another test" not in console
    assert "of another test" in ring
    assert "\x1b" not in console + ring + outcome.stdout + outcome.stderr
    assert console.startswith("(from byte ")
    assert (folder / "seeds.txt").read_text() == "seed 17\n"
    assert outcome.results["kernel"]["release"] in (folder / "versions.txt").read_text()
    assert "verdict  broken\n" in (folder / "detail.txt").read_text()
    assert (folder / "guest").resolve() == (outcome.folder / "guests/001").resolve()
    assert f"see {broken['folder']}/: detail.txt, " in outcome.stdout

    group = outcome.folder / tests["test_broken[vfio_type1v2_iommu]"]["folder"]
    assert "VFIO_GROUP_GET_DEVICE_FD" in (group / "calls.txt").read_text()

    (odd,) = (test for test in outcome.results["tests"] if "test_odd" in test["id"])
    assert len(odd["folder"]) < 140
    calls = (outcome.folder / odd["folder"] / "calls.txt").read_text()
    assert "300 rounds of 2 threads, which ended in " in calls
    assert len(calls) < 30_000

    lost = outcome.folder / tests["test_loses_its_guest"]["folder"]
    assert not (lost / "dmesg.txt").exists()
    assert "sysrq: Trigger a crash" in (lost / "console.log").read_text()
    assert "agent" in (lost / "calls.txt").read_text().splitlines()[2]
    own = (lost / "calls.txt").read_text().split("\n\n")[1].splitlines()
    assert any('"c", 1) = ?' in line for line in own)
    assert own[-1].split()[2] == "+++"
    inside = {path for path in outcome.folder.rglob("*") if path.is_file()}
    assert all(path.is_relative_to(outcome.folder) for path in inside)
    ElementTree.parse(outcome.folder / "junit.xml")

    replay = subprocess.run(
        [outcome.folder / odd["folder"] / "replay.sh", "--out", outcome.folder / "again"],
        check=False, capture_output=True, timeout=120,
    )  # fmt: skip
    assert replay.returncode == 1, replay.stderr
    again = json.loads((outcome.folder / "again" / "results.json").read_text())
    assert [test["id"] for test in again["tests"]] == [odd["id"]]
    assert again["seed"] == 17


_FULL = """\
import pathlib

def test_broken(process, testbed):
    run = testbed.guest.folder.parents[1]
    (run / "tests").mkdir()
    (run / "tests").chmod(0o500)
    (run / "tests").rmdir()
    (run / "tests").symlink_to("/dev/full")
    assert process.pid == 0

def test_after(process):
    assert process.alive
"""


def test_evidence_that_cannot_be_written_is_told_and_changes_no_verdict(
    small_lab: "SmallLab",
) -> None:
    small_lab.suite(_FULL)
    outcome = small_lab.run()
    assert outcome.verdicts == {"test_broken": "broken", "test_after": "kept"}
    assert outcome.status == 2
    assert "evidence of first/test_small.py::test_broken: its folder" in outcome.troubles
    assert os.fspath(outcome.folder)
