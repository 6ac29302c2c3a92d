# SPDX-License-Identifier: GPL-2.0-only
"""What takes long is made once: by one of those who want it, and by the next where it died."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.errors import BuildError
from lab.fleet.claim import Claims
from lab.fleet.store import Store

NAME = "kernel/key.json"


@pytest.fixture
def claims(store: Store) -> Claims:
    return Claims(store, beat=0.05)


def test_of_many_that_want_it_one_makes_it(claims: Claims) -> None:
    made: list[str] = []
    ready = threading.Barrier(6)

    def make() -> Mapping[str, Any]:
        made.append(threading.current_thread().name)
        threading.Event().wait(1.0)  # many beats: who waits sees that it lives
        return {"by": made[-1]}

    def ask(_: int) -> dict[str, Any]:
        ready.wait()
        return claims.once(NAME, make)

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(ask, range(6)))
    assert len(made) == 1
    assert found == [{"by": made[0]}] * 6
    assert claims.store.names("claims") == []


def test_what_is_there_is_not_made(claims: Claims) -> None:
    claims.store.write(NAME, {"of": "another night"})
    assert claims.once(NAME, _never) == {"of": "another night"}


def test_a_claim_of_the_dead_is_overtaken(claims: Claims) -> None:
    claims.store.write("claims/kernel-key.0", {"by": "the dead", "beat": 7})
    waited: list[str] = []
    claims = Claims(claims.store, beat=0.05, on_wait=waited.append)
    assert claims.once(NAME, lambda: {"by": "us"}) == {"by": "us"}
    assert waited == ["the dead makes kernel/key.json: waiting"]
    assert claims.store.names("claims") == []


def test_who_waits_can_be_ended(claims: Claims) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    claims.store.write("claims/kernel-key.0", {"by": "another", "beat": 1})
    with pytest.raises(KeyboardInterrupt):
        Claims(claims.store, pause=stop).once(NAME, _never)


def test_of_two_that_overtake_one_makes_it(claims: Claims) -> None:
    claims.store.write("claims/kernel-key.0", {"by": "the dead", "beat": 7})
    made: list[int] = []

    def make() -> Mapping[str, Any]:
        made.append(1)
        threading.Event().wait(0.8)
        return {}

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: claims.once("kernel/key.json", make), range(3)))
    assert made == [1]


def test_where_making_fails_the_next_tries(claims: Claims) -> None:
    def fail() -> Mapping[str, Any]:
        raise BuildError("it does not compile")

    with pytest.raises(BuildError):
        claims.once(NAME, fail)
    assert claims.once(NAME, lambda: {"by": "the next"}) == {"by": "the next"}


def test_who_was_taken_for_dead_takes_what_the_other_made(claims: Claims) -> None:
    def slowly() -> Mapping[str, Any]:
        claims.store.write(NAME, {"by": "the other"})
        return {"by": "us"}

    assert claims.once(NAME, slowly) == {"by": "the other"}


def _never() -> Mapping[str, Any]:
    raise AssertionError("it is there")
