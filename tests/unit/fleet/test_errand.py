# SPDX-License-Identifier: GPL-2.0-only
"""What an errand runs is the same wherever that is, and it counts once."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.errors import BuildError
from lab.fleet import errand as module
from lab.fleet.claim import Claims
from lab.fleet.errand import (
    Card,
    Errand,
    Share,
    entry_of,
    lab_digest,
    mail_of,
    make_kernel,
    run_errand,
    settled,
)
from lab.fleet.parcel import Parcel, receive
from lab.fleet.shared import SharedCache
from lab.fleet.store import Store
from lab.kernel.kernel import Kernel
from lab.kernel.prebuilt import of_bzimage
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.record import RunRecord

_SHARE = Share("host", 4, 8 << 30)


@pytest.fixture
def bzimage(tmp_path: Path) -> Path:
    """A file with the header of one."""
    head = bytearray(0x1000)
    head[0x202:0x206] = b"HdrS"
    file = tmp_path / "mine" / "bzImage"
    file.parent.mkdir()
    file.write_bytes(head)
    (file.parent / "config").write_text("CONFIG_PCI=y\n")
    return file


def test_an_errand_is_the_same_on_the_other_side(errand: Errand) -> None:
    whole = replace(errand, facts={"package-1": {"version": "6.12"}}, series="From: \xe4\n")
    assert Errand.from_json(whole.to_json()) == whole


def test_another_lab_tests_nothing_for_us(
    lab: Lab, errand: Errand, tmp_path: Path, progress: Progress
) -> None:
    (lab.root / "kernels" / "fragments" / "boot.config").write_text("CONFIG_PCI=y\n")
    assert lab_digest(lab) != errand.digest
    answer = run_errand(errand, lab, _SHARE, tmp_path / "place", progress)
    assert answer.card is None
    assert "host: its lab in" in answer.refused
    assert "bring both to the same commit" in answer.refused


def test_what_does_not_compile_is_told_and_not_tried_elsewhere(
    lab: Lab, errand: Errand, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Kernel:
        raise BuildError("v6.12: it does not compile")

    monkeypatch.setattr(module, "prepare_kernel", fail)
    answer = run_errand(errand, lab, _SHARE, tmp_path / "place", progress)
    assert answer.card
    assert (answer.card.trouble, answer.card.where) == ("v6.12: it does not compile", "host")
    assert Store(errand.store).read(errand.card) == answer.card.to_json()


def test_trouble_of_a_host_is_no_verdict(
    lab: Lab, errand: Errand, tmp_path: Path, progress: Progress, store: Store
) -> None:
    there = replace(errand, kernel=errand.image)  # which the store does not have
    answer = run_errand(there, lab, _SHARE, tmp_path / "place", progress)
    assert answer.card is None
    assert "any more" in answer.failed
    assert store.read(errand.card) is None


def test_what_is_ended_leaves_what_it_has_found(
    lab: Lab,
    errand: Errand,
    store: Store,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same as a local cell; nobody takes it for all of the errand."""

    def ended(*, results: bool) -> Callable[..., AbstractContextManager[Mock]]:
        @contextmanager
        def run_of(_lab: Lab, out: Path, _words: object) -> Iterator[Mock]:
            try:
                yield Mock(**{"wait.side_effect": KeyboardInterrupt})
            finally:
                if results:
                    RunFolder.create(out).write(RunRecord("1", "", 1.0, finished=False))

        return run_of

    monkeypatch.setattr(SharedCache, "fetch", lambda *_: Mock(path=tmp_path))
    there, place = replace(errand, kernel=errand.image), tmp_path / "place"
    for results in (False, True):
        assert store.read(errand.cut) is None
        monkeypatch.setattr(module, "run_of", ended(results=results))
        with pytest.raises(KeyboardInterrupt):
            run_errand(there, lab, _SHARE, place, progress)
    assert store.read(errand.card) is None
    card = Card.from_json(store.read(errand.cut) or {})
    assert card.parcel
    receive(store, card.parcel, tmp_path / "back")
    assert not RunFolder(tmp_path / "back" / errand.order.name).read().finished


