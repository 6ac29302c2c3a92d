# SPDX-License-Identifier: GPL-2.0-only
"""A source as git's: one commit that is the base, and what series make of it.

The files that are compiled are touched only where two commits differ, so that `make` compiles no
more than that. Series are therefore applied elsewhere, on a desk: git needs to see there only the
files that a patch changes.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.cache import Cache
from lab.kernel.series import Series
from lab.kernel.source import Identity
from lab.proc import CommandError, run

_RECIPE = 1  # of the import: a new number makes every one anew
_BASE = "refs/heads/base"
_APPLYING = re.compile(r"^Applying: ", re.MULTILINE)  # a patch each, as `git am` says it
_DONE_ALREADY = "No changes -- Patch already applied."
_ENVIRONMENT = {
    # What the user has set (hooks, signatures, line ends) is for the user's own trees.
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "vfio-lab" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "lab@vfio-lab.invalid" for who in ("AUTHOR", "COMMITTER")},
    # The same source is the same commit, whenever it is imported.
    **{f"GIT_{who}_DATE": "1970-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")},
}
_SETTINGS = {
    "gc.auto": "0",  # `git am` starts it in the background
    "core.autocrlf": "false",
    # The tree's files are hard links: their ctime changes whenever another is made.
    "core.trustctime": "false",
    "core.checkStat": "minimal",
}
# All blobs go into one pack as they come, with little compression: 86,000 files in 20 s.
_IMPORT = {"core.bigFileThreshold": "1", "core.compression": "1"}


@dataclass(frozen=True)
class Commit:
    """What a patch makes of the tree."""

    identity: str
    subject: str


@dataclass(frozen=True)
class Repository:
    """git's folder and the tree that is compiled. One process at a time works with it."""

    folder: Path
    tree: Path

    @classmethod
    def create(cls, folder: Path, tree: Path, identity: Identity, cache: Cache) -> "Repository":
        """Make `folder` for `tree`, which holds the files of `identity` as they are."""
        imported = _imported(identity, cache)
        repository = cls(folder, tree)
        run(["git", "init", "--quiet", "--bare", "--template=", folder], env=_ENVIRONMENT)
        (folder / "objects" / "info" / "alternates").write_text(f"{imported / 'objects'}\n")
        shutil.copyfile(imported / "index", folder / "index")
        for name, value in _SETTINGS.items():
            repository._git("config", name, value)
        head = run(["git", "--git-dir", imported, "rev-parse", _BASE], env=_ENVIRONMENT)[0]
        repository._git("update-ref", _BASE, head)
        return repository

    def open(self, identity: Identity, cache: Cache) -> None:
        """Make sure that the base's files, which are shared, are still there; drop what a killed
        process left."""
        _imported(identity, cache)
        shutil.rmtree(self.folder / "rebase-apply", ignore_errors=True)
        for lock in self.folder.rglob("*.lock"):
            lock.unlink()

    def apply(self, series: Series) -> list[Commit]:
        """The commit after each patch of a series on the base; the compiled tree is not touched.

        It is the one before where all that a patch does is done already. Raises ConfigurationError
        that names patch, file and hunk.
        """
        desk = self.folder / "desk"
        shutil.rmtree(desk, ignore_errors=True)
        desk.mkdir()
        self._git("update-ref", "--no-deref", "HEAD", _BASE)
        self._git("read-tree", _BASE, desk=desk)
        try:
            mails = self.folder / "series.mbox"
            mails.write_bytes(series.content)
            said = self._git("am", "--3way", str(mails), desk=desk)
        except CommandError as error:
            raise series.does_not_apply(
                error, *self._refused(desk), self._conflict(desk)
            ) from error
        made = iter(self._git("rev-list", "--reverse", f"{_BASE}..HEAD"))
        identity = self._git("rev-parse", _BASE)[0]
        commits = []
        for told in _APPLYING.split("\n".join(said))[1:]:
            if _DONE_ALREADY not in told:
                identity = next(made)
            commits.append(Commit(identity, told.partition("\n")[0]))
        return commits

    def check_out(self, commit: str | None = None) -> None:
        """Put the tree that is compiled into the state of a commit; None: of the base."""
        self._git("read-tree", "--reset", "-u", commit or _BASE)
        self._git("clean", "-fdxq", "--exclude", "/objects")

    def changed(self, commit: str, *paths: str) -> list[str]:
        """The files in which a commit differs from the base, among `paths`."""
        return self._git("diff", "--name-only", _BASE, commit, "--", *paths)

    def _refused(self, desk: Path) -> tuple[Sequence[str], str]:
        """What git says of the patch at which `am` stopped, and that patch."""
        patch = self.folder / "rebase-apply" / "patch"
        if not patch.exists():
            return [], ""
        try:
            said = self._git("apply", "--cached", "--check", str(patch), desk=desk)
        except CommandError as error:
            said = list(error.lines)
        return said, patch.read_text(errors="replace")

    def _conflict(self, desk: Path) -> Sequence[str]:
        """Both sides of what a three-way merge could not put together, if it came so far."""
        return self._git("diff", "--diff-filter=U", desk=desk)

    def _git(self, *words: str, desk: Path | None = None) -> list[str]:
        tree = desk or self.tree
        index = self.folder / ("desk-index" if desk else "index")
        argv = ["git", "--git-dir", str(self.folder), "--work-tree", str(tree), *words]
        return run(argv, cwd=tree, env=_ENVIRONMENT | {"GIT_INDEX_FILE": str(index)})


def _imported(identity: Identity, cache: Cache) -> Path:
    """A git folder with the source's files as its one commit, and their index."""

    def maker(folder: Path) -> Mapping[str, Any]:
        tree = identity.tree()
        run(["git", "init", "--quiet", "--bare", "--template=", folder / "git"], env=_ENVIRONMENT)
        settings = [f"{name}={value}" for name, value in (_SETTINGS | _IMPORT).items()]
        git = ["git", *(word for setting in settings for word in ("-c", setting))]
        git += ["--git-dir", str(folder / "git"), "--work-tree", str(tree)]
        with identity.progress.step(f"import {identity.title} into git"):
            run([*git, "add", "--all", "--force", "."], cwd=tree, env=_ENVIRONMENT)
            written = run([*git, "write-tree"], env=_ENVIRONMENT)[0]
            head = run([*git, "commit-tree", written, "-m", identity.title], env=_ENVIRONMENT)[0]
            run([*git, "update-ref", _BASE, head], env=_ENVIRONMENT)
        return {"source": dict(identity.provenance)}

    entry = cache.make("git", {"recipe": _RECIPE, **identity.inputs}, maker)
    return entry.path / "git"
