# SPDX-License-Identifier: GPL-2.0-only
"""Versions of the kernel, and which of them have a bug that was fixed in several branches."""

import re
from collections.abc import Sequence

from lab.kernel import Kernel

Version = tuple[int, int, int]

_VERSION = re.compile(r"(?:\d+:)?v?(\d+)\.(\d+)(?:\.(\d+))?")


def parse(text: str) -> Version | None:
    """6.12.8 of "6.12.8-1~bpo12+1", 6.13.0 of "6.13-rc2"; None where it begins with no version."""
    found = _VERSION.match(text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def of_kernel(kernel: Kernel) -> Version | None:
    """The version of a kernel's source. Debian's `uname -r` has a number of its own in the third
    place (6.1.0-18 is 6.1.76): there it is the package's."""
    packages = kernel.provenance.get("source", {}).get("packages", ())
    return parse(packages[0]["version"] if packages else kernel.release or "")


def has(version: Version, affected: Version | None, fixed: Sequence[Version]) -> bool:
    """Whether a version has a bug that came with `affected` (None: always there) and that the
    `fixed` ones are the first of their branch to be without.

    A branch that is not named has it unless it was begun after the newest that is.
    """
    if affected and version < affected:
        return False
    own = [each for each in fixed if each[:2] == version[:2]]
    if own:
        return version < min(own)
    return not fixed or version < max(fixed)