def test_what_is_ended_while_it_is_sent_is_sent(
    lab: Lab,
    errand: Errand,
    store: Store,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def run_of(_lab: Lab, out: Path, _words: object) -> Iterator[Mock]:
        RunFolder.create(out).write(RunRecord("1", "", 1.0))
        yield Mock()

    parcel = Parcel("1" * 64, 1)
    monkeypatch.setattr(SharedCache, "fetch", lambda *_: Mock(path=tmp_path))
    monkeypatch.setattr(module, "run_of", run_of)
    monkeypatch.setattr(module, "send", Mock(side_effect=[KeyboardInterrupt, parcel]))
    there = replace(errand, kernel=errand.image)
    with pytest.raises(KeyboardInterrupt):
        run_errand(there, lab, _SHARE, tmp_path / "place", progress)
    assert Card.from_json(store.read(errand.cut) or {}).parcel == parcel


def test_of_two_that_finish_the_same_one_the_first_counts(errand: Errand) -> None:
    first = Card("first", parcel=Parcel("1" * 64, 1))
    assert settled(errand, first) == first
    assert settled(errand, Card("second", parcel=Parcel("2" * 64, 1))) == first


def test_a_night_means_one_kernel_by_a_name(
    lab: Lab, errand: Errand, progress: Progress, bzimage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "prepare_kernel", lambda *_: of_bzimage("v6.12", bzimage))
    first = make_kernel(errand, lab, progress)
    bzimage.write_bytes(bzimage.read_bytes() + b"\0")  # as another compiler would make it
    assert make_kernel(errand, lab, progress) == first
    tomorrow = replace(errand, order=replace(errand.order, night="20261129T210000Z"))
    assert make_kernel(tomorrow, lab, progress) != first
    assert make_kernel(replace(errand, series="a patch"), lab, progress) != first


def test_a_kernel_that_was_built_elsewhere_is_the_same_from_the_store(
    store: Store, bzimage: Path, tmp_path: Path
) -> None:
    here, there = (SharedCache(tmp_path / name, Claims(store)) for name in ("here", "there"))
    kernel = of_bzimage("mine", bzimage)
    entry = there.fetch(here.share(entry_of(kernel, here)))
    again = of_bzimage("mine", entry.path / "bzImage")
    assert (again.key, again.name, again.release) == (kernel.key, kernel.name, kernel.release)
    assert again.config
    assert again.config.read_text() == "CONFIG_PCI=y\n"


def test_an_entry_of_another_cache_stays_what_it_is(
    store: Store, bzimage: Path, tmp_path: Path
) -> None:
    def fill(folder: Path) -> dict[str, object]:
        (folder / "bzImage").write_bytes(bzimage.read_bytes())
        return {"name": "v6.12", "fragments": {"kasan": "1"}, "release": "6.12", "build_id": "b"}

    theirs = Cache(tmp_path / "theirs").make("kernel", {"of": "a kernel"}, fill)
    kernel = of_bzimage("the path", theirs.path / "bzImage")
    ours = SharedCache(tmp_path / "ours", Claims(store))
    entry = entry_of(kernel, ours)
    assert (entry.key, entry.path.parents[1]) == (theirs.key, ours.root)
    again = of_bzimage("another path", entry.path / "bzImage")
    assert (again.name, again.fragments) == ("v6.12", ("kasan",))


def test_a_series_is_mail_byte_by_byte(errand: Errand) -> None:
    mail = bytes(range(256))
    order = replace(errand.order, series="series/fix.mbox")
    with mail_of(replace(errand, order=order, series=mail.decode("latin-1"))) as file:
        assert file
        assert (Path(file).name, Path(file).read_bytes()) == ("fix.mbox", mail)
    with mail_of(errand) as file:
        assert file is None


@pytest.mark.parametrize(
    ("cpus", "memory", "workers"), [(4, 64 << 30, 4), (4, 5 << 30, 1), (1, 64 << 30, 1), (4, 0, 1)]
)
def test_a_cell_has_workers_as_there_is_room(
    lab: Lab, cpus: int, memory: int, workers: int
) -> None:
    assert Share("host", cpus, memory).workers(lab, "vtd") == workers
