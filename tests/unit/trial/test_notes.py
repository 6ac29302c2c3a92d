# SPDX-License-Identifier: GPL-2.0-only
"""What is told before a series is tried."""

import subprocess
from pathlib import Path

import pytest

from lab.cache import Cache
from lab.kernel.series import Letter, Series
from lab.kernel.source import GitIdentity, TarballIdentity
from lab.progress import Progress
from lab.trial import notes


def series(*files: str, **fields: object) -> Series:
    patch = "".join(f"diff --git a/{file} b/{file}\n" for file in files).encode()
    letter = Letter("[PATCH 0/1] vfio: tidy", "A <a@kernel.test>", "id")
    return Series("topic", "topic.mbox", (patch,), letter, **fields)  # type: ignore[arg-type]


def test_what_it_is_needs_and_brings() -> None:
    assert [*notes.of_series(series("drivers/vfio/group.c"))] == ["1 patch: [PATCH 0/1] vfio: tidy"]
    needs = [*notes.of_series(series("a.c", prerequisites=("abc", "def")))]
    assert "what the lab has not been given: abc, def" in needs[1]
    brings = [*notes.of_series(series("tools/testing/selftests/vfio/new_test.c"))]
    assert "--suite selftests" in brings[1]


@pytest.fixture
def git(tmp_path: Path) -> GitIdentity:
    tree = tmp_path / "linux"
    words = ("-c", "user.name=A", "-c", "user.email=a@kernel.test", "commit", "-q", "-m", "x")
    subprocess.run(["git", "init", "-q", tree], check=True)
    subprocess.run(["git", "-C", tree, *words, "--allow-empty"], check=True)
    done = subprocess.run(
        ["git", "-C", tree, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return GitIdentity(Cache(tmp_path), Progress(quiet=True), tree, "HEAD", done.stdout.strip())


def test_its_own_base_needs_no_word(git: GitIdentity) -> None:
    assert not [*notes.of_base(series("a.c"), git)]
    assert not [*notes.of_base(series("a.c", base_commit=git.commit), git)]
    assert not [*notes.of_base(series("a.c", base_commit=git.commit[:12]), git)]


def test_another_base_is_told_with_what_to_do(git: GitIdentity, tmp_path: Path) -> None:
    made_for = series("a.c", base_commit=git.commit)
    older = GitIdentity(git.cache, git.progress, git.git, "topic", "f" * 40)
    (told,) = notes.of_base(made_for, older)
    assert f"--kernel {git.git}@{git.commit[:12]}" in told
    ball = TarballIdentity(git.cache, git.progress, tmp_path / "linux.tar", "0" * 64)
    (told,) = notes.of_base(made_for, ball)
    assert f"made for commit {git.commit[:12]}, and is tried on linux.tar" in told
    assert "the lab has no such commit" in told
