# SPDX-License-Identifier: GPL-2.0-only
"""A plugin of pytest for `vfio-lab bench pool`: every so many tests the guest is killed."""

from collections.abc import Generator

import pytest

from lab.plugin.items import SUITE
from lab.plugin.options import SESSION

EVERY = 20  # tests
_CALLED = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        stash = item.config.stash
        stash[_CALLED] = stash.get(_CALLED, 0) + (SUITE in item.stash)
        cell = stash[SESSION].cell if SUITE in item.stash else None
        if cell and cell.current and stash[_CALLED] % EVERY == 0:
            cell.current.guest.monitor.execute("quit")
