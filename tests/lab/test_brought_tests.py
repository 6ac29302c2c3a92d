# SPDX-License-Identifier: GPL-2.0-only
"""Tests that a series brings: a folder beside the suites, with all that the suites' tests have."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

_SUITE = """\
from lab.contract import Mode
from lab.testing import contract

@contract("OWN-1", Mode.IOMMUFD)
def test_of_the_lab(process):
    pass

@contract("OWN-2", Mode.IOMMUFD)
def test_of_another_rule(process):
    pass
"""
_BROUGHT = """\
from errno import ENOTTY

from lab.contract import Mode
from lab.testing import contract, on_machine, raises_errno
from lab.vfio.modes import open_device
from lab.vfio.uapi.layout import io

def test_once_a_mode(process, edu, mode):
    with open_device(process, edu, mode) as opened, raises_errno(ENOTTY):
        opened.device.ioctl(io(200))

def test_of_no_mode(process, sibling, rng, modes, both_flows):
    assert Mode.IOMMUFD in modes

@contract("OWN-3", Mode.IOMMUFD)
def test_of_a_rule(process, edu):
    pass
"""


def _brought(small_lab: "SmallLab", text: str) -> str:
    small_lab.suite(_SUITE)
    folder = small_lab.root.parent / "brought"
    folder.mkdir()
    (folder / "test_new.py").write_text(text)
    return str(folder)


@pytest.mark.parametrize("runner", ["run", "pytest"])
def test_they_run_beside_the_suites(small_lab: "SmallLab", runner: str) -> None:
    """Whatever rules are chosen; a mode chooses among them, too."""
    words = ("--tests", _brought(small_lab, _BROUGHT), "--rule", "OWN-1", "--mode", "iommufd")
    outcome = getattr(small_lab, runner)(*words)
    assert outcome.verdicts == dict.fromkeys(
        ("test_of_the_lab", "test_once_a_mode[iommufd]", "test_of_no_mode", "test_of_a_rule"),
        "kept",
    )
    rows = {line.split()[0] for line in outcome.stdout.splitlines() if " kept" in line}
    assert {"OWN-1", "OWN-3", "test_new.py"} <= rows
    assert outcome.status == 0


def test_a_kernel_that_lacks_their_flow_is_not_asked(small_lab: "SmallLab") -> None:
    words = ("--tests", _brought(small_lab, _BROUGHT), "--machine", "vtd-no-remapping")
    verdicts = small_lab.run(*words, "-k", "test_once_a_mode").verdicts
    assert set(verdicts.values()) == {"not-applicable"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "no test in "), ("import nothing_of_this_name\n", "No module named 'nothing_of_this")],
    ids=["empty", "broken"],
)
def test_none_that_can_be_read(small_lab: "SmallLab", text: str, expected: str) -> None:
    outcome = small_lab.run("--tests", _brought(small_lab, text))
    assert expected in outcome.stdout + outcome.stderr
    assert outcome.status == 2


def test_no_such_folder(small_lab: "SmallLab") -> None:
    small_lab.suite(_SUITE)
    for outcome in (small_lab.run("--tests", "nowhere"), small_lab.pytest("--tests", "nowhere")):
        assert "nowhere" in outcome.stderr
        assert outcome.status in (2, 4)  # 4: pytest's own, for words that it does not take
