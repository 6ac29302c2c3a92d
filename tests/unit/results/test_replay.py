# SPDX-License-Identifier: GPL-2.0-only
"""replay.sh, run by a shell; Python is a program that prints what it is called with."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lab.errors import ConfigurationError
from lab.results.folder import RunFolder
from lab.results.replay import EXEC, PYTEST, Part, Replay, rebuilt

PYTHON = """#!/bin/sh
pwd
echo "$VFIO_LAB_CACHE|$PYTHONPATH|$PYTEST_ADDOPTS"
printf '%s\\n' "$@"
exit 7
"""


@dataclass(frozen=True)
class Said:
    """What a script did: the words that its Python got, and where."""

    status: int
    stderr: str
    cwd: str = ""
    environment: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """A run's folder, and all that it stood on, in places whose names need quotes."""

    folder: RunFolder
    replay: Replay

    def play(self, *words: str, cwd: str | Path = "/", **environment: str) -> Said:
        self.folder.write_replay(self.replay)
        script = os.path.relpath(self.folder.path / "replay.sh", cwd)
        known = {name: value for name, value in os.environ.items() if "VFIO" not in name}
        done = subprocess.run(
            [script, *words],
            capture_output=True,
            text=True,
            cwd=cwd,
            check=False,
            env={**known, "PYTEST_ADDOPTS": "--of-another", **environment},
        )
        cwd, settings, *rest = done.stdout.splitlines() or ["", ""]
        return Said(done.returncode, done.stderr, cwd, settings, tuple(rest))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    place = tmp_path / "it's a $place"
    files = ("cache/kernel/abc/bzImage", "cache/image/def/initramfs", "bin/python", "bin/qemu")
    for name in (*files, "lab/lab.yaml", "run/results.json"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(PYTHON)
        (place / name).chmod(0o755)
    return Scene(
        RunFolder(place / "run"),
        Replay(
            version="0.1.0",
            commit=None,
            lab=place / "lab",
            package=place / "package",
            python=place / "bin" / "python",
            cache=place / "cache",
            kernel=Part("v6", place / files[0], "abc", "build it"),
            image=Part("minimal", place / files[1], "def", "make it"),
            agent=Part("agent", place / "cache/agent/0/agent", "0", "make it"),
            qemu=place / "bin" / "qemu",
            qemu_version="10.0.2",
            machine=None,
            qemu_arguments=("-d", "guest errors"),
            boot_timeout=90.0,
            command=PYTEST,
            words=("tests/contract", "-k", "this and $not that"),
        ),
    )


def test_it_calls_pytest_with_the_same_bits(scene: Scene) -> None:
    said = scene.play()
    replay = scene.replay
    assert (said.status, said.stderr) == (7, "")
    assert said.cwd == str(replay.lab)
    assert said.environment == f"{replay.cache}|{replay.package}|"
    assert said.words == tuple(replay.argv()[1:])
    assert said.words[-3:] == replay.words
    asked = dict(zip(said.words, said.words[1:], strict=False))
    assert asked["--kernel"] == str(replay.kernel.path)
    assert asked["--image"] == str(replay.image.path)
    assert {"--qemu-arg=-d", "--qemu-arg=guest errors"} <= set(said.words)
    assert "--machine" not in said.words  # a suite has its own


def test_it_has_the_same_seed(scene: Scene) -> None:
    assert "--seed" not in scene.play().words  # an older run has none
    said = replace(scene, replay=replace(scene.replay, seed=0)).play()
    assert said.words[said.words.index("--seed") + 1] == "0"
    program = replace(scene.replay, seed=3, command=EXEC)
    assert "--seed" not in program.argv()


def test_more_words_come_last(scene: Scene) -> None:
    assert scene.play("-k", "test_x or y").words[-2:] == ("-k", "test_x or y")


def test_what_failed_is_known_from_the_folder_it_lies_in(scene: Scene) -> None:
    scene.play()
    moved = scene.folder.path.rename(scene.folder.path.with_name("moved"))
    said = replace(scene, folder=RunFolder(moved)).play("--failed", "-x")
    assert said.words[-3:] == ("--failed", str(moved), "-x")


def test_the_cache_may_move(scene: Scene, tmp_path: Path) -> None:
    cache = Path(shutil.move(scene.replay.cache, tmp_path / "elsewhere"))
    said = scene.play(VFIO_LAB_CACHE=str(cache))
    assert f"{cache}/kernel/abc/bzImage" in said.words
    assert said.environment.startswith(f"{cache}|")


def test_all_that_is_relative_is_so_to_where_it_is_called(scene: Scene) -> None:
    """The cache, and the script itself, which with CDPATH set is no place to `cd` to unasked."""
    here = scene.folder.path.parent
    said = scene.play("--failed", cwd=here, VFIO_LAB_CACHE="cache", CDPATH=str(here))
    assert said.words[-2:] == ("--failed", str(scene.folder.path))
    assert f"{here}/cache/kernel/abc/bzImage" in said.words
    assert said.environment.startswith(f"{here}/cache|")


@pytest.mark.parametrize(("part", "mend"), [("kernel", "build it"), ("image", "make it")])
def test_what_the_cache_has_no_more(scene: Scene, part: str, mend: str) -> None:
    path: Path = getattr(scene.replay, part).path
    path.unlink()
    said = scene.play()
    assert said.status == 2
    assert said.stderr == f"replay.sh: {path} is not there any more\nreplay.sh:   {mend}\n"


def test_a_bzimage_elsewhere_must_be_the_same(scene: Scene, tmp_path: Path) -> None:
    own = tmp_path / "bzImage"
    own.write_text("bits")
    digest = hashlib.sha256(b"bits").hexdigest()
    kernel = Part("own", own, digest[:24], "build it", digest)
    scene = replace(scene, replay=replace(scene.replay, kernel=kernel))
    assert str(own) in scene.play().words
    own.write_text("other bits")
    said = scene.play()
    assert said.status == 2
    assert f"{own} is not the file it was" in said.stderr


def test_a_lab_that_has_moved_on_is_told(scene: Scene) -> None:
    scene = replace(scene, replay=replace(scene.replay, commit="0123456789"))
    git = ["git", "-C", str(scene.replay.lab), "-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    said = scene.play()
    assert said.status == 7
    assert said.stderr == f"replay.sh: the lab was at 0123456789, and is at {head}\n"
    same = replace(scene, replay=replace(scene.replay, commit=head)).play()
    assert same.stderr == ""
    (scene.replay.lab / "lab.yaml").write_text("then")
    subprocess.run([*git, "add", "lab.yaml"], check=True)
    dirty = replace(scene, replay=replace(scene.replay, commit=f"{head}-dirty"))
    (scene.replay.lab / "lab.yaml").write_text("now")
    assert "changes that are in no commit" in dirty.play().stderr


def test_a_program_gets_the_words_itself(scene: Scene) -> None:
    words = ("--timeout", "300", "--", "/tmp/repro.c")
    scene = replace(scene, replay=replace(scene.replay, command=EXEC, words=words))
    said = scene.play("--failed", "-v")
    assert said.words[:5] == ("-P", "-m", "lab", "exec", "--lab")
    assert said.words[-6:] == (*words, "--failed", "-v")


def test_what_is_written_is_read(scene: Scene, tmp_path: Path) -> None:
    scene.folder.write_replay(scene.replay)
    assert scene.folder.read_replay() == scene.replay
    with pytest.raises(ConfigurationError, match=r"replay\.json: No such file or directory\n"):
        RunFolder(tmp_path / "none").read_replay()


def test_on_another_machine_it_names_what_is_there(scene: Scene, tmp_path: Path) -> None:
    elsewhere = replace(scene.replay.kernel, path=Path("/mine/bzImage"))
    moved = replace(scene.replay, kernel=elsewhere).moved(
        lab=tmp_path, package=tmp_path, python=Path("/python"), cache=Path("/cache")
    )
    assert moved.kernel == elsewhere
    assert moved.image.path == Path("/cache/image/def/initramfs")
    assert moved.agent.path == Path("/cache/agent/0/agent")
    assert (moved.lab, moved.python, moved.cache) == (tmp_path, Path("/python"), Path("/cache"))


def test_how_a_kernel_is_made_again(tmp_path: Path) -> None:
    assert "--kernel v6.12+kasan;" in rebuilt({"name": "v6.12+kasan"}, "abc")
    patched = {
        "name": "topic",
        "base": {"name": "v6.12", "key": "def"},
        "series": {"file": "/tmp/a topic.mbox", "patches": ["one", "two"]},
    }
    words = "--kernel v6.12 --series '/tmp/a topic.mbox' --patches 2;"
    assert words in rebuilt(patched, "abc")
    assert words in rebuilt(patched, "abc", Path("-"))  # standard input is gone
    now = tmp_path / "topic.mbox"
    now.touch()
    assert f"--series {now} --patches 2;" in rebuilt(patched, "abc", now)
    assert "nothing but that file" in rebuilt({"bzimage": "/tmp/bzImage"}, "abc")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\x85", "\u2028"])
def test_what_others_have_written_is_no_command(
    scene: Scene, tmp_path: Path, line_end: str
) -> None:
    """A release, a compiler's version, a hash: of a bundle all of it is somebody else's."""
    mark = tmp_path / "ran"
    evil = f"6.12{line_end}touch {mark}; $(touch {mark})"
    kernel = replace(scene.replay.kernel, title=evil, mend=evil, sha256=f"$(touch {mark})")
    replay = replace(scene.replay, kernel=kernel, qemu_version=evil, version=evil, commit=evil)
    Scene(scene.folder, replay).play()
    assert not mark.exists()
