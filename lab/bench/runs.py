# SPDX-License-Identifier: GPL-2.0-only
"""Whole runs, as a user starts them, to be measured."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.cache import Cache
from lab.cell import Choice, prepare_kernel
from lab.config import Lab
from lab.errors import InfrastructureError
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.record import RunRecord


def of(
    lab: Lab,
    choice: Choice,
    words: Sequence[str],
    *,
    plugin: str | None = None,
    lost_every: int | None = None,
) -> RunRecord:
    """The record of a `vfio-lab run`, with a plugin for pytest. Its kernel is built before, where
    that can be seen.

    Raises InfrastructureError where anything fails but each so many-th test, which loses its guest.
    """
    prepare_kernel(lab, choice, Cache.of_user(), Progress())
    argv = [sys.executable, "-P", "-m", "lab", "run", "--lab", str(lab.root), "--json"]
    argv += ["--kernel", choice.kernel] if choice.kernel else []
    argv += ["--machine", choice.machine] if choice.machine else []
    env = dict(os.environ) | ({"PYTEST_ADDOPTS": f"-p {plugin}"} if plugin else {})
    with TemporaryDirectory(prefix="vfio-lab-bench-") as folder:
        out = Path(folder) / "run"
        argv += ["--out", str(out), *words]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        record = RunFolder(out).read() if (out / "results.json").exists() else None
    if not record:
        raise InfrastructureError(f"a run failed while it was measured:\n{done.stderr[-2000:]}")
    bad = [test for test in record.tests if test.verdict.is_trouble]
    expected = len(record.tests) // lost_every if lost_every else 0
    if len(bad) != expected or record.trouble:
        said = [f"{test.id}: {test.message}" for test in bad]
        said += [trouble.message for trouble in record.trouble]
        raise InfrastructureError("a run failed while it was measured:\n" + "\n".join(said[:9]))
    return record
