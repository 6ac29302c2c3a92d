# SPDX-License-Identifier: GPL-2.0-only
"""A night of small cells: what it adds to their runs, and how many it does in an hour."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from lab.bench import runs
from lab.bench.figures import Measured
from lab.cell import Choice
from lab.config import Lab
from lab.errors import InfrastructureError

_MODULES = ("test_dirty_log", "test_ownership_groups", "test_iommufd", "test_hot_reset")
_FLOOR = "their runs by themselves"


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` of each, by default 1: four modules of the contract as cells, by turns as runs one
    after the other, and as nights that run one and two of them at a time."""
    jobs = (1, 2)
    floor = Measured(_FLOOR)
    nights = {number: Measured(f"a night, {number} at a time", _FLOOR) for number in jobs}
    rates = {
        number: Measured(f"cells an hour, {number} at a time", unit="cells/h") for number in jobs
    }
    kernel = choice.kernel or lab.run.kernel
    with small_lab(lab, kernel, choice.machine or lab.run.machine) as small:
        for _ in range(rounds or 1):
            floor.values.append(_runs(small, choice))
            for number in jobs:
                seconds = night_of(small, "--jobs", str(number))
                nights[number].values.append(seconds)
                rates[number].values.append(3600 * len(_MODULES) / seconds)
    return [floor, *nights.values(), *rates.values()]


@contextmanager
def small_lab(lab: Lab, kernel: str, machine: str) -> Iterator[Lab]:
    """The same lab with a suite for each of these modules, and a nightly of them."""
    content = yaml.safe_load((lab.root / "lab.yaml").read_text())
    for image in content["images"].values():
        image["recipe"] = str(lab.root / image["recipe"])
    tests = lab.path(lab.suite("contract").tests)
    content["suites"] = {name: {"tests": str(tests / f"{name}.py")} for name in _MODULES}
    content["run"]["suites"] = list(_MODULES)
    content["nightly"] = {"kernels": [kernel], "machines": [machine], "suites": list(_MODULES)}
    with TemporaryDirectory(prefix="vfio-lab-bench-") as folder:
        root = Path(folder)
        (root / "kernels").symlink_to(lab.root / "kernels")
        (root / "lab.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        yield Lab.load(root)


def _runs(small: Lab, choice: Choice) -> float:
    """Seconds of all cells' runs, from command to report."""
    started = time.monotonic()
    for name in _MODULES:
        runs.of(small, choice, ["--suite", name])
    return time.monotonic() - started


def night_of(small: Lab, *words: str) -> float:
    """Seconds of a night of all of them, its page and its mail included. Raises InfrastructureError
    where a cell was not tested."""
    argv = [sys.executable, "-P", "-m", "lab", "nightly", "--lab", str(small.root), "--json"]
    argv += ["--no-update", *words]
    with TemporaryDirectory(prefix="state-", dir=small.root) as state:
        env = {**os.environ, "VFIO_LAB_STATE": state}
        started = time.monotonic()
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
    if done.returncode:
        raise InfrastructureError(f"a night failed while it was measured:\n{done.stderr[-2000:]}")
    cells = json.loads(done.stdout)["night"]["cells"]
    if any(cell["state"] != "tested" for cell in cells):
        raise InfrastructureError(f"cells were left out while a night was measured: {cells}")
    return seconds
