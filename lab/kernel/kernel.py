# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that can boot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kernel:
    """The files of one kernel. What the lab did not build may lack all but the bzImage.

    `name` is the word that asked for it, `headers` the include folder of its user-space API,
    `release` what `uname -r` says, `build_id` the GNU build id of vmlinux, and `key` changes
    when the bits do. `provenance` says how it came to be; JSON can write it. `modules` is the
    cpio archive of its modules, where it has any that the lab needs, and `symbols` the folder of
    the same with what a debugger reads: one that was built before the lab kept them has none.
    """

    name: str
    bzimage: Path
    config: Path | None
    vmlinux: Path | None
    headers: Path | None
    release: str | None
    build_id: str | None
    key: str
    provenance: Mapping[str, Any]
    modules: Path | None = None
    symbols: Path | None = None

    @property
    def fragments(self) -> tuple[str, ...]:
        """The names of those it was configured with; none where the lab did not."""
        return tuple(self.provenance.get("fragments", ()))
