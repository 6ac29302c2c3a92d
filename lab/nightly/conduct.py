# SPDX-License-Identifier: GPL-2.0-only
"""A night under way: cells in their turn, what fails once more, until nothing is left to do or
there is no time for it."""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field, replace

from lab.config import Lab
from lab.deadline import Deadline
from lab.history.model import CellKey
from lab.history.store import History
from lab.nightly.carrier import Carrier, Order, Outcome
from lab.nightly.matrix import order_for
from lab.nightly.night import Night, State
from lab.nightly.runs import cell_run
from lab.progress import Progress, Step
from lab.results.record import RunRecord
from lab.trial.runs import MOST_AGAIN, words_for

_TIME_IS_UP = "the night's time was up"
_LOOK = 1.0  # seconds between two looks at what is under way


@dataclass
class Conductor:
    """One night's. `version` is the lab's own, as history keeps it; `again` how often what fails is
    run again. `on_change` is called whenever a cell has begun or ended."""

    lab: Lab
    night: Night
    history: History
    progress: Progress
    version: str
    again: int
    on_change: Callable[[], None] = lambda: None
    _waiting: list[Order] = field(init=False, default_factory=list)
    _running: dict[Future[Outcome], Order] = field(init=False, default_factory=dict)
    _proven: set[tuple[str, str]] = field(init=False, default_factory=set)
    """Kernels, with their series, that were seen to have a run: they are built and boot."""

    def run(self, carrier: Carrier) -> None:
        """Until the end of the night, or of its budget. An interruption (KeyboardInterrupt) loses
        nothing but what was under way; the night can go on from there."""
        self._take_up()
        started, before = time.monotonic(), self.night.spent
        deadline = Deadline.after(max(0.0, self.night.budget - before))
        try:
            with self.progress.step(f"night {self.night.name}") as step, carrier:
                while self._waiting or self._running:
                    self.night.spent = before + time.monotonic() - started
                    if deadline.passed:
                        break
                    self._start(carrier, deadline)
                    if not self._running:
                        break  # for what is left there is not time enough
                    done, _ = wait(self._running, timeout=_LOOK, return_when=FIRST_COMPLETED)
                    self._tell(step)
                    for future in done:
                        self._finished(self._running.pop(future), future.result())
        except KeyboardInterrupt:
            self._put_back()
            raise
        self._close()
        self.night.spent = before + time.monotonic() - started
        self.night.write()

    def _take_up(self) -> None:
        """What is not done with yet, in its turn; also that which an interruption cut."""
        for planned in self.night.cells:
            whole = order_for(self.lab, self.night.name, planned.cell)
            if whole.name not in self.night.outcomes or planned.state is State.RUNNING:
                if planned.state is not State.WAITING:
                    self._mark(planned.cell, State.WAITING)
                self._waiting.append(whole)
            elif not self.night.outcomes[whole.name].trouble:
                record = self.night.run_folder(whole).read()
                self._proven.add((whole.kernel, whole.cell.series))
                self._waiting[:0] = self._again(planned.cell, record)

    def _close(self) -> None:
        """The carrier has ended what was still running: what it found until then counts."""
        for future, order in self._running.items():
            try:
                self._finished(order, future.result(timeout=0), cut=True)
            except (CancelledError, TimeoutError):
                if not order.attempt:  # else the cell has its verdicts
                    self._mark(order.cell, State.LEFT, _TIME_IS_UP)
        self._running.clear()
        for planned in self.night.cells:
            if planned.state is State.WAITING:
                self._mark(planned.cell, State.LEFT, _TIME_IS_UP)

    def _put_back(self) -> None:
        for order in self._running.values():
            if order.attempt == 0:
                self._mark(order.cell, State.WAITING)
        self._running.clear()

    def _start(self, carrier: Carrier, deadline: Deadline) -> None:
        while len(self._running) < carrier.places:
            order = next((o for o in self._waiting if self._may_start(o, deadline)), None)
            if order is None:
                return
            self._waiting.remove(order)
            self.night.make_way(order)
            if order.attempt == 0:
                self._mark(order.cell, State.RUNNING)
            self._running[carrier.carry(order)] = order

    def _may_start(self, order: Order, deadline: Deadline) -> bool:
        """A kernel that nobody has seen boot is first tried in one cell: what does not build is
        built once. What would not end in time is not begun."""
        kernel = (order.kernel, order.cell.series)
        tried = {(each.kernel, each.cell.series) for each in self._running.values()}
        if kernel not in self._proven and kernel in tried:
            return False
        expected = self.night.planned(order.cell).seconds if order.attempt == 0 else None
        return (expected or 0.0) <= deadline.left

    def _finished(self, order: Order, outcome: Outcome, *, cut: bool = False) -> None:
        if outcome.trouble:
            self.night.outcomes[order.name] = outcome
            self._failed(order, outcome.trouble)
            return
        record = self.night.run_folder(order).read()
        self.history.add(cell_run(order, record, self.version), record)
        self.night.outcomes[order.name] = outcome  # what is interrupted before this is run again
        cut = cut and not record.finished
        if order.attempt:
            self.progress.say(f"{order.cell}, again: {_summary(record)}")
            self.night.write()
            return
        if cut and not record.tests:
            self._mark(order.cell, State.LEFT, _TIME_IS_UP)
            return
        if not record.tests:
            trouble = next((each.message for each in record.every_trouble), "it has no tests")
            self._failed(order, trouble, record.status)
            return
        self._proven.add((order.kernel, order.cell.series))
        if cut:  # that it has no end is nobody's fault
            record = replace(record, finished=True)
        self._mark(order.cell, State.TESTED, _TIME_IS_UP if cut else "", record.status)
        self.progress.say(f"{order.cell}: {_summary(record)} in {record.seconds:.0f} s")
        if not cut:
            self._waiting[:0] = self._again(order.cell, record)

    def _failed(self, order: Order, trouble: str, status: int = 2) -> None:
        """What is not built, or does not boot, is not tried in its other cells."""
        self.progress.say(f"{order.cell}: {trouble}")
        if order.attempt:
            self.night.write()
            return
        self._mark(order.cell, State.FAILED, trouble, status)
        kernel = (order.kernel, order.cell.series)
        if kernel in self._proven:
            return
        for other in [o for o in self._waiting if (o.kernel, o.cell.series) == kernel]:
            self._waiting.remove(other)
            first_line = trouble.partition("\n")[0]
            self._mark(other.cell, State.FAILED, f"as in {order.cell}: {first_line}", status)

    def _again(self, cell: CellKey, record: RunRecord) -> list[Order]:
        """Runs of what failed, on the same bits, that were not made yet."""
        failed = [test for test in record.tests if test.exit_status == 1][:MOST_AGAIN]
        if not failed:
            return []
        orders = (
            order_for(self.lab, self.night.name, cell, attempt=attempt + 1, tests=words_for(failed))
            for attempt in range(self.again)
        )
        return [order for order in orders if order.name not in self.night.outcomes]

    def _mark(self, cell: CellKey, state: State, why: str = "", status: int = 0) -> None:
        planned = self.night.planned(cell)
        planned.state, planned.why, planned.status = state, why, status
        self.night.write()
        self.on_change()

    def _tell(self, step: Step) -> None:
        ended = sum(each.state in _AT_END for each in self.night.cells)
        under_way = "; ".join(_now(self.night, order) for order in self._running.values())
        step.note(f"{ended} of {len(self.night.cells)} cells; {under_way}")


_AT_END = (State.TESTED, State.FAILED, State.LEFT)


def _now(night: Night, order: Order) -> str:
    """What a run says just now: the last line of its output."""
    path = night.run_folder(order).path
    try:
        lines = path.with_name(f"{path.name}.log").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    said = f": {lines[-1].strip('… ')}" if lines else ""
    again = f", again ({order.attempt})" if order.attempt else ""
    return f"{order.cell}{again}{said}"


def _summary(record: RunRecord) -> str:
    counts = record.counts().items()
    return ", ".join(f"{count} {verdict.value}" for verdict, count in counts) or "no test"
