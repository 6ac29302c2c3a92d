# SPDX-License-Identifier: GPL-2.0-only
"""The trace of a test that fails is the one that somebody wants to see."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.plugin import tracing
from lab.plugin.items import SUITE
from lab.plugin.options import SESSION


def test_it_is_said_where_the_trace_of_a_failed_test_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []

    @contextmanager
    def traced(*_: object) -> Iterator[str]:
        yield "3 lines traced: trace.txt"

    monkeypatch.setattr(tracing, "traced", traced)
    run = SimpleNamespace(
        cell=SimpleNamespace(current=SimpleNamespace(guest=None, stretch=1.0)),
        folder=SimpleNamespace(trace=lambda _: tmp_path),
        progress=SimpleNamespace(say=said.append),
    )
    option = SimpleNamespace(ftrace=True, ftrace_event=None, ftrace_graph=None)
    config = SimpleNamespace(option=option, stash={SESSION: run})
    item = SimpleNamespace(nodeid="a.py::test_b", config=config, stash={SUITE: "contract"})
    calling = tracing.pytest_runtest_call(cast(Any, item))
    next(calling)
    with pytest.raises(AssertionError, match="1 == 2"):
        calling.throw(AssertionError("1 == 2"))
    assert said == ["3 lines traced: trace.txt"]
