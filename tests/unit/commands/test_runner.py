# SPDX-License-Identifier: GPL-2.0-only
"""What was asked for and is not there is told before anything is built or booted for it."""

from pathlib import Path

import pytest

from lab.cell import Choice, series_of
from lab.commands import runner
from lab.commands.runner import Selection, run_suites
from lab.commands.trace import trace_test
from lab.config import Lab
from lab.debug.ftrace import Wish
from lab.errors import ConfigurationError

LAB = """
debian: {suites: [bookworm]}
kernels: {k: {source: {tarball: linux.tar}, fragments: [base]}}
images: {minimal: {recipe: images/minimal}}
machines: {plain: {}}
suites: {contract: {tests: tests}}
run: {kernel: k, machine: plain, suites: [contract]}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "kernels" / "fragments").mkdir(parents=True)
    (tmp_path / "kernels" / "fragments" / "base.config").touch()
    (tmp_path / "lab.yaml").write_text(LAB)
    return Lab.load(tmp_path)


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (Selection(("contact",)), "unknown suite: 'contact'"),
        (Selection(("contract",), rules=("OWN-33",)), "unknown rule: 'OWN-33'"),
        (Selection(("contract",), modes=("iomufd",)), "unknown mode: 'iomufd'"),
    ],
)
def test_unknown_names_cost_no_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, selection: Selection, said: str
) -> None:
    monkeypatch.setattr(runner, "Session", None)  # it would make a folder and boot a guest
    with pytest.raises(ConfigurationError, match=said):
        run_suites(lab, Choice(), selection, out=None, as_json=False)


def test_patches_of_no_series_are_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="--patches is about a series"):
        series_of(None, 3)


@pytest.mark.parametrize("target", ["/tmp/nosuch.c", "tests/test_nosuch.py::test_x"])
def test_nothing_is_traced_where_there_is_no_file(lab: Lab, target: str) -> None:
    with pytest.raises(ConfigurationError, match=r"nosuch\.\w+ is no file; expected a program"):
        trace_test(lab, Choice(), target, (), Wish((), ()), out=None)
