# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own scripts for gdb (scripts/gdb: lx-ps, lx-dmesg, $lx_current() ...).

They are Python, and a part of it is made of the configured tree: its constants. That is done when
somebody wants them, beside the kernel and not with it, so that no kernel has to be built anew. A
series' are never used, but its base's: gdb runs them with the user's rights.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.cache import Cache, hash_of_file
from lab.config import Lab
from lab.kernel import Kernel, sandbox
from lab.kernel.prepare import source_of
from lab.kernel.source import Identity
from lab.proc import run
from lab.progress import Progress

LOADER = "vmlinux-gdb.py"
_KIND = "gdb-scripts"
_RECIPE = 1  # a new number makes them anew
_PLACE = Path("scripts/gdb")  # in the tree
_PACKAGE = _PLACE / "linux"  # Python's name for it
_CONSTANTS = "constants.py"


def scripts_of(kernel: Kernel, lab: Lab, cache: Cache, progress: Progress) -> Path | None:
    """What gdb is to load; None where the kernel's source is not known. Raises CommandError."""
    identity = source_of(str(kernel.bzimage), lab, cache, progress)
    if not identity or not kernel.config:
        return None
    inputs = {
        "recipe": _RECIPE,
        "source": dict(identity.inputs),
        "config": hash_of_file(kernel.config),
    }
    config = kernel.config

    def maker(folder: Path) -> Mapping[str, Any]:
        with progress.step(f"make gdb's scripts of {identity.title}"):
            _make(identity, config, folder)
        return {"name": identity.title}

    return cache.make(_KIND, inputs, maker).path / LOADER


def _make(identity: Identity, config: Path, folder: Path) -> None:
    # as in Build.into: the tree's files are the cache's own, and stay as they are
    work = folder / "linux"
    run(["cp", "-al", identity.tree(), work])
    objects = work / "objects"
    objects.mkdir()
    shutil.copyfile(config, objects / ".config")
    jobs = f"-j{len(os.sched_getaffinity(0))}"
    make = ["make", "-C", str(work), f"O={objects}", "ARCH=x86_64", jobs]
    walls = sandbox.find()
    for target in ("olddefconfig", "scripts_gdb"):
        run(walls.around([*make, target], reads=[work], writes=[objects]))
    package = folder / _PACKAGE
    package.mkdir(parents=True)
    for file in (work / _PACKAGE).glob("*.py"):
        shutil.copyfile(file, package / file.name)
    shutil.copyfile(sandbox.taken(objects, _PACKAGE / _CONSTANTS), package / _CONSTANTS)
    shutil.copyfile(work / _PLACE / LOADER, folder / LOADER)
    shutil.rmtree(work)
