# SPDX-License-Identifier: GPL-2.0-only
"""What a coordinator sends along, and what it leaves to workers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.agent import install
from lab.cache import Cache
from lab.config import Lab
from lab.errors import BuildError, LabError
from lab.fleet import asking
from lab.fleet.asking import Asking, Stopped
from lab.fleet.errand import Answer, Card, Errand
from lab.fleet.store import Store
from lab.image.prepare import Image
from lab.kernel.prepare import State
from lab.kernel.source import GitIdentity
from lab.progress import Progress

_FACT = {"package": "linux-source-6.12", "version": "6.12.57"}


@pytest.fixture
def cache(lab: Lab) -> Cache:
    assert lab
    return Cache.of_user()


@pytest.fixture
def ours(
    lab: Lab, store: Store, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Asking:
    """A coordinator with an image and an agent."""

    def fill(folder: Path) -> Mapping[str, Any]:
        (folder / "file").write_text("bits")
        return {}

    image, agent = (cache.make(kind, {"of": kind}, fill) for kind in ("image", "agent"))
    made = Image("minimal", image.path / "initramfs", image.key, {})
    monkeypatch.setattr(asking, "prepare_image", lambda *_: made)
    monkeypatch.setattr(install, "binary", lambda _: agent.path / "agent")
    return Asking(lab, "digest", store.url, tmp_path, Progress(quiet=True), lambda: True)


def _looked_up(spec: str, _lab: Lab, cache: Cache) -> State:
    """A package whose kernel nobody has built."""
    cache.remember("package", {"spec": spec}, _FACT)
    return State("linux-source-6.12 6.12.57", None)


def test_image_and_agent_are_the_coordinators(
    ours: Asking, errand: Errand, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "look", _looked_up)
    sent = ours.errand(errand.order)
    for artefact in (sent.image, sent.agent):
        assert store.has(artefact.parcel.name)
    assert (sent.image.kind, sent.agent.kind) == ("image", "agent")
    assert sent.digest == "digest"


def test_a_kernel_of_a_package_is_left_to_workers_with_what_is_known_of_it(
    ours: Asking, errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "look", _looked_up)
    sent = ours.errand(errand.order)
    assert sent.kernel is None
    assert list(sent.facts.values()) == [_FACT]


@pytest.fixture
def of_git(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is a commit of a tree that this machine alone has."""
    source = GitIdentity(cache, Progress(quiet=True), Path("/linux"), "HEAD", "0" * 40)
    monkeypatch.setattr(asking, "look", _looked_up)
    monkeypatch.setattr(asking, "source_of", lambda *_, **__: source)


@pytest.mark.usefixtures("of_git")
def test_a_kernel_of_a_tree_is_made_here(
    ours: Asking, errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def answer(sent: Errand, _lab: Lab, _place: Path, words: object, _wanted: object) -> Answer:
        asked.append(words)
        return Answer(Card("", kernel=sent.image))

    monkeypatch.setattr(asking, "asked", answer)
    sent = ours.errand(errand.order)
    assert asked == [("--make",)]
    assert sent.kernel == sent.image


@pytest.mark.usefixtures("of_git")
def test_one_that_does_not_compile_here_says_so(
    ours: Asking, errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Answer(failed=str(BuildError("next: it does not compile")))
    monkeypatch.setattr(asking, "asked", lambda *_: failed)
    with pytest.raises(LabError, match="next: it does not compile"):
        ours.errand(errand.order)


@pytest.mark.usefixtures("of_git")
def test_one_that_nobody_waits_for_any_more_is_ended(
    ours: Asking, errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "asked", lambda *_: None)
    with pytest.raises(Stopped):
        ours.errand(errand.order)
