# SPDX-License-Identifier: GPL-2.0-only
"""The process of an errand: what it says, how it ends."""

import sys
from pathlib import Path

import pytest

from lab.config import Lab
from lab.fleet import child
from lab.fleet.errand import Answer, Card, Errand


def _program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Stands for Python: its last word is the errand's folder."""
    program = tmp_path / "program"
    program.write_text(f'#!/bin/bash\ncd "${{@: -1}}"\n{body}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (folder := tmp_path / "place").mkdir()
    return folder


def test_its_answer_is_read(
    lab: Lab, errand: Errand, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = '{"card": {"where": "host", "trouble": "none"}}'
    _program(monkeypatch, tmp_path, f"grep -q contract errand.json && echo '{said}' > answer.json")
    answer = child.asked(errand, lab, place, (), lambda: True)
    assert answer == Answer(Card("host", "none"))


def test_one_that_dies_says_how(
    lab: Lab, errand: Errand, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(monkeypatch, tmp_path, "echo no room; kill -KILL $$")
    answer = child.asked(errand, lab, place, (), lambda: True)
    assert answer == Answer(failed="its process ended with status -9\nno room")


def test_one_that_nobody_waits_for_is_ended(
    lab: Lab, errand: Errand, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(monkeypatch, tmp_path, "trap 'touch ended; exit' TERM; touch begun; sleep 60 & wait")
    assert child.asked(errand, lab, place, (), lambda: not (place / "begun").exists()) is None
    assert (place / "ended").exists()
