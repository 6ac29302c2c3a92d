# SPDX-License-Identifier: GPL-2.0-only
"""What a coordinator makes of what workers leave in the store."""

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("distributed", reason="needs the extra `fleet`")

from lab.config import Lab
from lab.errors import InfrastructureError
from lab.fleet import fleet as module
from lab.fleet.asking import Asking
from lab.fleet.errand import Answer, Card, Errand
from lab.fleet.fleet import Fleet
from lab.fleet.parcel import send
from lab.fleet.resources import KVM, of_lab
from lab.fleet.store import Store, StoreLost
from lab.nightly.carrier import CELLS
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.record import RunRecord


class Worker:
    """In place of a link to a scheduler: does what it is told to, or waits to be cancelled."""

    def __init__(self) -> None:
        self.stopped = Event()
        self.asked = Event()
        self.says: Answer | None = None
        self.when_cancelled: Callable[[], object] = lambda: None

        self.scheduler = "tcp://host:1"
        self.offers: Sequence[Mapping[str, float]] = ()

    def reach(self) -> None:
        pass

    def workers(self) -> Sequence[Mapping[str, Any]]:
        return [{"name": "one", "nthreads": 4, "resources": each} for each in self.offers]

    def close(self) -> None:
        pass

    def ask(self, *_: object, **__: object) -> Mapping[str, Any]:
        self.asked.set()
        if self.says:
            return self.says.to_json()
        self.stopped.wait()
        self.when_cancelled()
        raise CancelledError


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker()

    def link(_scheduler: str, stopped: Event, _progress: Progress) -> Worker:
        worker.stopped = stopped
        return worker

    monkeypatch.setattr(module, "Link", link)
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    return worker


@pytest.fixture
def fleet(
    worker: Worker,
    lab: Lab,
    errand: Errand,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> Fleet:
    assert worker
    monkeypatch.setattr(Asking, "errand", lambda *_: errand)
    nights = tmp_path / "nights"
    (nights / errand.order.night / CELLS).mkdir(parents=True)
    return Fleet("tcp://host:1", errand.store, lab=lab, nights=nights, progress=progress)


@pytest.fixture
def run(errand: Errand, tmp_path: Path) -> RunFolder:
    """Where it is to be in the end."""
    return RunFolder(tmp_path / "nights" / errand.order.night / CELLS / errand.order.name)


@pytest.fixture
def card(errand: Errand, store: Store, tmp_path: Path) -> Card:
    """Of a run that was ended."""
    cells = tmp_path / "there"
    out = RunFolder.create(cells / errand.order.name)
    out.write(RunRecord("1", "", 1.0, finished=False))
    (cells / f"{errand.order.name}.log").write_text("it said")
    return Card("host", parcel=send(store, cells))


def test_where_kvm_is_wanted_only_who_has_it_counts(
    worker: Worker, lab: Lab, errand: Errand, tmp_path: Path
) -> None:
    said = io.StringIO()
    progress = Progress(Console(file=said, width=200))
    fleet = Fleet(
        "tcp://host:1", errand.store, lab=lab, nights=tmp_path, progress=progress, kvm=True
    )
    own = of_lab(errand.digest)
    worker.offers = [{own: 4.0}, {"lab-of-another": 4.0, KVM: 4.0}]
    assert fleet.places == 1
    assert "no worker at tcp://host:1 has this lab and KVM: waiting" in said.getvalue()
    worker.offers = [*worker.offers, {own: 4.0, KVM: 4.0}]
    assert fleet.places == 4


def test_what_was_found_until_the_night_s_end_is_gathered(
    fleet: Fleet, worker: Worker, errand: Errand, store: Store, card: Card, run: RunFolder
) -> None:
    mark = f"{errand.tries}/1.json"
    store.write(mark, {})

    def end() -> None:
        store.write(errand.cut, card.to_json())
        store.remove(mark)

    worker.when_cancelled = end
    with fleet:
        future = fleet.carry(errand.order)
        assert worker.asked.wait(10)
    assert future.result(0).where == "host"
    assert not run.read().finished
    assert run.path.with_name(f"{run.path.name}.log").read_text() == "it said"


def test_what_an_interruption_cuts_is_run_anew(
    fleet: Fleet, worker: Worker, errand: Errand, store: Store, card: Card, run: RunFolder
) -> None:
    worker.when_cancelled = lambda: store.write(errand.cut, card.to_json())
    with suppress(KeyboardInterrupt), fleet:
        future = fleet.carry(errand.order)
        assert worker.asked.wait(10)
        raise KeyboardInterrupt
    with pytest.raises(CancelledError):
        future.result(0)
    assert not run.path.exists()


def test_a_worker_that_is_gone_is_not_waited_for_long(
    fleet: Fleet, worker: Worker, errand: Errand, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    store.write(f"{errand.tries}/1.json", {})  # it died in it
    with fleet:
        future = fleet.carry(errand.order)
        assert worker.asked.wait(10)
    with pytest.raises(CancelledError):
        future.result(0)


def test_evidence_leaves_the_store_with_the_night(
    fleet: Fleet, worker: Worker, errand: Errand, store: Store, card: Card
) -> None:
    store.write(errand.card, card.to_json())
    store.write(f"{errand.tries}/1.json", {})
    store.write("parcels/of-a-kernel.tar.gz", {})
    assert worker
    with fleet:
        fleet.carry(errand.order).result(10)
    assert store.names("nights") == []
    assert store.names("parcels") == ["of-a-kernel.tar.gz"]


def test_a_store_that_is_gone_by_then_costs_nothing(
    fleet: Fleet, worker: Worker, errand: Errand, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise InfrastructureError("the store is gone")

    worker.says = Answer(card)
    with fleet:
        outcome = fleet.carry(errand.order).result(10)
        monkeypatch.setattr(Store, "remove", fail)
    assert not outcome.trouble


def test_what_could_not_be_gathered_at_once_is_gathered_again(
    fleet: Fleet,
    worker: Worker,
    errand: Errand,
    card: Card,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times: list[int] = []

    def once(*_: object) -> None:
        times.append(1)
        if len(times) == 1:
            raise InfrastructureError("the kernel cannot be fetched")

    worker.says = Answer(card)
    monkeypatch.setattr(Fleet, "_move_in", once)
    with fleet:
        assert not fleet.carry(errand.order).result(10).trouble
    assert len(times) == 2
    assert run.read().version == "1"


def test_a_store_that_is_away_for_a_moment_costs_no_cell(
    fleet: Fleet, worker: Worker, errand: Errand, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Errand | StoreLost] = [errand, StoreLost("the store: timed out")]

    def asked(*_: object) -> Errand:
        answer = answers.pop()
        if isinstance(answer, StoreLost):
            raise answer
        return answer

    worker.says = Answer(card)
    monkeypatch.setattr(Asking, "errand", asked)
    with fleet:
        assert not fleet.carry(errand.order).result(10).trouble
    assert answers == []


def test_what_no_store_is_to_blame_for_fails_the_cell(
    fleet: Fleet, worker: Worker, errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Errand:
        raise InfrastructureError("no space left on device")

    assert worker
    monkeypatch.setattr(Asking, "errand", fail)
    with fleet:
        assert fleet.carry(errand.order).result(10).trouble == "no space left on device"
