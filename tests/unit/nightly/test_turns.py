# SPDX-License-Identifier: GPL-2.0-only
"""Whose turn it is: what has changed, then what takes the longest."""

from pathlib import Path

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.history.model import CellKey, CellRun
from lab.history.store import History
from lab.kernel import Kernel, State
from lab.nightly import turns
from tests.unit.nightly.conftest import BUGS, CONTRACT, NEXT, a_run

NARROW = CellKey("v6.12", "narrow", "contract")


def kernel(key: str) -> Kernel:
    return Kernel("v6.12", Path("bzImage"), None, None, None, "6.12.57", None, key, {})


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What is built of each kernel."""
    built: dict[str, str | None] = {"v6.12": "bits", "next": "newer"}

    def look(spec: str, lab: Lab, cache: Cache) -> State:
        del lab, cache
        key = built[spec]
        return State(spec, kernel(key) if key else None)

    monkeypatch.setattr(turns, "look", look)
    return built


def ran(
    history: History, cell: CellKey, seconds: float, *, key: str = "bits", status: int = 0
) -> None:
    folder = f"night/cells/{cell}"
    night = "20261127T210000Z"
    run = CellRun(night, cell, 0, folder, "", seconds, status, kernel_key=key, lab="1")
    history.add(run, a_run(cell=cell))


def order(
    lab: Lab, history: History, *cells: CellKey, version: str = "1"
) -> list[tuple[str, bool]]:
    planned = turns.plan(cells, {}, lab, Cache.of_user(), history, version)
    return [(str(each.cell), each.changed) for each in planned]


@pytest.mark.usefixtures("keys")
def test_what_has_changed_comes_first_and_then_the_longest(lab: Lab, history: History) -> None:
    ran(history, CONTRACT, 10.0)
    ran(history, NARROW, 20.0)
    ran(history, NEXT, 5.0)  # its kernel is another one tonight
    assert order(lab, history, CONTRACT, NARROW, NEXT, BUGS) == [
        (str(BUGS), True),
        (str(NEXT), True),
        (str(NARROW), False),
        (str(CONTRACT), False),
    ]


@pytest.mark.usefixtures("keys")
def test_other_tests_make_every_cell_another(lab: Lab, history: History) -> None:
    ran(history, CONTRACT, 10.0)
    assert order(lab, history, CONTRACT) == [(str(CONTRACT), False)]
    assert order(lab, history, CONTRACT, version="2") == [(str(CONTRACT), True)]


def test_a_kernel_that_has_to_be_built_has_changed(
    lab: Lab, history: History, keys: dict[str, str | None]
) -> None:
    ran(history, CONTRACT, 10.0)
    keys["v6.12"] = None
    assert order(lab, history, CONTRACT) == [(str(CONTRACT), True)]


@pytest.mark.usefixtures("keys")
def test_what_came_to_no_end_is_not_left_to_the_next_night_s_end(
    lab: Lab, history: History
) -> None:
    """It would be cut there each night: what it took is less than it takes."""
    ran(history, CONTRACT, 10.0, status=2)
    ran(history, NARROW, 20.0, status=1)
    assert order(lab, history, NARROW, CONTRACT) == [(str(CONTRACT), True), (str(NARROW), False)]
