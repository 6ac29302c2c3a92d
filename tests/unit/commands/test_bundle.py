# SPDX-License-Identifier: GPL-2.0-only
"""What a replay says: which verdicts differ. The runs themselves are pretended."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli import app
from lab.commands import bundle as command
from lab.commands.bundle import differences, find_run, make_bundle, replay_run, status_of
from lab.errors import ConfigurationError, LabError
from lab.results.folder import RunFolder, runs
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.replay import EXEC, PYTEST, Part, Replay
from lab.results.verdict import Verdict

KEPT, BROKEN, LOST, ERROR = (
    Verdict.KEPT, Verdict.BROKEN, Verdict.GUEST_LOST, Verdict.LAB_ERROR,
)  # fmt: skip
# Leaves the record that lies beside it, and keeps the words that it was called with.
PYTHON = """#!{python} -IS
import os, sys
from pathlib import Path
here = Path(__file__).parent
out = Path(sys.argv[sys.argv.index("--out") + 1])
(here / "words").write_text("\\n".join([os.getcwd(), os.environ["PYTHONPATH"], *sys.argv[1:]]))
if not (here / "record").exists():
    sys.exit("it went wrong")
(out / "results.json").write_text((here / "record").read_text())
(out / "replay.json").write_text((here / "replay").read_text())
sys.exit(1)
"""
LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels: {v6: {source: {tarball: linux.tar}, fragments: [base]}}
images: {minimal: {recipe: images/minimal}}
machines: {vtd: {}}
suites: {contract: {tests: tests}}
run: {kernel: v6, machine: vtd, suites: [contract]}
"""


def record(**verdicts: Verdict) -> RunRecord:
    tests = tuple(
        TestRecord(f"tests/test_x.py::test_{name}", "contract", verdict, 0.1, message="it says why")
        for name, verdict in verdicts.items()
    )
    return RunRecord("0.1.0", "2026-11-22T12:59:00Z", 1.0, accel="tcg", tests=tests)


def found(before: RunRecord, now: RunRecord, *, narrowed: bool = False) -> list[tuple[str, ...]]:
    return [
        (each.id.rpartition("_")[2], str(each.recorded), str(each.now and each.now.verdict))
        for each in differences(before, now, narrowed=narrowed)
    ]


def test_the_same_verdicts_do_not_differ() -> None:
    same = record(a=KEPT, b=BROKEN, c=LOST)
    assert found(same, same) == []
    assert status_of(same, []) == 0


def test_what_differs() -> None:
    before, now = record(a=KEPT, b=KEPT, c=BROKEN), record(a=KEPT, b=BROKEN, d=KEPT)
    assert found(before, now) == [
        ("b", "kept", "broken"),
        ("d", "None", "kept"),
        ("c", "broken", "None"),
    ]
    assert status_of(now, differences(before, now, narrowed=False)) == 1


def test_a_part_of_the_tests_is_compared_with_that_part() -> None:
    assert found(record(a=KEPT, b=BROKEN), record(b=BROKEN), narrowed=True) == []


def test_of_a_record_that_was_cut_short_the_rest_is_not_known() -> None:
    before = replace(record(a=KEPT), finished=False)
    assert found(before, record(a=KEPT, b=BROKEN)) == []


def test_of_a_repeated_test_the_worst_counts() -> None:
    twice = record(a=KEPT).tests + record(a=BROKEN).tests
    assert found(record(a=BROKEN), replace(record(), tests=twice)) == []


@pytest.mark.parametrize("verdict", [LOST, ERROR])
def test_the_lab_failed_where_it_had_not(verdict: Verdict) -> None:
    before, now = record(a=KEPT, b=KEPT), record(a=BROKEN, b=verdict)
    assert status_of(now, differences(before, now, narrowed=False)) == 2
    troubled = replace(record(a=KEPT), trouble=(Trouble("no guest boots"),))
    assert status_of(troubled, []) == 2
    assert status_of(replace(record(a=KEPT), finished=False), []) == 2


