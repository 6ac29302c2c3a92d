# SPDX-License-Identifier: GPL-2.0-only
"""A branch of the user's own tree, as the mail that it would be. The tree is only read."""

from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.errors import ConfigurationError
from lab.kernel.letters import read_letters
from lab.kernel.source import commit_of
from lab.proc import CommandError, run

# Whatever the user's git is told to write, this is what `git am` reads.
_FORMAT = (
    *(
        "-c",
        "format.coverLetter=false",
        "-c",
        "format.useAutoBase=false",
        "-c",
        "format.mboxrd=false",
    ),
    *("format-patch", "--quiet", "--numbered", "--subject-prefix=PATCH", "--suffix=.patch"),
    *(
        "--no-attach",
        "--no-thread",
        "--no-signature",
        "--no-notes",
        "--no-ext-diff",
        "--no-textconv",
    ),
    *(
        "--no-color",
        "--full-index",
        "--binary",
        "--no-renames",
        "--src-prefix=a/",
        "--dst-prefix=b/",
    ),
)


@dataclass(frozen=True)
class Branch:
    """The commits of `head` that `base` has not; both are whatever `tree`'s git can name."""

    tree: Path
    base: str
    head: str

    @property
    def name(self) -> str:
        """What to call it in a path."""
        return self.head.rpartition("/")[2]

    def spec(self, kernel: str | None) -> str:
        """The kernel that it stands on: the commit that it was branched off, with the `+FRAGMENT`s
        of `kernel`. Raises ConfigurationError, also for a kernel that is more than those."""
        named, plus, fragments = (kernel or "").partition("+")
        if named:
            raise ConfigurationError(
                f"--kernel {named}: the kernel is the tree's",
                hint="--kernel +FRAGMENT puts a fragment on it",
            )
        return f"{self.tree.absolute()}@{self._fork[:16]}{plus}{fragments}"

    def letters(self) -> list[EmailMessage]:
        """Its commits, the oldest first. Raises ConfigurationError where there are none, or git
        has merged something into it."""
        git, between = ("git", "-C", self.tree), f"{self._fork}..{commit_of(self.tree, self.head)}"
        if merges := run([*git, "rev-list", "--merges", "--max-count=1", between]):
            raise ConfigurationError(
                f"{self.head} holds the merge {merges[0][:12]}, and a series has none",
                hint=f"git rebase {self.base} {self.head}, in a branch of its own",
            )
        with TemporaryDirectory(prefix="vfio-lab-") as folder:
            run([*git, *_FORMAT, "-o", folder, between])
            found = read_letters(folder)
        if not found:
            raise ConfigurationError(f"{self.head} has no commit that {self.base} has not")
        return found

    @property
    def _fork(self) -> str:
        base, head = commit_of(self.tree, self.base), commit_of(self.tree, self.head)
        try:
            return run(["git", "-C", self.tree, "merge-base", base, head])[0]
        except CommandError as error:
            raise ConfigurationError(
                f"{self.base} and {self.head} have no commit in common"
            ) from error
