# SPDX-License-Identifier: GPL-2.0-only
"""Caches with a store behind them: what one has made the others fetch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.cache import Cache
from lab.errors import ConfigurationError, InfrastructureError
from lab.fleet.claim import Claims
from lab.fleet.shared import Artefact, SharedCache
from lab.fleet.store import Store

NewCache = Callable[[str], SharedCache]

INPUTS = {"of": "a kernel"}


def fill(folder: Path) -> Mapping[str, Any]:
    (folder / "bzImage").write_text("bits")
    return {"name": "v6.12"}


def refuse(_folder: Path) -> Mapping[str, Any]:
    raise AssertionError("another machine has made it")


def test_a_kernel_is_made_once_in_a_fleet(new_cache: NewCache) -> None:
    first = new_cache("first").make("kernel", INPUTS, fill)
    second = new_cache("second").make("kernel", INPUTS, refuse)
    assert second.path != first.path
    assert (second.path / "bzImage").read_text() == "bits"
    assert second.provenance == first.provenance


def test_one_that_was_made_before_there_was_a_fleet_is_shared(
    new_cache: NewCache, tmp_path: Path
) -> None:
    Cache(tmp_path / "first").make("kernel", INPUTS, fill)
    new_cache("first").make("kernel", INPUTS, refuse)
    assert new_cache("second").make("kernel", INPUTS, refuse)


def test_what_takes_no_time_is_made_where_it_is_needed(new_cache: NewCache, store: Store) -> None:
    new_cache("first").make("headers", INPUTS, fill)
    new_cache("second").make("headers", INPUTS, fill)
    assert not store.has("headers")


def test_an_artefact_of_another_key_is_not_kept(new_cache: NewCache) -> None:
    first = new_cache("first")
    shared = first.share(first.make("image", INPUTS, fill))
    lie = Artefact(shared.kind, "0" * 24, shared.parcel)
    with pytest.raises(InfrastructureError, match="is another entry"):
        new_cache("second").fetch(lie)
    assert new_cache("second").entries() == []


@pytest.mark.parametrize("key", ["../../etc", "", "0" * 23])
def test_a_key_is_no_path(key: str) -> None:
    said = {"kind": "kernel", "key": key, "parcel": {"sha256": "0" * 64, "size": 1}}
    with pytest.raises(ConfigurationError, match="key"):
        Artefact.from_json(said)


def test_what_was_looked_up_travels_and_toolchains_do_not(store: Store, tmp_path: Path) -> None:
    here = SharedCache(tmp_path / "here", Claims(store))
    here.remember("package", {"named": "linux-source-6.12"}, {"version": "6.12.57"})
    here.remember("toolchain", {"gcc": 1}, {"compiler": "gcc"})
    there = SharedCache(tmp_path / "there", Claims(store), here.facts)
    there.remember("package", {"named": "other"}, {"version": "1"})
    assert there.recall("package", {"named": "linux-source-6.12"}) == {"version": "6.12.57"}
    assert there.recall("toolchain", {"gcc": 1}) is None


def test_what_was_known_before_is_told_once_it_is_asked_for(store: Store, tmp_path: Path) -> None:
    Cache(tmp_path / "here").remember("parts", {"deb": "linux"}, {"packages": []})
    here = SharedCache(tmp_path / "here", Claims(store))
    assert not here.facts
    here.recall("parts", {"deb": "linux"})
    assert list(here.facts.values()) == [{"packages": []}]
