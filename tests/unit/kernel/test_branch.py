# SPDX-License-Identifier: GPL-2.0-only
"""A branch as a series, and the user's tree as it was."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import ConfigurationError
from lab.kernel.branch import Branch
from lab.kernel.mail import series_in

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """A tree of a kernel's user, who is used to another git than ours; runs git in it."""
    tree = tmp_path / "c++" / "linux"
    tree.mkdir(parents=True)
    who = ("-c", "user.name=A", "-c", "user.email=a@kernel.test")

    def run(*words: str) -> str:
        argv = ["git", "-C", str(tree), *who, *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    run("init", "-q", "-b", "main")
    for name, value in (
        ("diff.noprefix", "true"),
        ("format.attach", "boundary"),
        ("format.coverLetter", "true"),
        ("format.useAutoBase", "true"),
        ("format.subjectPrefix", "RFC"),
        ("format.outputDirectory", "/nowhere"),
        ("color.ui", "always"),
    ):
        run("config", name, value)
    commit(tree, run, "one", "two")
    run("checkout", "-q", "-b", "topic")
    return run


def commit(tree: Path, git: Git, *names: str) -> None:
    for name in names:
        (tree / f"{name}.c").write_text(f"{name}\n")
        git("add", ".")
        git("commit", "-q", "-m", f"vfio: add {name}\n\nSay why.")


@pytest.fixture
def tree(git: Git) -> Path:
    return Path(git("rev-parse", "--show-toplevel"))


def test_a_branch_is_its_commits_in_order(git: Git, tree: Path) -> None:
    commit(tree, git, *(f"new{number}" for number in range(12)))
    (tree / "one.c").write_text("not committed\n")
    before = git("status", "--porcelain"), git("for-each-ref"), git("stash", "list")
    branch = Branch(tree, "main", "topic")
    series = series_in(branch.letters(), branch.name)
    assert (git("status", "--porcelain"), git("for-each-ref"), git("stash", "list")) == before
    assert series.name == "topic"
    assert series.files == tuple(sorted(f"new{number}.c" for number in range(12)))
    for number, patch in enumerate(series.patches):
        assert f"vfio: add new{number}\n" in patch.decode()


def test_it_stands_where_it_was_branched_off(git: Git, tree: Path) -> None:
    fork = git("rev-parse", "main")
    commit(tree, git, "new")
    git("checkout", "-q", "main")
    commit(tree, git, "newer")
    branch = Branch(tree, "main", "topic")
    assert len(branch.letters()) == 1
    assert branch.spec(None) == f"{tree}@{fork[:16]}"
    assert branch.spec("+kasan+lockdep") == f"{tree}@{fork[:16]}+kasan+lockdep"
    with pytest.raises(ConfigurationError, match=r"--kernel v6.12: the kernel is the tree's"):
        branch.spec("v6.12+kasan")


def test_a_merge_is_refused(git: Git, tree: Path) -> None:
    commit(tree, git, "new")
    git("checkout", "-q", "-b", "side", "main")
    commit(tree, git, "side")
    git("checkout", "-q", "topic")
    git("merge", "-q", "-m", "together", "side")
    with pytest.raises(ConfigurationError, match="topic holds the merge") as caught:
        Branch(tree, "main", "topic").letters()
    assert "git rebase main topic" in str(caught.value)


def test_a_branch_without_a_commit(git: Git, tree: Path) -> None:
    assert git("rev-parse", "topic") == git("rev-parse", "main")
    with pytest.raises(ConfigurationError, match="topic has no commit that main has not"):
        Branch(tree, "main", "topic").letters()


@pytest.mark.parametrize(("base", "head"), [("main", "gone"), ("gone", "topic")])
def test_a_name_that_git_does_not_know(tree: Path, base: str, head: str) -> None:
    with pytest.raises(ConfigurationError, match="has no commit named gone"):
        Branch(tree, base, head).letters()


def test_trees_without_a_common_commit(git: Git, tree: Path) -> None:
    git("checkout", "-q", "--orphan", "other")
    git("commit", "-q", "-m", "other")
    with pytest.raises(ConfigurationError, match="main and other have no commit in common"):
        Branch(tree, "main", "other").letters()
