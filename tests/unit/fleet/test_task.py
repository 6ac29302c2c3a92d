# SPDX-License-Identifier: GPL-2.0-only
"""A worker and an errand: what it is ended by, and when it is given up."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="needs the extra `fleet`")

from lab.config import Lab
from lab.fleet import task
from lab.fleet.errand import Answer, Card, Errand, Share
from lab.fleet.parcel import Parcel
from lab.fleet.resources import KVM, MEMORY, of_lab
from lab.fleet.store import Store
from lab.fleet.task import TRIES, Site
from lab.fleet.worker import Offer

_DONE = Answer(Card("host", parcel=Parcel("1" * 64, 1)))


class Host(Site):
    """One whose process of an errand says what it is told to."""

    says: Answer | BaseException | None = _DONE
    asked = 0


@pytest.fixture
def host(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(lab, tmp_path, Share("host", 1, 0))

    def asked(*_: object) -> Answer | None:
        host.asked += 1
        if isinstance(host.says, BaseException):
            raise host.says
        return host.says

    monkeypatch.setattr(task, "asked", asked)
    return host


@pytest.fixture
def marks(errand: Errand) -> Callable[[], list[str]]:
    """Those of workers that began it and did not come to an end."""
    return lambda: Store(errand.store).names(errand.card.removesuffix(".json") + ".tries")


def _yes() -> bool:
    return True


def test_what_comes_to_an_end_leaves_no_mark(
    host: Host, errand: Errand, marks: Callable[[], list[str]]
) -> None:
    assert host.carry_out(errand, _yes) == _DONE
    assert marks() == []


def test_what_nobody_waits_for_counts_as_no_try(
    host: Host, errand: Errand, marks: Callable[[], list[str]]
) -> None:
    host.says = None
    assert host.carry_out(errand, _yes) == Answer()
    assert marks() == []


def test_what_the_store_has_is_not_run(host: Host, errand: Errand) -> None:
    card = Card("another", parcel=Parcel("2" * 64, 1))
    Store(errand.store).write(errand.card, card.to_json())
    assert host.carry_out(errand, _yes) == Answer(card)
    assert host.asked == 0


def test_what_ends_three_workers_is_given_up(
    host: Host, errand: Errand, marks: Callable[[], list[str]]
) -> None:
    for death in (SystemExit(), Answer(failed="the disk is full"), SystemExit()):
        host.says = death
        if isinstance(death, SystemExit):
            with pytest.raises(SystemExit):
                host.carry_out(errand, _yes)
        else:
            host.carry_out(errand, _yes)
    assert len(marks()) == TRIES == host.asked
    host.says = _DONE
    answer = host.carry_out(errand, _yes)
    assert host.asked == TRIES
    assert answer.card
    assert answer.card.trouble.startswith("given up after 3 tries:\n")
    assert answer.card.trouble.count("host: the worker died in it") == 2
    assert "host: the disk is full" in answer.card.trouble
    assert Store(errand.store).read(errand.card) == answer.card.to_json()


def test_a_worker_whose_lab_has_changed_leaves(
    host: Host, errand: Errand, marks: Callable[[], list[str]]
) -> None:
    left: list[bool] = []
    host.leave = lambda: left.append(True)
    host.says = Answer(refused="another lab")
    assert host.carry_out(errand, _yes) == host.says
    assert left == [True]
    assert marks() == []


def test_a_host_sees_the_store_where_it_is_told_to(
    host: Host, errand: Errand, tmp_path: Path
) -> None:
    here = Store(f"file://{tmp_path}/here")
    here.write(errand.card, Card("another", "trouble").to_json())
    host.store = here.url
    assert host.carry_out(errand, _yes) == Answer(Card("another", "trouble"))


def test_an_offer_is_what_a_cell_can_ask_for() -> None:
    resources = Offer(memory=8 << 30, cpus=8, jobs=2, kvm=True).resources("0123456789abcdef0")
    assert resources == {MEMORY: 8 << 30, KVM: 2.0, of_lab("0123456789abcdef0"): 2.0}
    assert KVM not in Offer(8 << 30, 8, 2, kvm=False).resources("0" * 64)
    share = Offer(8 << 30, 8, 2, kvm=True).share
    assert (share.cpus, share.memory) == (4, 4 << 30)
