# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab history`, as a person and as a script read it."""

import json
from pathlib import Path

import pytest

from lab.commands.history import show_history
from lab.config import Lab
from lab.errors import ConfigurationError
from lab.history.store import History
from lab.results.verdict import Verdict
from tests.unit.history.conftest import FIRST, SECOND, THIRD, UAF_TITLE, Nights, crash, record

LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels: {v6: {source: {tarball: linux.tar}, fragments: [base]}}
images: {minimal: {recipe: images/minimal}}
machines: {vtd: {}}
suites: {contract: {tests: suites/contract}}
run: {kernel: v6, machine: vtd, suites: [contract]}
nightly: {kernels: [v6], machines: [vtd], suites: [contract], history: "sqlite:///@FILE@"}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """One whose nightly says where its history is; three nights of it."""
    file = tmp_path / "elsewhere.sqlite3"
    for folder in ("kernels/fragments", "images/minimal", "suites/contract"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "kernels/fragments/base.config").touch()
    (tmp_path / "lab.yaml").write_text(LAB.replace("@FILE@", str(file)))
    with History.opened(f"sqlite:///{file}") as history:
        nights = Nights(history)
        nights.ran(FIRST, record("test_bind"), record("test_unbind"), record("test_open"))
        nights.ran(SECOND, crash("test_bind"), record("test_unbind"), record("test_open"))
        nights.ran(THIRD, crash("test_bind"), record("test_unbind"), record("test_open"))
    return Lab.load(tmp_path)


def shown(
    lab: Lab, capsys: pytest.CaptureFixture[str], word: str | None, *, as_json: bool = False
) -> str:
    show_history(lab, word, None, None, as_json=as_json)
    return capsys.readouterr().out


def test_without_a_word_it_is_a_line_a_night(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(lab, capsys, None).splitlines()
    assert [line.split()[0] for line in lines[2:]] == [THIRD, SECOND, FIRST]
    assert lines[0].split() == ["night", "cells", "hours", "kept", "guest-lost"]
    assert lines[2].split() == [THIRD, "1", "0.0", "2", "1"]


def test_a_rule_has_first_bad_and_last_good(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(lab, capsys, "OWN-3")
    assert "next on vtd: contract" in said
    assert f"first bad    {SECOND} on 6.12.57, at {SECOND}" in said
    assert f"last good    {FIRST} on 6.12.57, at {FIRST}" in said
    assert f"2 tests never failed, in 6 runs; the last passed in {THIRD}" in said


def test_a_test_has_its_rate_with_an_interval(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(lab, capsys, "test_unbind")
    assert f"last passed  {THIRD}" in said
    assert "0 of 3 runs on bits that pass, 0 % (0 % to 71 % with 95 % confidence)" in said


def test_a_splat_has_its_nights_and_tests(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(lab, capsys, "vfio_group_fops_open")
    assert said.startswith(UAF_TITLE)
    assert "in 2 nights" in said
    assert f"first seen  {SECOND}" in said
    assert "test_bind[iommufd]" in said


def test_all_of_it_is_there_for_a_script(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (standing,) = json.loads(shown(lab, capsys, "test_bind", as_json=True))["standings"]
    assert standing["first_bad"]["night"] == SECOND
    assert standing["cell"]["machine"] == "vtd"
    assert (standing["runs"], len(standing["interval"])) == (1, 2)
    (sighting,) = json.loads(shown(lab, capsys, UAF_TITLE, as_json=True))["sightings"]
    assert sighting["nights"] == 2
    nights = json.loads(shown(lab, capsys, None, as_json=True))["nights"]
    assert nights[0]["counts"] == {Verdict.KEPT: 2, Verdict.GUEST_LOST: 1}


@pytest.mark.parametrize(("kernel", "machine"), [("6.13", None), (None, "amd")])
def test_a_kernel_or_machine_that_no_night_had_is_refused(
    lab: Lab, kernel: str | None, machine: str | None
) -> None:
    with pytest.raises(ConfigurationError, match="expected one of"):
        show_history(lab, None, kernel, machine, as_json=False)
