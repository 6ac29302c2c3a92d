# SPDX-License-Identifier: GPL-2.0-only
"""The pool: what is expected starts meanwhile, what nobody wants ends, and nothing is left."""

import threading
import time
from collections.abc import Callable

import pytest

from lab.pool import Pool

_LONG = 10.0


class Thing:
    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = threading.Event()


class Shop:
    """Starts and ends things, and remembers all of them."""

    def __init__(self) -> None:
        self.made: list[Thing] = []
        self.may_start = threading.Event()
        self.may_start.set()
        self.may_end = threading.Event()
        self.may_end.set()
        self.fails = ""
        self.unused: list[str] = []
        self.pool = Pool(self._start, self._end, self._look)

    def _start(self, name: str) -> Thing:
        assert self.may_start.wait(_LONG)
        if self.fails:
            raise OSError(self.fails)
        self.made.append(Thing(name))
        return self.made[-1]

    def _look(self, thing: Thing) -> None:
        assert not thing.ended.is_set()
        self.unused.append(thing.name)

    def _end(self, thing: Thing) -> None:
        assert self.may_end.wait(_LONG)
        thing.ended.set()

    def names(self) -> list[str]:
        return [thing.name for thing in self.made]


@pytest.fixture
def shop() -> Shop:
    return Shop()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + _LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_is_expected_is_there_when_it_is_asked_for(shop: Shop) -> None:
    shop.pool.expect("a")
    until(lambda: shop.made)
    shop.may_start.clear()  # nothing can start any more
    taken = shop.pool.take("a")
    assert taken is shop.made[0]
    assert shop.pool.expected is None
    assert shop.pool.close(shop.may_start.set) == []
    assert shop.names() == ["a"]
    assert not taken.ended.is_set()  # it is the taker's


def test_what_is_expected_twice_starts_once(shop: Shop) -> None:
    shop.pool.expect("a")
    shop.pool.expect("a")
    shop.pool.take("a")
    shop.pool.close(lambda: None)
    assert shop.names() == ["a"]


def test_another_expectation_ends_the_first(shop: Shop) -> None:
    shop.may_start.clear()
    shop.pool.expect("a")
    shop.pool.expect("b")
    shop.may_start.set()
    assert shop.pool.take("b").name == "b"
    until(lambda: len(shop.made) == 2)
    (first,) = (thing for thing in shop.made if thing.name == "a")
    assert first.ended.wait(_LONG)


def test_what_was_not_expected_starts_then(shop: Shop) -> None:
    shop.pool.expect("a")
    assert shop.pool.take("b").name == "b"
    shop.pool.close(lambda: None)
    assert all(thing.ended.is_set() is (thing.name == "a") for thing in shop.made)


def test_what_nobody_took_is_looked_at_before_it_ends(shop: Shop) -> None:
    shop.pool.take("a")
    shop.pool.expect("b")
    shop.pool.expect("c")  # that is who stands ready at the end
    until(lambda: shop.names() == ["a", "b", "c"] or shop.names() == ["a", "c", "b"])
    until(lambda: shop.pool._coming and shop.pool._coming.done())  # noqa: SLF001
    until(lambda: shop.unused == ["b"])
    assert shop.pool.close(lambda: shop.unused.append("hurry")) == []
    assert shop.unused == ["b", "c", "hurry"]


def test_a_start_that_the_close_overtook_is_not_looked_at(shop: Shop) -> None:
    shop.may_start.clear()
    shop.pool.expect("a")
    assert shop.pool.close(shop.may_start.set) == []
    assert shop.made[0].ended.is_set()
    assert shop.unused == []


def test_nobody_waits_for_an_end(shop: Shop) -> None:
    thing = shop.pool.take("a")
    shop.may_end.clear()
    shop.pool.give_back(thing)
    assert shop.pool.take("a") is not thing
    assert not thing.ended.is_set()
    shop.pool.close(shop.may_end.set)
    assert thing.ended.is_set()


def test_a_failed_start_is_told_to_who_asks_and_the_next_one_is_tried(shop: Shop) -> None:
    shop.fails = "no room"
    shop.pool.expect("a")
    with pytest.raises(OSError, match="no room"):
        shop.pool.take("a")
    shop.fails = ""
    assert shop.pool.take("a").name == "a"
    assert shop.pool.close(lambda: None) == []


def test_a_failed_start_that_nobody_asked_for_is_told_at_the_end(shop: Shop) -> None:
    shop.fails = "no room"
    shop.pool.expect("a")
    until(lambda: shop.pool._coming and shop.pool._coming.done())  # noqa: SLF001
    (failure,) = shop.pool.close(lambda: None)
    assert str(failure) == "no room"


def test_a_failed_start_that_nobody_wants_any_more_is_told_at_the_end(shop: Shop) -> None:
    shop.fails = "no room"
    shop.pool.expect("a")
    until(lambda: shop.pool._coming and shop.pool._coming.done())  # noqa: SLF001
    shop.fails = ""
    shop.pool.expect("b")
    shop.pool.take("b")
    shop.pool.expect(None)
    until(lambda: all(each.done() for each in shop.pool._ending))  # noqa: SLF001
    (failure,) = shop.pool.close(lambda: None)
    assert str(failure) == "no room"


def test_a_start_that_the_close_itself_hindered_is_no_failure(shop: Shop) -> None:
    shop.may_start.clear()
    shop.pool.expect("a")
    shop.pool.expect("b")

    def hurry() -> None:
        shop.fails = "the lab is shutting down"
        shop.may_start.set()

    assert shop.pool.close(hurry) == []
    assert shop.made == []


def test_an_end_that_fails_is_told() -> None:
    def break_down(thing: Thing) -> None:
        raise OSError(f"{thing.name} does not end")

    pool = Pool(Thing, break_down, lambda _: None)
    pool.give_back(pool.take("a"))
    assert [str(each) for each in pool.close(lambda: None)] == ["a does not end"]
