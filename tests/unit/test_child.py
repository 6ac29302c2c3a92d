# SPDX-License-Identifier: GPL-2.0-only
"""A run in a process of its own is of the same lab."""

from pathlib import Path

import pytest

import lab as package
from lab.child import run_of
from lab.config import Lab


def test_what_lies_in_the_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.py").write_text("print('another lab')\n")
    lab = Lab.load(Path(package.__file__).parents[1])
    with run_of(lab, tmp_path / "run", ["--help"]) as process:
        assert process.wait() == 0
    said = (tmp_path / "run.log").read_text()
    assert "another lab" not in said
    assert "--rule" in said
