# SPDX-License-Identifier: GPL-2.0-only
"""Attempts, several guests at once, until it has shown, or has been attempted often enough.

An attempt in which the lab failed is none: it is made again, and told; where that happens three
times in a row the lab is at its end. What is under way when the time is up is waited for: to drop
it would drop those that take long. What is under way when one has shown is ended, and not counted.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import Protocol

from lab import room
from lab.agent.errors import RemoteError
from lab.cache import Cache
from lab.cell import Cell, Choice, Parts, machine_of
from lab.config import Lab
from lab.errors import ConfigurationError, LabError
from lab.guest.vmcore import VMCORE
from lab.programs import compile as compiling
from lab.progress import Progress, Step
from lab.repro import stress
from lab.repro.attempt import Attempt, Tools, attempt
from lab.repro.lines import with_lines
from lab.repro.of_test import TestHand
from lab.repro.order import Limits, Order, Stress
from lab.repro.reproduction import Reproduction
from lab.results.folder import RunFolder

_IN_A_ROW = 3  # attempts in which the lab may fail
_SPENT = 8  # attempts in a row in which no allocation was left to fail: all have been tried


@dataclass(frozen=True)
class Site:
    """Where attempts are made: `parts` are what guests are made of, their folders lie in `folder`,
    under names that begin with `prefix`."""

    lab: Lab
    choice: Choice
    parts: Parts
    folder: RunFolder
    cache: Cache
    progress: Progress
    prefix: str = ""

    @property
    def machine(self) -> str:
        """The machine's name."""
        return machine_of(self.lab, self.choice)

    @property
    def kernel(self) -> str:
        """The kernel's name and release."""
        kernel = self.parts.kernel
        return f"{kernel.name} ({kernel.release})" if kernel.release else kernel.name

    @property
    def jobs_at_most(self) -> int:
        """For how many guests there is room."""
        variant = self.lab.variant(self.parts.kernel.fragments)
        machine = self.lab.machine(self.machine).fit_for(variant)
        return max(1, min(room.processors(), room.guests(machine)))

    def jobs(self, order: Order) -> int:
        """How many guests there are at once: as many as there is room for, and use."""
        most = order.jobs or self.jobs_at_most
        return min(most, order.limits.times or most)


class Hand(Protocol):
    """What makes one attempt after the other."""

    def attempt(self, number: int) -> Attempt:
        """Make one; its `since` is on the monotonic clock. Raises LabError where the lab failed."""

    def cut(self) -> None:
        """End what is under way at once; called from another thread. No other is begun."""

    def close(self) -> None:
        """End what is left."""


class GuestHand:
    """Makes attempts of a program in guests of one cell."""

    def __init__(self, site: Site, order: Order, tools: Tools, name: str) -> None:
        self._site = site
        self._order = order
        self._tools = tools
        quiet = Progress(quiet=True)
        cell = Cell(
            site.lab, site.choice, site.cache, quiet, site.folder, parts=site.parts, worker=name
        )
        self._cell = cell.__enter__()

    def attempt(self, number: int) -> Attempt:
        """See `Hand`."""
        try:
            testbed = self._cell.testbed()
            made = attempt(self._order, testbed, self._tools, number, self._site.folder.relative)
            again = self._order.reuse and not made.signs and not testbed.leftovers()
        except RemoteError as error:  # what the lab itself asked for
            self._cell.discard()
            raise LabError(f"the lab's own process: {error}") from error
        except BaseException:
            self._cell.discard()
            raise
        if not again:
            self._cell.discard()
            if not made.evidence:
                shutil.rmtree(testbed.guest.folder, ignore_errors=True)
        return made

    def cut(self) -> None:
        """See `Hand`."""
        self._cell.cut()

    def close(self) -> None:
        """See `Hand`."""
        self._cell.__exit__(None, None, None)
        for failure in self._cell.failures:
            self._site.progress.say(f"a guest did not end as it should: {failure}")


@dataclass(frozen=True)
class Failed:
    """No attempt: there the lab failed."""

    error: LabError


class Counter:
    """Which attempt is next, and when the first began. Its methods are called by many threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._next = 1
        self._again: list[int] = []
        self._stopped = False
        self.began = time.monotonic()

    def next(self) -> int | None:
        """The number of an attempt that is to be made; None where there is none."""
        with self._lock:
            most, seconds = self._limits.times, self._limits.most_seconds
            late = seconds is not None and time.monotonic() - self.began >= seconds
            # One is made, however short the time is: of nothing nobody learns anything.
            if self._stopped or (late and self._next > 1):
                return None
            if self._again:
                return self._again.pop()
            if most is not None and self._next > most:
                return None
            self._next += 1
            return self._next - 1

    def again(self, number: int) -> None:
        """That was no attempt."""
        with self._lock:
            self._again.append(number)

    def stop(self) -> None:
        """None is to be made any more."""
        with self._lock:
            self._stopped = True

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it."""
        with self._lock:
            return self._stopped


