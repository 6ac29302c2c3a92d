# SPDX-License-Identifier: GPL-2.0-only
"""A fleet on this host: a scheduler and workers, each a process with its own cache and state.

Whatever happens to them, the night says what it says without them.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.cache import Cache

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab, Started

pytest.importorskip("distributed", reason="needs the extra `fleet`")

Wait = Callable[[Callable[[], object], float], bool]
Qemus = Callable[[Path], list[int]]

_SUITE = """\
import time

from lab.contract import Mode
from lab.testing import contract

@contract("OWN-1", Mode.IOMMUFD)
def test_of_the_kernel(process):
    time.sleep({seconds})
    assert {kept}, "it is broken"

@contract("OWN-2", Mode.IOMMUFD)
def test_that_is_kept(process):
    pass
"""
_NIGHT = 280.0  # seconds that one may take, on a host that is busy


@dataclass(frozen=True)
class Process:
    """One of the fleet's."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def state(self) -> Path:
        """Where its guests live."""
        return self.folder / "state"

    def end(self, number: signal.Signals) -> None:
        """Send it a signal, and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(60)


class Machines:
    """Starts what a fleet consists of, and ends it with the test."""

    def __init__(self, lab: "SmallLab", folder: Path, stack: ExitStack) -> None:
        self._lab = lab
        self._folder = folder
        self._stack = stack
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        self.store = folder / "store"

    def scheduler(self) -> Process:
        """Dask's own, on the same port each time."""
        host, _, port = self.address.removeprefix("tcp://").partition(":")
        words = ["--host", host, "--port", port, "--no-dashboard"]
        words += ["--dashboard-address", "127.0.0.1:0"]
        return self._start(
            "scheduler",
            ["-m", "distributed.cli.dask_scheduler", *words],
            {"TMPDIR": str(self._folder / "scheduler")},
        )

    def worker(self, name: str) -> Process:
        """One with an empty cache."""
        words = ["--scheduler", self.address, "--name", name, "--cpus", "1", "--memory", "5G"]
        argv = ["-m", "lab", "worker", "--lab", str(self._lab.root), *words]
        return self._start(name, argv, self.environment(name))

    def environment(self, name: str) -> dict[str, str]:
        """That of a machine."""
        place = self._folder / name
        return {"VFIO_LAB_CACHE": str(place / "cache"), "VFIO_LAB_STATE": str(place / "state")}

    def night(self, name: str, *words: str) -> "Started":
        """`vfio-lab nightly` on the fleet, by a coordinator of this name."""
        words = ("--scheduler", self.address, "--store", self.store.as_uri(), *words)
        return self._lab.night(*words, env=self.environment(name))

    def _start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Process:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                ["env", "--default-signal=INT", sys.executable, *argv],
                cwd=folder,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._stack.callback(process.wait, 60)
        self._stack.callback(process.terminate)
        return Process(process, folder)


@pytest.fixture
def machines(small_lab: "SmallLab", tmp_path: Path) -> Iterator[Machines]:
    with ExitStack() as stack:
        yield Machines(small_lab, tmp_path, stack)


@pytest.fixture
def kernel(machines: Machines, choice: Any) -> str:
    """A kernel that the coordinator alone has, with an image and an agent."""
    cache = Cache.of_user()
    ours = Path(machines.environment("coordinator")["VFIO_LAB_CACHE"])
    for kind in ("image", "agent", "facts", "headers"):
        if (cache.root / kind).is_dir():
            shutil.copytree(cache.root / kind, ours / kind)
    return str(choice.kernel)


def _verdicts(state: Path) -> dict[str, dict[str, str]]:
    """Of the newest night: by cell and test."""
    night = max((state / "nights").glob("2*"))
    found = {}
    for results in sorted(night.glob("cells/*/results.json")):
        tests = json.loads(results.read_text())["tests"]
        found[results.parent.name] = {test["id"]: test["verdict"] for test in tests}
    return found


