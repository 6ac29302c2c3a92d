# SPDX-License-Identifier: GPL-2.0-only
"""What a user should know of a series before it is tried."""

from collections.abc import Iterator

from lab.kernel.series import Series
from lab.kernel.source import GitIdentity, Identity

_PROGRAMS = ("tools/testing/selftests/vfio/", "tools/testing/selftests/iommu/")


def of_series(series: Series) -> Iterator[str]:
    """What it is, what it says that it needs, and what it brings."""
    count = len(series.patches)
    subject = series.letter.subject if series.letter else series.name
    yield f"{count} patch{'es' if count > 1 else ''}: {subject}"
    if series.prerequisites:
        listed = ", ".join(series.prerequisites)
        yield (
            f"it says that it needs what the lab has not been given: {listed}; if it does not "
            "apply, put those patches before it, or try it as a branch (--tree)"
        )
    if any(name.startswith(_PROGRAMS) for name in series.files):
        yield "it brings programs of the kernel's own: --suite selftests runs them"


def of_base(series: Series, identity: Identity) -> Iterator[str]:
    """Where it was made for another base than it is tried on."""
    wanted = series.base_commit
    git = identity if isinstance(identity, GitIdentity) else None
    if not wanted or (git and git.commit.startswith(wanted)):
        return
    if git and git.holds(wanted):
        hint = f"the tree has that one, too: --kernel {git.git}@{wanted[:12]}"
    else:
        hint = "the lab has no such commit; --kernel TREE@COMMIT names one of a git tree"
    yield f"it is made for commit {wanted[:12]}, and is tried on {identity.title}: {hint}"
