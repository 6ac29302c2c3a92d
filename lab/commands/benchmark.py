# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab bench`: what the lab itself costs, beside a floor measured in the same run."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lab.agent.protocol import Syscall
from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab, known
from lab.errors import InfrastructureError
from lab.progress import Progress
from lab.results.folder import RunFolder

Figures = dict[str, list[float]]
"""Name to measurements, in seconds; the first name is the floor of the others."""


def measure(lab: Lab, choice: Choice, what: str, rounds: int, *, as_json: bool) -> None:
    """Run one benchmark and print its figures. Raises ConfigurationError for an unknown one."""
    benchmarks: dict[str, Callable[[Lab, Choice, int], Figures]] = {
        "agent": _agent,
        "boot": _boot,
    }
    figures = benchmarks[known("benchmark", what, benchmarks)](lab, choice, rounds)
    _print(what, figures, as_json=as_json)


def _agent(lab: Lab, choice: Choice, rounds: int) -> Figures:
    """A system call through the agent, beside an echo through the same SSH connection."""
    figures: Figures = {"echo of 64 bytes by cat": [], "getpid() by the agent": []}
    echo, call = figures.values()
    with (
        tempfile.TemporaryDirectory(prefix="vfio-lab-bench-") as folder,
        Cell(lab, choice, Cache.of_user(), Progress(), RunFolder(Path(folder))) as cell,
        cell.testbed().start_process() as process,
    ):
        cat = cell.testbed().guest.ssh.start("exec cat")
        for _ in range(rounds or 2000):
            started = time.perf_counter()
            cat.send(bytes(64))
            received = 0
            while received < 64:
                received += len(cat.recv(time.monotonic() + 10))
            echo.append(time.perf_counter() - started)
            started = time.perf_counter()
            process.syscall(Syscall.GETPID)
            call.append(time.perf_counter() - started)
        cat.close()
    return figures


def _boot(lab: Lab, choice: Choice, rounds: int) -> Figures:
    """From the command to the first test's call, beside QEMU's start to a served login.

    The floor is taken with nothing else running: everything is loaded, and the process waits.
    """
    figures: Figures = {"QEMU's start to a served login": [], "command to the first test": []}
    floor, whole = figures.values()
    with tempfile.TemporaryDirectory(prefix="vfio-lab-bench-") as folder:
        for number in range((rounds or 5) + 1):
            place = RunFolder(Path(folder) / f"floor-{number}")
            with Cell(lab, choice, Cache.of_user(), Progress(), place) as cell:
                login = cell.testbed().guest.seconds["login"]
            first = _first_call(lab, choice)
            if number:  # the first pair warms the host's caches up
                floor.append(login)
                whole.append(first)
    return figures


def _first_call(lab: Lab, choice: Choice) -> float:
    with tempfile.TemporaryDirectory(prefix="vfio-lab-bench-") as folder:
        argv = [sys.executable, "-m", "lab", "run", "--lab", str(lab.root), "--json"]
        argv += ["--out", f"{folder}/run", "--rule", "OWN-2", "--mode", "iommufd"]
        argv += ["--kernel", choice.kernel] if choice.kernel else []
        argv += ["--machine", choice.machine] if choice.machine else []
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InfrastructureError(f"a run failed while it was measured:\n{done.stderr[-2000:]}")
    seconds: float = json.loads(done.stdout)["figures"]["first_call_seconds"]
    return seconds


def _print(what: str, figures: Figures, *, as_json: bool) -> None:
    floor = statistics.median(next(iter(figures.values())))
    rows = {
        name: {
            "runs": len(values),
            "minimum": min(values),
            "median": statistics.median(values),
            "maximum": max(values),
            "ratio": statistics.median(values) / floor,
        }
        for name, values in figures.items()
    }
    if as_json:
        print(json.dumps({"benchmark": what, "unit": "s", "figures": rows}, indent=1))
        return
    table = Table(title=f"bench {what}, milliseconds", title_justify="left")
    table.add_column("measured")
    for column in ("runs", "minimum", "median", "maximum", "ratio"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        times = [f"{1000 * row[key]:.2f}" for key in ("minimum", "median", "maximum")]
        table.add_row(name, str(row["runs"]), *times, f"{row['ratio']:.2f}")
    Console().print(table)
