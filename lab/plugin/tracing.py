# SPDX-License-Identifier: GPL-2.0-only
"""`--ftrace`: what the kernel did during each test's own code, in `traces/` of the run's folder."""

from collections.abc import Generator

import pytest

from lab.debug.ftrace import Wish, traced
from lab.plugin.items import SUITE, id_of
from lab.plugin.options import SESSION


@pytest.hookimpl(wrapper=True, tryfirst=True)  # what is to be saved takes none of the test's time
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    option = item.config.option
    run = item.config.stash.get(SESSION, None)
    testbed = run.cell.current if run and run.cell else None
    wish = Wish(tuple(option.ftrace_event or ()), tuple(option.ftrace_graph or ()))
    asked = option.ftrace or not wish.optional
    if not asked or SUITE not in item.stash or not run or not testbed:
        return (yield)
    folder = run.folder.trace(id_of(item))
    saved = None
    try:
        with traced(testbed.guest, wish, folder, testbed.stretch) as saved:
            return (yield)
    finally:
        if saved:
            run.progress.say(str(saved))
