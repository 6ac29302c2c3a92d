# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin of `vfio-lab run`: our session in, our progress out."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

from lab.errors import LabError
from lab.plugin.options import adopt
from lab.plugin.sessions import Role
from lab.progress import Step
from lab.session import Session


class Guide:
    """Replaces pytest's own reporter for one run."""

    def __init__(self, session: Session, *, when_loaded: Callable[[], None]) -> None:
        self._session = session
        self._when_loaded = when_loaded  # every module that will be
        self._stack = ExitStack()
        self._step: Step | None = None
        self._done = 0
        self._total = 0

    @pytest.hookimpl(trylast=True)  # after the terminal's reporter has come
    def pytest_configure(self, config: pytest.Config) -> None:
        adopt(config, self._session)
        # The table comes from `lab.commands.runner`, and here a bar instead of dots.
        config.pluginmanager.unregister(name="terminalreporter")

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        if Role.of(session.config).controller:
            self._when_loaded()  # it collects nothing itself

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._when_loaded()
        self._collected(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        if not self._step:
            self._collected(len(ids))

    def _collected(self, total: int) -> None:
        self._total = total
        if total:
            self._step = self._stack.enter_context(self._session.progress.step("test"))

    def pytest_internalerror(self, excrepr: object) -> None:
        self._session.add_trouble(LabError(f"pytest failed:\n{excrepr}"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" and self._step:
            self._done += 1
            self._step.advance(self._done, self._total)

    def pytest_sessionfinish(self) -> None:
        if self._step:
            self._step.result(f"{self._done} of {self._total}")
        self._stack.close()
