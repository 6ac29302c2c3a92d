# SPDX-License-Identifier: GPL-2.0-only
"""A lab whose nights are run by nobody: what a cell says is written down beforehand."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pytest
from rich.console import Console

from lab.config import Lab
from lab.history.model import CellKey
from lab.history.store import History
from lab.nightly.carrier import Carrier, Order, Outcome
from lab.nightly.conduct import Conductor
from lab.nightly.night import Night, Planned, nights
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

LAB = """\
debian: {suites: [bookworm]}
kernels:
  v6.12: {source: {package: linux-source-6.12, suite: bookworm}, fragments: [boot]}
  next: {source: {git: linux, ref: next}, fragments: [boot]}
images:
  minimal: {recipe: images/minimal}
machines:
  vtd: {devices: {edu0: {model: edu}}}
  narrow: {devices: {edu0: {model: edu}}}
  large: {devices: {edu0: {model: edu}}}
suites:
  contract: {tests: tests/contract}
  bugs: {tests: tests/bugs}
  selftests: {tests: tests/selftests, machine: large}
run: {kernel: v6.12, machine: vtd, suites: [contract]}
"""
NIGHTLY = """\
nightly:
  kernels: [v6.12, next]
  machines: [vtd, narrow]
  suites: [contract, selftests]
"""
CONTRACT = CellKey("v6.12", "vtd", "contract")
BUGS = CellKey("v6.12", "vtd", "bugs")
NEXT = CellKey("next", "vtd", "contract")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab's folder; state and cache are the test's own, too."""
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("VFIO_LAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "lab"
    fragments = folder / "kernels" / "fragments"
    fragments.mkdir(parents=True)
    for name in ("boot", "kasan"):
        (fragments / f"{name}.config").touch()
    (folder / "lab.yaml").write_text(LAB + NIGHTLY)
    return folder


@pytest.fixture
def lab(root: Path) -> Lab:
    return Lab.load(root)


@pytest.fixture
def history(root: Path) -> Iterator[History]:
    nights().mkdir(parents=True)
    with History.opened(f"sqlite:///{root.parent / 'history.sqlite3'}") as history:
        yield history


def a_run(*verdicts: Verdict, cell: CellKey = CONTRACT, key: str = "bits") -> RunRecord:
    """A run whose tests said this, one after the other; without any it has none."""
    return RunRecord(
        version="1",
        started="2026-11-28T21:00:00Z",
        seconds=60.0,
        kernel={"key": key, "release": "6.12.57", "name": cell.kernel},
        tests=tuple(
            TestRecord(f"tests/{cell.suite}/test_x.py::test_{number}", cell.suite, verdict, 1.0)
            for number, verdict in enumerate(verdicts)
        ),
    )


@dataclass
class Script(Carrier):
    """Runs cells as they are written down: of each the records of its attempts, in order. A cell
    without any is one whose run leaves nothing; one that says None never ends."""

    says: Mapping[CellKey, Sequence[RunRecord | None]]
    jobs: int = 1
    carried: list[Order] = field(default_factory=list)
    before: Callable[[Order], None] = lambda _: None

    @property
    def places(self) -> int:
        return self.jobs

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def carry(self, order: Order) -> Future[Outcome]:
        self.before(order)
        earlier = sum(each.cell == order.cell for each in self.carried)
        self.carried.append(order)
        future: Future[Outcome] = Future()
        found = self.says.get(order.cell, ())[earlier:]
        if not found:
            future.set_result(Outcome(order, "the run left no results"))
        elif record := found[0]:
            folder = nights() / order.night / "cells" / order.name
            folder.mkdir()
            RunFolder(folder).write(record)
            future.set_result(Outcome(order))
        return future

    @property
    def names(self) -> list[str]:
        """What was run, in order."""
        return [order.name for order in self.carried]


@dataclass(frozen=True)
class Stage:
    """Has nights conducted."""

    lab: Lab
    history: History

    def night(self, *cells: CellKey, budget: float = 3600.0, seconds: float | None = None) -> Night:
        """One that has planned these cells, each expected to take so long."""
        night = Night.new(budget)
        night.cells = [Planned(cell, True, seconds) for cell in cells]
        night.write()
        return night

    def conduct(self, night: Night, script: Carrier, again: int = 2) -> None:
        """From where it is to its end."""
        progress = Progress(Console(file=io.StringIO()))
        Conductor(self.lab, night, self.history, progress, "1", again).run(script)


@pytest.fixture
def stage(lab: Lab, history: History) -> Stage:
    return Stage(lab, history)