def reproduce(
    site: Site, order: Order, on_attempt: Callable[[Attempt], object] | None = None
) -> Reproduction:
    """Attempt it until it has shown or the order's limits are reached.

    `on_attempt` sees each as it ends. Who interrupts it gets what is known so far, not `finished`.
    Raises LabError where no attempt can be made: what is wrong with the order, or the last of
    three failures in a row.
    """
    order.check()
    jobs = site.jobs(order)
    counter = Counter(order.limits)
    made: list[Attempt] = []
    failures: list[str] = []
    finished = True
    title = f"attempt {order.name} on {site.kernel}"
    with site.progress.step(title + (f", {jobs} at once" if jobs > 1 else "")) as step:
        try:
            with Hands(order, _hands(site, order, jobs)).working(counter) as results:
                for result in results:
                    if isinstance(result, Failed):
                        failures.append(str(result.error))
                        site.progress.say(f"no attempt, as the lab failed: {result.error.message}")
                        continue
                    _keep_one_dump(site, made, result)
                    made.append(result)
                    if on_attempt:
                        on_attempt(result)
                    _tell(step, made, order.limits, counter)
                    if sum(bool(each.shown) for each in made) == order.limits.shown:
                        break
        except KeyboardInterrupt:
            finished = False
        except ConfigurationError:
            raise
        except LabError as error:
            if not made:
                raise
            failures.append(str(error))
            finished = False
        if not (failures or order.keep):
            _sweep(site, made)
        shown = sum(bool(attempt.shown) for attempt in made)
        step.result(f"{shown} of {len(made)}" + ("" if finished else ", interrupted"))
    return Reproduction(
        order=order,
        kernel=site.kernel,
        machine=site.machine,
        attempts=with_lines(made, site.parts.kernel),
        failures=tuple(failures),
        seconds=round(time.monotonic() - counter.began, 3),
        jobs=jobs,
        finished=finished,
    )


def _sweep(site: Site, made: Sequence[Attempt]) -> None:
    """Guests that would have served again, or were ended amid an attempt, tell nothing."""
    kept = {Path(path).parent for attempt in made for path in attempt.evidence}
    for folder in site.folder.path.glob(f"guests/{site.prefix}g*"):
        if folder.relative_to(site.folder.path) not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _keep_one_dump(site: Site, before: Sequence[Attempt], attempt: Attempt) -> None:
    """A guest's memory is large: that of the first with a title is enough."""
    titles = {sign.title for other in before for sign in other.signs[:1]}
    if attempt.signs and attempt.signs[0].title in titles:
        for path in attempt.evidence:
            if Path(path).name == VMCORE:
                (site.folder.path / path).unlink(missing_ok=True)


def _tell(step: Step, made: Sequence[Attempt], limits: Limits, counter: Counter) -> None:
    shown = sum(bool(attempt.shown) for attempt in made)
    of = f" of {limits.times}" if limits.times else ""
    seconds = limits.most_seconds
    left = (
        f", {max(0.0, seconds - (time.monotonic() - counter.began)):.0f} s left" if seconds else ""
    )
    step.note(f"attempt {len(made)}{of}, shown {shown}{left}")


def _hands(site: Site, order: Order, jobs: int) -> list[Hand]:
    if order.is_test:
        where = (site.choice.machine, site.prefix)
        return [TestHand.of(site.folder, order, *where) for _ in range(jobs)]
    # several at once may have programs of one name: repro
    folder, kernel = site.folder.path / site.prefix.rstrip("-"), site.parts.kernel
    folder.mkdir(exist_ok=True)
    program = compiling.program(Path(order.what), kernel, folder, site.progress)
    strain = None
    if {Stress.MEMORY, Stress.NOISE} & set(order.stress):
        strain = compiling.program(stress.SOURCE, kernel, folder, Progress(quiet=True))
    tools = Tools(program, strain, jobs)
    return [GuestHand(site, order, tools, f"{site.prefix}g{number}") for number in range(jobs)]


class Hands:
    """Several, each in a thread of its own."""

    def __init__(self, order: Order, hands: Sequence[Hand]) -> None:
        self._order = order
        self._hands = hands
        self._lock = threading.Lock()
        self._in_a_row = 0  # failures
        self._spent = 0
        self._results: Queue[Attempt | Failed | BaseException | None] = Queue()

    @contextmanager
    def working(self, counter: Counter) -> Iterator[Iterator[Attempt | Failed]]:
        """What becomes of each attempt, as it ends; the end of the block ends all of them."""
        hands = self._hands
        threads = [
            threading.Thread(target=self._work, args=(hand, counter), name=f"hand {number}")
            for number, hand in enumerate(hands)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self._told(len(threads))
        finally:
            counter.stop()
            for hand in hands:
                hand.cut()
            for thread in threads:
                thread.join()
            for hand in hands:
                hand.close()

    def _told(self, working: int) -> Iterator[Attempt | Failed]:
        while working:
            result = self._results.get()
            if result is None:
                working -= 1
            elif isinstance(result, Attempt | Failed):
                yield result
            else:
                raise result

    def _work(self, hand: Hand, counter: Counter) -> None:
        try:
            while (number := counter.next()) is not None:
                self._one(hand, counter, number)
        except BaseException as error:
            if not counter.stopped:
                self._results.put(error)
        finally:
            self._results.put(None)

    def _one(self, hand: Hand, counter: Counter, number: int) -> None:
        try:
            made = hand.attempt(number)
        except ConfigurationError:
            raise
        except LabError as error:
            with self._lock:
                self._in_a_row += 1
                if self._in_a_row >= _IN_A_ROW:
                    raise
            if not counter.stopped:
                self._results.put(Failed(error))
                counter.again(number)
            return
        with self._lock:
            self._in_a_row = 0
            self._spent = self._spent + 1 if made.spent else 0
            if self._spent >= _SPENT and self._order.faults and self._order.faults.nth == 0:
                counter.stop()
        self._results.put(replace(made, since=round(made.since - counter.began, 3)))
