# SPDX-License-Identifier: GPL-2.0-only
"""How long the parts of a test may take.

| part              | seconds                                | who is at fault then            |
|-------------------|----------------------------------------|---------------------------------|
| a boot            | --boot-timeout                         | nobody that is known            |
| its fixtures      | two boots and a test's                 | the test                        |
| its own code      | mark `timeout`, --timeout, or 120      | the test, in a guest that lives |
| a call            | 30, or its own                         | the kernel, in one that lives   |
| its fixtures' end | 60                                     | the test                        |
| the look after it | 60                                     | the guest: it is lost           |

A kernel that is slower (a variant of it, `lab.config`) has as many times as long. Options and mark
are pytest-timeout's, but its own timer ends nothing here: it knows no parts, and its way to end a
test says that the rule is broken.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext

import pytest

from lab import deadline
from lab.guest.hang import ASKING
from lab.guest.vmcore import DUMPING
from lab.plugin.items import SUITE
from lab.plugin.options import SESSION

TEST = 120.0  # seconds
TEARDOWN = 60.0


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item) -> bool | None:
    return SUITE in item.stash or None


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool | None:
    return SUITE in item.stash or None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    boot: float = item.config.option.boot_timeout
    with _limit(item, "setting it up", more=2 * boot, asking=2 * (ASKING + DUMPING)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with _limit(item, "the test"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with _limit(item, "tearing it down", seconds=TEARDOWN):
        return (yield)


def pytest_enter_pdb() -> None:
    deadline.lift()


def _limit(
    item: pytest.Item,
    what: str,
    *,
    seconds: float | None = None,
    more: float = 0.0,
    asking: float = 0.0,
) -> AbstractContextManager[None]:
    run = item.config.stash.get(SESSION, None)
    own = _seconds_of(item)
    if not run or SUITE not in item.stash or own == 0 or item.config.option.usepdb:
        return nullcontext()
    slower = run.cell.variant.slower if run.cell else 1.0
    return deadline.limit(((seconds or own) + more) * slower + asking, what)


def _seconds_of(item: pytest.Item) -> float:
    """What a test's own code may take; 0 for as long as it wants."""
    if mark := item.get_closest_marker("timeout"):
        return float(mark.args[0] if mark.args else mark.kwargs["timeout"])
    asked = item.config.getoption("timeout", None)
    return TEST if asked is None else float(asked)