@pytest.mark.timeout(2 * _NIGHT + 60.0)
def test_a_fleet_says_what_one_machine_says_whatever_happens_to_it(
    small_lab: "SmallLab",
    machines: Machines,
    kernel: str,
    tmp_path: Path,
    qemus: Qemus,
    wait_until: Wait,
) -> None:
    small_lab.suite(_SUITE.format(seconds=5, kept=True))
    small_lab.suite(_SUITE.format(seconds=5, kept=False), "second")
    small_lab.nightly(
        kernels=[kernel], machines=["vtd", "vtd-scalable"], suites=["first", "second"], again=0
    )
    assert small_lab.night().outcome(_NIGHT).status == 1

    scheduler = machines.scheduler()
    first, second = machines.worker("first"), machines.worker("second")
    night = machines.night("coordinator")
    assert wait_until(lambda: qemus(first.state) and qemus(second.state), 120.0)

    first.end(signal.SIGKILL)  # in its cell
    third = machines.worker("third")
    assert wait_until(lambda: not qemus(first.state), 40.0)
    assert wait_until(lambda: qemus(third.state), 120.0)

    scheduler.end(signal.SIGKILL)
    assert wait_until(lambda: not qemus(second.state) and not qemus(third.state), 60.0)
    machines.scheduler()
    outcome = night.outcome(_NIGHT)
    assert outcome.status == 1, outcome.stderr

    ours = tmp_path / "coordinator" / "state"
    assert _verdicts(ours) == _verdicts(tmp_path / "state")
    assert len(_verdicts(ours)) == 4
    for name in ("second", "third"):
        assert list((tmp_path / name / "cache" / "kernel").iterdir())  # from the store
    second.end(signal.SIGTERM)
    third.end(signal.SIGTERM)
    assert not list(machines.store.glob("nights/*"))  # it is all gathered


def test_ctrl_c_leaves_no_run_on_a_worker_and_the_night_goes_on_from_there(
    small_lab: "SmallLab", machines: Machines, kernel: str, qemus: Qemus, wait_until: Wait
) -> None:
    small_lab.suite(_SUITE.format(seconds=1, kept=True))
    small_lab.suite("import time\n\ndef test_long(process):\n    time.sleep(100)\n", "second")
    small_lab.nightly(kernels=[kernel], machines=["vtd"], suites=["first", "second"])
    machines.scheduler()
    worker = machines.worker("only")
    night = machines.night("coordinator")
    begun = machines.store / "nights"
    assert wait_until(lambda: list(begun.glob("*/cells/*--second-*.tries")), 120.0)
    assert wait_until(lambda: qemus(worker.state), 60.0)

    night.process.send_signal(signal.SIGINT)
    cut = night.outcome()
    assert cut.status == 2
    assert "`vfio-lab nightly --resume` goes on" in cut.stderr
    assert wait_until(lambda: not qemus(worker.state), 40.0)
    assert worker.process.poll() is None

    again = machines.night("coordinator", "--resume")
    assert wait_until(lambda: qemus(worker.state), 60.0)
    worker.end(signal.SIGTERM)
    assert not qemus(worker.state)
    again.process.send_signal(signal.SIGINT)
    again.outcome()


def test_what_a_cell_found_before_the_budget_ended_it_is_gathered(
    small_lab: "SmallLab", machines: Machines, kernel: str, tmp_path: Path, qemus: Qemus
) -> None:
    slow = "def test_slow(process):\n    time.sleep(600)\n"
    small_lab.suite(_SUITE.format(seconds=0, kept=True) + slow)
    small_lab.nightly(kernels=[kernel], machines=["vtd"], suites=["first"])
    machines.scheduler()
    worker = machines.worker("only")
    outcome = machines.night("coordinator", "--budget", "90s", "--json").outcome(_NIGHT)
    (cell,) = json.loads(outcome.stdout)["night"]["cells"]
    assert (cell["state"], cell["why"]) == ("tested", "the night's time was up"), outcome.stderr
    (found,) = _verdicts(tmp_path / "coordinator" / "state").values()
    assert sorted(found.values()) == ["kept", "kept"]
    assert not qemus(worker.state)
    assert not list(machines.store.glob("nights/*"))


def test_a_worker_with_another_lab_tests_nothing(
    small_lab: "SmallLab", machines: Machines, kernel: str, tmp_path: Path, wait_until: Wait
) -> None:
    small_lab.suite(_SUITE.format(seconds=1, kept=True))
    small_lab.nightly(kernels=[kernel], machines=["vtd"], suites=["first"])
    machines.scheduler()
    worker = machines.worker("other")
    assert wait_until(lambda: "works for" in worker.said, 60.0)

    (small_lab.root / "first" / "test_small.py").write_text(_SUITE.format(seconds=2, kept=True))
    night = machines.night("coordinator", "--budget", "40s")
    outcome = night.outcome(_NIGHT)
    assert "other: its lab is not the coordinator's" in outcome.stderr
    assert not list((tmp_path / "coordinator").glob("state/nights/*/cells/*/results.json"))
