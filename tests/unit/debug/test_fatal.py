# SPDX-License-Identifier: GPL-2.0-only
"""An exception that will fail a test is told when it is raised, and no other one is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EBUSY, EINVAL
from pathlib import Path
from types import FrameType

import pytest

from lab.agent.errors import RemoteError
from lab.debug.fatal import Raised, told
from lab.testing import raises_errno

ROOTS = (Path(__file__).parent, Path(raises_errno.__code__.co_filename).parent)
_OPEN: list[str] = []


@contextmanager
def file(name: str) -> Iterator[str]:
    """Something that is put away when a `with` ends."""
    _OPEN.append(name)
    try:
        yield name
    finally:
        _OPEN.remove(name)


def fail(errno: int = EINVAL) -> None:
    raise RemoteError(errno, "ioctl")


def told_of(test: Callable[[], None]) -> list[tuple[str, list[str]]]:
    """What is told while `test` runs: the exceptions, and what was open at each."""
    found: list[tuple[str, list[str]]] = []

    def tell(frame: FrameType, raised: Raised) -> None:
        assert frame
        found.append((raised[0].__name__, [*_OPEN]))

    with suppress(BaseException), told(test.__code__, ROOTS, tell):
        test()
    assert not _OPEN
    return found


def test_a_failed_assertion_with_its_files_open() -> None:
    def test() -> None:
        with file("a"), file("b"):
            assert not _OPEN

    assert told_of(test) == [("AssertionError", ["a", "b"])]


def test_what_a_helper_raises_with_its_own_files_open() -> None:
    def helper() -> None:
        with file("inner"):
            fail()

    def test() -> None:
        with file("outer"):
            helper()

    assert told_of(test) == [("RemoteError", ["outer", "inner"])]


def test_what_is_expected_is_not_told() -> None:
    def test() -> None:
        with raises_errno(EINVAL):
            fail()
        with file("a"), pytest.raises(RemoteError):
            fail()
        with suppress(OSError, RemoteError):
            fail()
        try:  # noqa: SIM105
            fail()
        except RemoteError:
            pass
        try:  # noqa: SIM105
            fail()
        except:  # noqa: E722
            pass

    assert told_of(test) == []


def test_another_than_the_expected_one_is() -> None:
    def wrong_errno() -> None:
        with file("a"), raises_errno(EBUSY):
            fail()

    def wrong_type() -> None:
        with file("a"), pytest.raises(ValueError, match="never"):
            fail()

    def handler_of_another() -> None:
        with file("a"):
            try:  # noqa: SIM105
                fail()
            except KeyError:
                pass

    assert told_of(wrong_errno) == [("Failed", ["a"])]
    assert told_of(wrong_type) == [("RemoteError", ["a"])]
    assert told_of(handler_of_another) == [("RemoteError", ["a"])]


def test_none_was_raised_where_one_was_expected() -> None:
    def test() -> None:
        with file("a"), raises_errno(EBUSY):
            pass

    assert told_of(test) == [("Failed", ["a"])]


def test_a_handler_takes_nothing_of_its_own_body() -> None:
    def test() -> None:
        with file("a"):
            try:
                fail()
            except RemoteError:
                fail(EBUSY)

    assert told_of(test) == [("RemoteError", ["a"])]


def test_a_handler_that_only_puts_away_takes_nothing() -> None:
    def test() -> None:
        with file("a"):
            try:
                fail()
            except RemoteError:
                _OPEN.sort()
                raise

    assert told_of(test) == [("RemoteError", ["a"])]


def test_a_handler_that_knows_another_way_out_may_take_it() -> None:
    """What it does not take is told when it comes to its caller."""

    def asked(errno: int) -> str | None:
        try:
            fail(errno)
        except RemoteError as error:
            if error.errno == EINVAL:
                return None
            raise
        return "it succeeded"

    def takes_it() -> None:
        with file("a"):
            asked(EINVAL)

    def lets_it_go() -> None:
        with file("a"):
            asked(EBUSY)

    assert told_of(takes_it) == []
    assert told_of(lets_it_go) == [("RemoteError", ["a"])]


def test_the_item_of_a_with_is_not_yet_around_itself() -> None:
    def opening() -> Iterator[None]:
        fail()
        yield

    def test() -> None:
        with (
            file("a"),
            contextmanager(opening)(),
            raises_errno(EINVAL),
        ):
            pass

    assert told_of(test) == [("RemoteError", ["a"])]


def test_what_is_made_another_is_told_as_that() -> None:
    class Channel:
        @contextmanager
        def use(self) -> Iterator[None]:
            try:
                yield
            except EOFError as error:
                raise RemoteError(EINVAL, "died") from error

    def test() -> None:
        with file("a"), Channel().use():
            raise EOFError

    assert told_of(test) == [("RemoteError", ["a"])]


def test_iteration_that_ends_is_no_failure() -> None:
    def test() -> None:
        for _ in iter([1, 2]):
            pass
        next(iter([]), None)

    assert told_of(test) == []
