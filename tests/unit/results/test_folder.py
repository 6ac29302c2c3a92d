# SPDX-License-Identifier: GPL-2.0-only
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import ConfigurationError, InfrastructureError
from lab.results.folder import RunFolder, runs
from lab.results.record import RunRecord


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_runs_that_start_at_once_have_a_folder_each(state: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(RunFolder.create) for _ in range(40)]
        folders = {future.result().path for future in made}
    assert len(folders) == 40
    assert all(folder.parent == state / "runs" for folder in folders)
    assert (state / "runs" / "latest").resolve() in folders
    assert {path.name for path in (state / "runs").iterdir()} == {
        "latest",
        *(folder.name for folder in folders),
    }


def test_latest_is_the_last(state: Path) -> None:
    RunFolder.create()
    last = RunFolder.create()
    assert (state / "runs" / "latest").readlink() == Path(last.path.name)


def test_without_a_setting_runs_are_in_the_users_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VFIO_LAB_STATE", raising=False)
    assert runs().parts[-2:] == ("vfio-lab", "runs")


def test_out_is_made_or_taken_when_empty(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path / "a" / "b").path == tmp_path / "a" / "b"
    assert RunFolder.create(tmp_path / "a" / "b").path.is_dir()


def test_out_that_holds_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").touch()
    with pytest.raises(ConfigurationError, match="not empty") as refused:
        RunFolder.create(tmp_path)
    assert refused.value.hint


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="File exists"):
        RunFolder.create(tmp_path / "file")


def test_a_guests_folder_has_three_digits(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.guest(7) == folder.guest(7) == tmp_path / "guests" / "007"
    assert folder.relative(folder.guest(7) / "console.log") == "guests/007/console.log"


@pytest.mark.parametrize(
    ("id_", "name"),
    [
        ("tests/contract/test_dma.py::test_copy[iommufd]", "test_dma.test_copy-iommufd"),
        ("tests/a.py::TestClass::test_x", "a.TestClass-test_x"),
        ("selftests/vfio_dma_mapping_test::case 1 (a/b)", "vfio_dma_mapping_test.case-1-a-b"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "test"),
        ("a.py::../../../b\n\x1b[31m\0", "a...-..-..-b-31m"),
        (f"a.py::{300 * 'x'}", f"a.{118 * 'x'}"),
        ("", "test"),
    ],
)
def test_a_tests_folder_is_named_after_it_whatever_its_id_holds(
    tmp_path: Path, id_: str, name: str
) -> None:
    folder = RunFolder(tmp_path).test(id_)
    assert folder == tmp_path / "tests" / name
    assert folder.is_dir()


def test_no_two_tests_share_a_folder(tmp_path: Path) -> None:
    """Repetitions of one, others of the same name, and several workers at once."""
    run = RunFolder(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(run.test, f"{place}/a.py::test_x") for place in "ab" for _ in range(20)]
        folders = {future.result().name for future in made}
    assert folders == {"a.test_x", *(f"a.test_x-{number}" for number in range(2, 41))}


def test_relative_follows_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunFolder(Path("out")).relative(tmp_path / "out" / "a.log") == "a.log"
    with pytest.raises(ValueError, match="not in the subpath"):
        RunFolder(Path("out")).relative(tmp_path / "a.log")


def test_what_is_written_is_read(tmp_path: Path, record: RunRecord) -> None:
    folder = RunFolder(tmp_path)
    folder.write(replace(record, finished=False))
    folder.write(record)
    assert folder.read() == record
    assert json.loads((tmp_path / "kernel.json").read_text()) == record.kernel
    assert json.loads((tmp_path / "image.json").read_text()) == record.image
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "image.json",
        "junit.xml",
        "kernel.json",
        "results.json",
        "run.ktap",
    ]
    assert (tmp_path / "results.json").stat().st_mode & 0o777 == 0o644


def test_a_reader_sees_the_old_results_or_the_new(tmp_path: Path, record: RunRecord) -> None:
    folder = RunFolder(tmp_path)
    folder.write(record)
    with (tmp_path / "results.json").open() as reader:
        folder.write(replace(record, tests=()))
        assert len(json.load(reader)["tests"]) == len(record.tests)


def test_a_write_that_fails_leaves_the_old_results(
    tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.write(record)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(InfrastructureError, match="No space left on device"):
        folder.write(replace(record, tests=()))
    assert folder.read() == record
    assert not list(tmp_path.glob(".*"))


def test_a_folder_without_results_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"results\.json"):
        RunFolder(tmp_path).read()
