# SPDX-License-Identifier: GPL-2.0-only
"""A range of a git tree, by git's own rules and in its own words: `git bisect` chooses and ends.

It does so in a bare repository of ours, which has the tree's objects by reference. The tree, its
checkout and its refs are only read; `git bisect log` there can be replayed anywhere. A commit is
built as one patch on the good end, so that only what lies between them is compiled.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.bisect.judge import Candidate
from lab.bisect.memory import Verdict
from lab.cell import Choice
from lab.errors import ConfigurationError
from lab.kernel.series import Letter, Series
from lab.kernel.source import commit_of
from lab.proc import CommandError, run

_ENVIRONMENT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
_DIFF = (
    *("diff", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv"),
    *("--no-color", "--src-prefix=a/", "--dst-prefix=b/"),
)
_FIRST = re.compile(r"^# first bad commit: \[(\w+)\]", re.MULTILINE)
_POSSIBLE = re.compile(r"^# possible first bad commit: \[(\w+)\]", re.MULTILINE)
_SKIPPED = 2  # git bisect's status when only skipped commits are left


@dataclass(frozen=True)
class Commits:
    """From `good` to `bad`, both commits' full names; `folder` is the repository of ours."""

    folder: Path
    tree: Path
    good: str
    bad: str

    @classmethod
    def between(cls, tree: Path, good: str, bad: str, folder: Path) -> "Commits":
        """Begin, or go on where `folder` has come to. Raises ConfigurationError."""
        found = cls(folder, tree, commit_of(tree, good), commit_of(tree, bad))
        try:
            if not (folder / "BISECT_LOG").exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a beginning that was cut short
                run(
                    ["git", "clone", "--quiet", "--bare", "--shared", tree.absolute(), folder],
                    env=_ENVIRONMENT,
                )
                found._git("bisect", "start", "--no-checkout", found.bad, found.good)
        except CommandError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise ConfigurationError(
                f"git cannot bisect {tree} between {good} and {bad}: {error.lines[-1]}"
            ) from error
        return found

    @property
    def current(self) -> str | None:
        """The commit that is to be judged next; None at the end."""
        if self.possible:
            return None
        return self._git("rev-parse", "BISECT_HEAD")[0]

    def mark(self, commit: str, verdict: Verdict) -> None:
        """It has been judged."""
        try:
            self._git("bisect", verdict.value, commit)
        except CommandError as error:
            if error.status != _SKIPPED:
                raise

    @property
    def possible(self) -> list[str]:
        """The commits that the first bad one is among, once git knows no better; just one, unless
        there were some that could not be judged. Empty until then."""
        log = self.log
        return _FIRST.findall(log) or list(dict.fromkeys(_POSSIBLE.findall(log)))

    @property
    def log(self) -> str:
        """What `git bisect replay` takes."""
        return "\n".join([*self._git("bisect", "log"), ""])

    def left(self) -> int:
        """How many may still be the first bad one, but the one that is known as bad."""
        names = ["refs/bisect/bad", "--not", "--glob=refs/bisect/good-*"]
        return int(self._git("rev-list", "--count", *names)[0]) - 1

    def title(self, commit: str) -> str:
        """Its short name and its subject."""
        return self._git("show", "-s", "--format=%h %s", commit)[0]

    def candidate(self, commit: str, choice: Choice, fragments: str) -> Candidate:
        """Its kernel: the good end with one patch on it, and `fragments` as "+kasan"."""
        title = f"commit {self.title(commit)}"
        base = f"{self.tree.absolute()}@{self.good}{fragments}"
        series = self._series(commit)
        return Candidate(commit, title, replace(choice, kernel=base, series=series))

    def _series(self, commit: str) -> Series | None:
        argv = ["git", "--git-dir", str(self.folder), *_DIFF, self.good, commit]
        diff = subprocess.run(argv, capture_output=True, check=True).stdout
        if not diff:
            return None
        subject = self.title(commit)
        head = (
            f"From {commit} Mon Sep 17 00:00:00 2001\n"
            "From: vfio-lab <lab@vfio-lab.invalid>\n"
            "Date: Thu, 1 Jan 1970 00:00:00 +0000\n"
            f"Subject: [PATCH] {subject}\n\n---\n"
        )
        letter = Letter(subject, "vfio-lab <lab@vfio-lab.invalid>", "")
        mail = head.encode(errors="replace") + diff + b"-- \n\n"
        return Series(subject, str(self.tree), (mail,), letter, (letter,))

    def _git(self, *words: str) -> Sequence[str]:
        return run(["git", "--git-dir", self.folder, *words], env=_ENVIRONMENT)
