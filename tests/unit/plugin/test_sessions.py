# SPDX-License-Identifier: GPL-2.0-only
"""What the end of pytest's session leaves in the run's report."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.errors import LabError
from lab.plugin import sessions


class _Run:
    """A run that notes its trouble."""

    parts = None

    def __init__(self) -> None:
        self.troubles: list[str] = []

    def add_trouble(self, error: LabError) -> None:
        self.troubles.append(error.message)

    def close(self, *, finished: bool) -> Any:
        assert finished
        return SimpleNamespace(status=2)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (pytest.ExitCode.USAGE_ERROR, ["pytest refused these words: it says why above"]),
        (pytest.ExitCode.NO_TESTS_COLLECTED, []),  # the record itself says so
    ],
)
def test_refused_words_are_not_told_as_an_empty_selection(
    monkeypatch: pytest.MonkeyPatch, status: pytest.ExitCode, said: list[str]
) -> None:
    run = _Run()
    monkeypatch.setattr(sessions, "session_of", lambda _: run)
    config = SimpleNamespace(
        stash={sessions._UNREAD: sessions.Unread()},  # noqa: SLF001 (as pytest_configure makes it)
        pluginmanager=SimpleNamespace(hasplugin=lambda _: False),
    )
    session = SimpleNamespace(config=config, exitstatus=status)
    sessions.pytest_sessionfinish(cast(pytest.Session, session), status)
    assert run.troubles == said
    assert session.exitstatus == 2
