# SPDX-License-Identifier: GPL-2.0-only
"""What is known of a test does not outlive it, though pytest keeps the test itself to the end."""

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from lab.plugin import verdicts
from lab.plugin.items import SUITE
from lab.plugin.options import SESSION
from lab.watch import Watch


def _watches() -> int:
    gc.collect()
    return sum(isinstance(each, Watch) for each in gc.get_objects())


@pytest.fixture
def item() -> Any:
    """A test that needs no guest."""
    config = SimpleNamespace(stash=pytest.Stash())
    config.stash[SESSION] = SimpleNamespace(machine_name="vtd", cell=None)
    found = SimpleNamespace(
        config=config, stash=pytest.Stash(), nodeid="test_x", get_closest_marker=lambda _: None
    )
    found.stash[SUITE] = "contract"
    return found


def test_watch_is_there_as_long_as_its_test(item: Any) -> None:
    protocol = verdicts.pytest_runtest_protocol(item, None)
    before = _watches()
    next(protocol)
    assert _watches() == before + 1
    with pytest.raises(StopIteration):
        protocol.send(True)
    assert _watches() == before


def test_watch_of_a_test_that_is_interrupted_goes_too(item: Any) -> None:
    protocol = verdicts.pytest_runtest_protocol(item, None)
    before = _watches()
    next(protocol)
    with pytest.raises(KeyboardInterrupt):
        protocol.throw(KeyboardInterrupt())
    assert _watches() == before
