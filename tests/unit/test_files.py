# SPDX-License-Identifier: GPL-2.0-only
"""Files that somebody may read while they are written."""

from pathlib import Path

import pytest

from lab.files import replace


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    replace(file, "old")
    with file.open() as reader:
        replace(file, "new\n")
        assert reader.read() == "old", "it was written in place"
    assert file.read_text() == "new\n"
    assert file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]


def test_a_script_can_be_run(tmp_path: Path) -> None:
    replace(tmp_path / "replay.sh", "#!/bin/sh\n", mode=0o755)
    assert (tmp_path / "replay.sh").stat().st_mode & 0o777 == 0o755


def test_what_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    replace(file, "old")
    with pytest.raises(UnicodeEncodeError):
        replace(file, "\udc80")
    assert file.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
