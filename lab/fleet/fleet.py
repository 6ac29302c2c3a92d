# SPDX-License-Identifier: GPL-2.0-only
"""A carrier whose cells run on the workers of a Dask scheduler."""

import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import lab as package
from lab.config import Lab
from lab.deadline import Deadline
from lab.errors import ConfigurationError, InfrastructureError, LabError
from lab.fleet.asking import Asking, Stopped
from lab.fleet.errand import Answer, Card, Errand, another_lab, lab_digest
from lab.fleet.link import Link
from lab.fleet.parcel import receive
from lab.fleet.resources import KVM, MEMORY, of_lab
from lab.fleet.store import Store, StoreLost
from lab.fleet.task import carry_out
from lab.nightly.carrier import CELLS, Carrier, Order, Outcome
from lab.progress import Progress
from lab.results.folder import RunFolder

_MOST = 512  # cells at once
_PATIENCE = 60.0  # seconds in which one that is ended tells what it has found: it has 45 for that
_AGAIN = 1.0  # seconds until an errand that was lost is given to the next worker


class Fleet(Carrier):
    """The workers at a scheduler (`tcp://HOST:8786`), with a store (a URL) that all see.

    `nights` is the folder of all nights. With `kvm` only hosts that have it run cells. A worker
    that dies costs its cell a retry; a scheduler that goes is waited for, and is told anew what was
    not done. What the store has already is not run again.
    """

    def __init__(
        self,
        scheduler: str,
        store: str,
        *,
        lab: Lab,
        nights: Path,
        progress: Progress,
        kvm: bool = False,
    ) -> None:
        self._lab = lab
        self._nights = nights
        self._progress = progress
        self._kvm = kvm
        self._digest = lab_digest(lab)  # what is tested with stays the same for all of a night
        self._store = Store(store)
        self._stopped = threading.Event()
        self._is_over = False  # and not interrupted: the night does not go on
        self._link = Link(scheduler, self._stopped, progress)
        self._asking = Asking(
            lab, self._digest, store, nights, progress, lambda: not self._stopped.is_set()
        )
        self._threads = ThreadPoolExecutor(_MOST, thread_name_prefix="cell")
        self._carried: set[str] = set()  # nights

    def __enter__(self) -> Self:
        self._link.reach()  # who is not there yet is waited for with the first cell
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = kind is None
        self._stopped.set()
        self._threads.shutdown(cancel_futures=True)
        self._link.close()
        if self._is_over:  # else it goes on with what is there
            for night in self._carried:
                self._forget(night)

    @property
    def places(self) -> int:
        """As many as workers of this lab, and with KVM where that is wanted, run at once; one where
        there is none yet, which waits."""
        lab = of_lab(self._digest)
        workers = self._link.workers()
        for worker in workers:
            if lab not in worker["resources"]:
                self._progress.say_once(another_lab(str(worker["name"])))
        needed = {lab, KVM} if self._kvm else {lab}
        found = sum(int(each["nthreads"]) for each in workers if needed <= each["resources"].keys())
        if not found:
            what = "this lab and KVM" if self._kvm else "this lab"
            self._progress.say_once(f"no worker at {self._link.scheduler} has {what}: waiting")
        return max(1, found)

    def carry(self, order: Order) -> Future[Outcome]:
        self._carried.add(order.night)
        return self._threads.submit(self._carry, order)

    def _carry(self, order: Order) -> Outcome:
        try:
            errand = self._errand(order)
        except LabError as error:
            return Outcome(order, str(error))
        with suppress(CancelledError):
            while not self._stopped.is_set():
                try:
                    if card := self._known(errand.card) or self._asked(errand):
                        return self._gathered(order, card)
                except InfrastructureError as error:
                    self._progress.say_once(f"{order.cell}: {error}; once more")
                self._stopped.wait(_AGAIN)
        return self._cut(errand)

    def _errand(self, order: Order) -> Errand:
        """One for this order. Raises CancelledError once nobody waits for it, and LabError for what
        would be no other the next time."""
        while not self._stopped.is_set():
            try:
                return self._asking.errand(order)
            except Stopped:
                break
            except StoreLost as error:
                self._progress.say_once(f"{order.cell}: {error}; once more")
            self._stopped.wait(_AGAIN)
        raise CancelledError

    def _cut(self, errand: Errand) -> Outcome:
        """What a run had found when the night's time was up. Raises CancelledError where that is
        nothing, or where the night goes on: then it is run anew."""
        if not self._is_over:
            raise CancelledError
        deadline = Deadline.after(_PATIENCE)
        try:
            while self._store.names(errand.tries) and not deadline.passed:
                time.sleep(_AGAIN)  # a worker ends it just now
            if card := self._known(errand.card) or self._known(errand.cut):
                return self._gathered(errand.order, card)
        except LabError as error:
            self._progress.say(f"{errand.order.cell}: what it found is lost: {error}")
        raise CancelledError

    def _known(self, name: str) -> Card | None:
        """The card of that name, where the store has one."""
        found = self._store.read(name)
        return Card.from_json(found) if found else None

    def _forget(self, night: str) -> None:
        """All that its cells left goes from the store; kernels and images stay there."""
        cells = f"nights/{night}/cells"
        try:
            for name in self._store.names(cells):
                card = self._known(f"{cells}/{name}") if name.endswith(".json") else None
                if card and card.parcel:
                    self._store.remove(card.parcel.name)
            self._store.remove(f"nights/{night}")
        except LabError as error:  # it has all been gathered
            self._progress.say(f"what {night} left in the store stays there: {error}")

    def _asked(self, errand: Errand) -> Card | None:
        """What a worker answers; None where it was lost, and is to be asked again."""
        cell = errand.order.cell
        said = self._link.ask(
            carry_out,
            errand.to_json(),
            key=f"{errand.order.night}-{errand.order.name}-{uuid.uuid4().hex}",
            resources=self._needs(errand),
        )
        answer = Answer.from_json(said) if said else Answer()
        for words in filter(None, (answer.refused, answer.failed)):
            self._progress.say(f"{cell}: {words}; once more")
        return answer.card

    def _needs(self, errand: Errand) -> Mapping[str, float]:
        """What a worker must have left."""
        kvm = {KVM: 1.0} if self._kvm else {}
        return {MEMORY: float(errand.order.memory), of_lab(errand.digest): 1.0, **kvm}

    def _gathered(self, order: Order, card: Card) -> Outcome:
        """Put what a run left where it would be, had it run here."""
        if card.parcel is None:
            return Outcome(order, card.trouble, card.where)
        night = self._nights / order.night
        run = night / CELLS / order.name
        try:
            with tempfile.TemporaryDirectory(dir=night, prefix=".") as name:
                draft = Path(name)
                receive(self._store, card.parcel, draft)
                self._move_in(RunFolder(draft / run.name), card)
                for each in (run.with_name(f"{run.name}.log"), run):
                    (draft / each.name).replace(each)
        except OSError as error:
            raise InfrastructureError(
                f"what it left cannot be put into its place: {error}"
            ) from error
        return Outcome(order, where=card.where)

    def _move_in(self, run: RunFolder, card: Card) -> None:
        """Have its replay.sh say what is here, and its kernel be here: tomorrow's night asks for
        it, and whoever repeats a test."""
        cache = self._asking.cache()
        try:
            known = run.read_replay()
        except ConfigurationError:
            return  # it had no kernel yet
        if card.kernel:
            cache.fetch(card.kernel)
        run.write_replay(
            known.moved(
                lab=self._lab.root,
                package=Path(package.__file__).parents[1],
                python=Path(sys.executable),
                cache=cache.root.absolute(),
            )
        )