# The commands


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run in the user's state, with bits in a cache, and a pretended Python."""
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("VFIO_LAB_CACHE", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    qemu = type("Qemu", (), {"path": Path("/its/own/qemu")})
    monkeypatch.setattr(command, "find_qemu", lambda *_: qemu)
    (tmp_path / "lab" / "kernels" / "fragments").mkdir(parents=True)
    (tmp_path / "lab" / "kernels" / "fragments" / "base.config").touch()
    (tmp_path / "lab" / "lab.yaml").write_text(LAB)
    for name in ("bzImage", "initramfs", "agent"):
        head = bytearray(0x400)
        head[0x202:0x206] = b"HdrS"
        (tmp_path / name).write_bytes(head)
    folder = RunFolder.create()
    folder.write(record(a=KEPT, b=KEPT))
    folder.write_replay(
        Replay(
            version="0.0.9",
            commit=None,
            lab=tmp_path / "lab",
            package=tmp_path / "then",
            python=python,
            cache=tmp_path / "cache",
            kernel=Part("v6", tmp_path / "bzImage", "a", "build it"),
            image=Part("minimal", tmp_path / "initramfs", "b", "make it"),
            agent=Part("agent", tmp_path / "agent", "c", "make it"),
            qemu=Path("/then/qemu"),
            qemu_version="10.0.2",
            machine=None,
            qemu_arguments=(),
            boot_timeout=90.0,
            command=PYTEST,
            words=("tests",),
        )
    )
    return folder


def answer(tmp_path: Path, now: RunRecord) -> None:
    (tmp_path / "replay").write_text((runs() / "latest" / "replay.json").read_text())
    (tmp_path / "record").write_text(json.dumps(now.to_json()))


def words(tmp_path: Path) -> list[str]:
    return (tmp_path / "words").read_text().splitlines()


def test_a_folder_is_replayed_as_it_was(
    run: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer(tmp_path, record(a=KEPT, b=BROKEN))
    assert replay_run("latest", [], out=tmp_path / "out") == 1
    here, package, *argv = words(tmp_path)
    assert (here, package) == (str(tmp_path / "lab"), str(tmp_path / "then"))
    assert argv[argv.index("--kernel") + 1] == str(tmp_path / "bzImage")
    assert argv[argv.index("--qemu") + 1] == "/then/qemu"
    assert "--agent" not in argv
    said = capfd.readouterr()
    assert "differs tests/test_x.py::test_b\n  recorded kept, now broken: it says why" in said.out
    assert "1 of 2 tests as recorded, 1 differ" in said.out
    assert "vfio-lab 0.0.9's" in said.err
    assert run.read() == record(a=KEPT, b=KEPT)  # what is compared with stays as it is


def test_a_bundle_is_replayed_on_what_is_here(run: RunFolder, tmp_path: Path) -> None:
    make_bundle(str(run.path), tmp_path / "b.tar.gz", symbols=False)
    for name in ("bzImage", "initramfs", "agent", "lab"):
        (tmp_path / name).rename(tmp_path / f"no-{name}")
    answer(tmp_path, record(b=KEPT))
    assert replay_run(str(tmp_path / "b.tar.gz"), ["-k", "b"], out=tmp_path / "out") == 0
    here, package, *argv = words(tmp_path)
    place = Path(here).parent
    assert package == str(Path(command.__file__).parents[2])
    asked = dict(pairwise(argv))
    assert asked["--kernel"] == str(place / "kernel" / "bzImage")
    assert asked["--image"] == str(place / "image" / "initramfs")
    assert asked["--agent"] == str(place / "agent" / "agent")
    assert asked["--qemu"] == "/its/own/qemu"
    assert argv[-2:] == ["-k", "b"]
    assert not place.exists()  # what was unpacked is gone, and the new run says where it was from
    mend = RunFolder(tmp_path / "out").read_replay().kernel.mend
    assert mend == f"it was in a bundle: vfio-lab replay {tmp_path / 'b.tar.gz'}"


def test_what_follows_the_bundle_is_pytests(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def pretend(*words: object, out: Path | None) -> int:
        seen.extend([*words, out])
        return 2

    monkeypatch.setattr(command, "replay_run", pretend)
    argv = ["replay", "b.tar.gz", "-k", "a or b", "--out", "there", "--maxfail=1", "-x"]
    assert CliRunner().invoke(app, argv).exit_code == 2
    assert seen == ["b.tar.gz", ["-k", "a or b", "--maxfail=1", "-x"], Path("there")]


def test_a_replay_that_left_nothing(run: RunFolder, tmp_path: Path) -> None:
    del run
    with pytest.raises(LabError, match="it went wrong"):
        replay_run("latest", [], out=tmp_path / "out")


def test_what_cannot_be_replayed(run: RunFolder, tmp_path: Path) -> None:
    run.write_replay(replace(run.read_replay(), command=EXEC))
    with pytest.raises(ConfigurationError, match="run of a program"):
        replay_run(str(run.path), [], out=None)
    whole = replace(run.read_replay(), command=PYTEST)
    run.write_replay(replace(whole, kernel=replace(whole.kernel, sha256="0" * 64)))
    with pytest.raises(ConfigurationError, match="not the file that the run had"):
        replay_run(str(run.path), [], out=None)
    run.write_replay(whole)
    (tmp_path / "initramfs").unlink()
    with pytest.raises(ConfigurationError, match="not there any more"):
        replay_run(str(run.path), [], out=None)
    with pytest.raises(ConfigurationError, match="there is no run elsewhere"):
        replay_run("elsewhere", [], out=None)


def test_where_a_bundle_goes(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bundle(run.path.name, None, symbols=False)
    file = Path(capsys.readouterr().out.strip())
    assert file.name.startswith(run.path.name)
    assert (tmp_path / file).is_file()
    with pytest.raises(ConfigurationError, match="is there already"):
        make_bundle("latest", None, symbols=False)
    assert find_run("latest").path.samefile(run.path)
