# SPDX-License-Identifier: GPL-2.0-only
"""Whether two labs are the same: what one says of a kernel, the other one says, too."""

import hashlib
from pathlib import Path

import lab as package
from lab import deviations
from lab.config import Lab


def digest_of(lab: Lab, *more: Path) -> str:
    """SHA-256 of everything of the lab's own, and of its tests, that decides a test's verdict, and
    of all files in the folders `more`."""
    digest = hashlib.sha256()
    for file in (lab.root / "lab.yaml", lab.root / deviations.FILE):
        digest.update(file.read_bytes() if file.exists() else b"")
    suites = [lab.path(suite.tests) for suite in lab.suites.values()]
    folders = [Path(package.__file__).parent, lab.root / "tests", *suites, *more]
    for folder in dict.fromkeys(folders):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
