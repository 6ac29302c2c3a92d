# SPDX-License-Identifier: GPL-2.0-only
"""A night: what was planned, what has become of it, and where that lies on disk.

| in its folder   | what it is                                                    |
|-----------------|---------------------------------------------------------------|
| night.json      | the night as it stands: `Night`                               |
| cells/NAME/     | a run's folder, as that of every run; NAME.log is its output  |
| series/NAME.mbox| the series that were dropped by then                          |
| news.json       | what is new, and the page, the mail and the formats beside it |
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from lab.errors import ConfigurationError
from lab.history.model import CellKey
from lab.nightly.carrier import CELLS, Order, Outcome
from lab.page.running import NIGHT
from lab.results.folder import STAMP, RunFolder, runs
from lab.results.record import RunRecord, Written

SERIES = "series"
_LOCK = ".lock"


class State(StrEnum):
    """What has become of a planned cell."""

    WAITING = "waiting"
    RUNNING = "running"
    TESTED = "tested"
    FAILED = "failed"
    """There are no verdicts, and why not is known."""
    LEFT = "left"
    """There was no time for it."""


@dataclass
class Planned(Written):
    """A cell of a night. `seconds` is how long it was expected to take, None where nobody knew;
    `changed` whether something of it had since it was last run. `why` says what hindered it, and
    `status` is its exit status, 0 while there is none."""

    cell: CellKey
    changed: bool
    seconds: float | None
    state: State = State.WAITING
    why: str = ""
    status: int = 0


@dataclass
class Night(Written):
    """A night as it stands. `started` is ISO 8601 in UTC; `budget` is in seconds, and `spent` as
    many of them as are used up. `cells` are in the order of their turn. `outcomes` are of orders
    that are done with, by the names of their folders. `trouble` belongs to no cell. `ended` is
    empty until it has come to its end, the budget's included."""

    name: str
    started: str
    budget: float
    cells: list[Planned] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    spent: float = 0.0
    ended: str = ""

    @classmethod
    def new(cls, budget: float) -> "Night":
        """One that starts now. Its name is not taken yet by another that the same second saw."""
        moment = time.gmtime()
        while (nights() / (name := time.strftime(STAMP, moment))).exists():
            time.sleep(0.2)
            moment = time.gmtime()
        (nights() / name / CELLS).mkdir(parents=True)
        (nights() / name / SERIES).mkdir()
        return cls(name, time.strftime("%Y-%m-%dT%H:%M:%SZ", moment), budget)

    @classmethod
    def unfinished(cls) -> "Night":
        """The newest, to go on with. Raises ConfigurationError where it is at its end."""
        newest = max(nights().glob(f"*/{NIGHT}"), default=None)
        night = read(newest) if newest else None
        if not night or night.ended:
            raise ConfigurationError(
                "no night was interrupted" if night else "there was no night yet",
                hint="without --resume a new one starts",
            )
        return night

    @property
    def folder(self) -> Path:
        return nights() / self.name

    def write(self) -> None:
        """Put it on disk."""
        self.save(self.folder / NIGHT)

    def finish(self) -> None:
        """It has come to its end, and all is told."""
        self.ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.write()

    def planned(self, cell: CellKey) -> Planned:
        """What is planned of a cell."""
        return next(each for each in self.cells if each.cell == cell)

    def run_folder(self, order: Order) -> RunFolder:
        """Where an order's run is, or will be."""
        return RunFolder(self.folder / CELLS / order.name)

    def make_way(self, order: Order) -> None:
        """Remove what an interruption left of an order's run."""
        shutil.rmtree(self.run_folder(order).path, ignore_errors=True)

    def records(self) -> Iterator[tuple[Order, RunRecord]]:
        """What every run of it said that left anything."""
        for outcome in self.outcomes.values():
            if not outcome.trouble:
                yield outcome.order, self.run_folder(outcome.order).read()


def nights() -> Path:
    """The folder of all nights."""
    return runs().parent / "nights"


def read(file: Path) -> Night:
    """A night.json. Raises ConfigurationError where it cannot be read."""
    try:
        return Night.from_json(json.loads(file.read_text()))
    except (OSError, ValueError, ConfigurationError) as error:
        words = error.message if isinstance(error, ConfigurationError) else error
        raise ConfigurationError(f"{file}: {words}", hint="remove its folder") from error


@contextmanager
def alone() -> Iterator[None]:
    """No other night of this state folder runs in the block. Raises ConfigurationError where one
    does, or where nothing can be written there."""
    lock = FileLock(nights() / _LOCK, timeout=0)
    try:
        nights().mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ConfigurationError(
            f"a night runs already in {nights()}",
            hint="wait for its end, watch it with `vfio-lab serve`, or set VFIO_LAB_STATE",
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"no folder for nights: {error.filename}: {error.strerror}", hint="set VFIO_LAB_STATE"
        ) from error
    try:
        yield
    finally:
        lock.release()
