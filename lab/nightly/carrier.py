# SPDX-License-Identifier: GPL-2.0-only
"""Who runs a night's cells: processes of this host, or a fleet (`lab.fleet`)."""

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from lab import room
from lab.child import run_of
from lab.config import Lab
from lab.history.model import CellKey
from lab.results.folder import RESULTS
from lab.results.record import Written

CELLS = "cells"  # the folder of the runs, in a night's
_LOOK = 0.5  # seconds between two looks at whether the night has been stopped


@dataclass(frozen=True)
class Order(Written):
    """All that a process needs to run a cell once.

    `attempt` is 0 for the whole cell. `words` are options of `vfio-lab run`, without those that
    every carrier says in its own way: `--kernel`, `--series`, `--out` and `--lab`. `name` is that
    of the run's folder in the night's `cells`, `memory` the bytes that it cannot do without: of a
    guest, and one that boots. `series` is a mailbox, relative to the night's folder.
    """

    night: str
    cell: CellKey
    attempt: int
    words: tuple[str, ...]
    name: str
    memory: int
    kernel: str
    series: str | None = None


@dataclass(frozen=True)
class Outcome(Written):
    """What became of an order. `trouble` says why there are no results, empty where there are;
    `where` is the host that it ran on."""

    order: Order
    trouble: str = ""
    where: str = ""


class Carrier(AbstractContextManager["Carrier"], Protocol):
    """The end of the block ends whatever still runs, and loses nothing that was told."""

    @property
    def places(self) -> int:
        """How many cells run at once, just now."""

    def carry(self, order: Order) -> Future[Outcome]:
        """Have it run. When the future is done the run's folder is in the night's, whole, with all
        that it left. The future raises nothing that the run did; it is cancelled, or raises
        CancelledError, where the end of the block came before there were any results."""


class LocalCarrier(Carrier):
    """Runs cells in processes of this host, `jobs` at once."""

    def __init__(self, lab: Lab, nights: Path, jobs: int) -> None:
        self._lab = lab
        self._nights = nights
        self._jobs = jobs
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="cell")
        self._stopped = threading.Event()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    @property
    def places(self) -> int:
        return self._jobs

    def carry(self, order: Order) -> Future[Outcome]:
        return self._threads.submit(self._run, order)

    def _run(self, order: Order) -> Outcome:
        night = self._nights / order.night
        out = night / CELLS / order.name
        words = ["--kernel", order.kernel, *order.words]
        words += ["--series", str(night / order.series)] if order.series else []
        if self._jobs > 1:  # those that run at once share the processors
            machine = self._lab.machine(order.cell.machine)
            words += ["-n", str(max(1, room.workers(machine) // self._jobs))]
        with run_of(self._lab, out, words) as process:
            while process.poll() is None and not self._stopped.wait(_LOOK):
                pass
        if (out / RESULTS).exists():
            return Outcome(order)
        if self._stopped.is_set():
            raise CancelledError
        return Outcome(order, f"the run left no results: see {out}.log")
