# SPDX-License-Identifier: GPL-2.0-only
"""From the command to the first test's call, beside QEMU's start to a served login."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.bench.figures import Measured
from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.errors import InfrastructureError
from lab.progress import Progress
from lab.results.folder import RunFolder


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` of each, by default 5."""
    floor = Measured("QEMU alone, to a login")
    whole = Measured("command to the first test", floor.name)
    for number in range((rounds or 5) + 1):
        login, first = login_seconds(lab, choice), _first_call(lab, choice)
        if number:  # the first pair warms the host's caches up
            floor.values.append(login)
            whole.values.append(first)
    return floor, whole


def login_seconds(lab: Lab, choice: Choice) -> float:
    """QEMU's start to a served login; nothing else runs: all is loaded, and the process waits."""
    with (
        TemporaryDirectory(prefix="vfio-lab-bench-") as folder,
        Cell(lab, choice, Cache.of_user(), Progress(), RunFolder(Path(folder))) as cell,
    ):
        return cell.testbed().guest.seconds["login"]


def _first_call(lab: Lab, choice: Choice) -> float:
    with TemporaryDirectory(prefix="vfio-lab-bench-") as folder:
        argv = [sys.executable, "-P", "-m", "lab", "run", "--lab", str(lab.root), "--json"]
        argv += ["--out", f"{folder}/run", "--rule", "OWN-2", "--mode", "iommufd"]
        argv += ["--kernel", choice.kernel] if choice.kernel else []
        argv += ["--machine", choice.machine] if choice.machine else []
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InfrastructureError(f"a run failed while it was measured:\n{done.stderr[-2000:]}")
    seconds: float = json.loads(done.stdout)["figures"]["first_call_seconds"]
    return seconds
