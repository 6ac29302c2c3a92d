# SPDX-License-Identifier: GPL-2.0-only
"""A run in a process of its own, for commands that make several."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from lab.config import Lab
from lab.errors import LabError
from lab.proc import background
from lab.results.folder import RESULTS, RunFolder
from lab.results.record import RunRecord

_GRACE = 30.0  # seconds in which a run ends its guests and writes its report


@contextmanager
def run_of(lab: Lab, out: Path, words: Sequence[str]) -> Iterator[Popen[str]]:
    """`vfio-lab run` with `words`, beside this process; its folder is `out`.

    The end of the block ends it. What it prints is in `out`.log.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "lab", "run", "--json", "--lab", str(lab.root)]
    argv += ["--out", str(out), *words]
    with background(argv, out.parent / f"{out.name}.log", grace=_GRACE) as process:
        yield process


def record_of(process: Popen[str], out: Path) -> RunRecord:
    """What became of it, when it has ended. Raises LabError where it left nothing."""
    process.wait()
    if not (out / RESULTS).exists():
        raise LabError(f"a run left no results: see {out}.log")
    return RunFolder(out).read()


def record_of_run(lab: Lab, out: Path, words: Sequence[str]) -> RunRecord:
    """Run, wait, and tell. Raises as `record_of` does."""
    with run_of(lab, out, words) as process:
        return record_of(process, out)
