# SPDX-License-Identifier: GPL-2.0-only
"""Files that somebody may read while they are written."""

import os
import tempfile
from pathlib import Path


def replace(file: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file as a whole: a reader sees the old one or the new one, and of several writers
    the last has its way. Raises OSError; then the old one stays."""
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with open(handle, "w", encoding="utf-8") as opened:  # noqa: PTH123 (it is a descriptor)
            os.fchmod(handle, mode)  # mkstemp's files are private; these are not
            opened.write(text)
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
