# SPDX-License-Identifier: GPL-2.0-only
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lab.results.evidence import keep
from lab.results.folder import RunFolder
from lab.results.record import TestRecord


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "guests" / "001").mkdir(parents=True)
    return RunFolder(tmp_path)


def test_the_record_names_what_was_written(run: RunFolder, broken: TestRecord) -> None:
    sources = {"calls.txt": lambda: "open()\n", "dmesg.txt": lambda: ""}
    record, troubles = keep(run, broken, sources, run.path / "guests" / "001")
    assert troubles == []
    assert record.folder == "tests/test_ownership.test_second_bind_is_refused-iommufd"
    assert record.evidence == (
        "guests/001/console.log",
        *(f"{record.folder}/{name}" for name in ("detail.txt", "calls.txt", "replay.sh")),
    )
    folder = run.path / record.folder
    assert (folder / "guest").readlink() == Path("../../guests/001")
    assert (folder / "calls.txt").read_text() == "open()\n"
    assert replace(record, folder=None, evidence=broken.evidence) == broken


def test_nothing_in_it_acts_on_a_terminal(run: RunFolder, broken: TestRecord) -> None:
    record, _ = keep(run, broken, {"console.log": lambda: "a\x1b[31m\r\nb\0\udc80\n"})
    assert record.folder
    folder = run.path / record.folder
    assert (folder / "console.log").read_text() == "a\\x1b[31m\nb\\x00\\udc80\n"
    detail = (folder / "detail.txt").read_text()
    assert detail.startswith(f"test     {broken.id}\nrule     OWN-3\n")
    assert "verdict  broken\n" in detail
    assert "E  \\x1b[31mFailed\\x1b[0m \\x00 \\udc80" in detail


def fails() -> str:
    raise KeyError("a fault of the lab's own")


def test_what_cannot_be_made_is_told_and_costs_nothing_else(
    run: RunFolder, broken: TestRecord
) -> None:
    record, troubles = keep(run, broken, {"calls.txt": fails, "dmesg.txt": lambda: "x"})
    assert [str(trouble) for trouble in troubles] == [
        f"evidence of {broken.id}: calls.txt cannot be written: "
        'KeyError: "a fault of the lab\'s own"'
    ]
    assert record.verdict is broken.verdict
    assert f"{record.folder}/dmesg.txt" in record.evidence
    assert f"{record.folder}/calls.txt" not in record.evidence


def test_a_full_disk_is_told_once_for_each_file(
    run: RunFolder, broken: TestRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    record, troubles = keep(run, broken, {})
    assert record.evidence == broken.evidence
    assert [str(trouble).partition(": ")[2] for trouble in troubles] == [
        "detail.txt cannot be written: No space left on device",
        "replay.sh cannot be written: No space left on device",
    ]


def test_without_a_folder_the_record_is_as_it_was(run: RunFolder, broken: TestRecord) -> None:
    (run.path / "tests").write_text("in the way")
    record, (trouble,) = keep(run, broken, {})
    assert record == broken
    assert "its folder cannot be written: Not a directory" in str(trouble)


@pytest.mark.parametrize("id_", ["a.py::b", 'a.py::it\'s $HOME `x` \n "q" [\u00e9]'])
def test_the_script_repeats_that_one_test(run: RunFolder, broken: TestRecord, id_: str) -> None:
    record, _ = keep(run, replace(broken, id=id_), {})
    (run.path / "replay.sh").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (run.path / "replay.sh").chmod(0o755)
    script = run.path / str(record.folder) / "replay.sh"
    said = subprocess.run([script, "-x"], cwd="/", capture_output=True, text=True, check=True)
    assert said.stdout == f"--only|{id_}|-x|"
