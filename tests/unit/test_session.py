# SPDX-License-Identifier: GPL-2.0-only
"""What a run leaves whatever happens to it."""

import json
from pathlib import Path

import pytest

from lab.cell import Choice
from lab.config import Lab
from lab.progress import Progress
from lab.session import Session

ROOT = Path(__file__).parents[2]


def test_who_is_interrupted_at_the_end_has_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C a second time, while the guests end."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    session = Session(Lab.load(ROOT), Choice("v6.12"), Progress(quiet=True), out=tmp_path / "run")
    monkeypatch.setattr(session, "end", interrupted)
    try:
        record = session.close(finished=True)
    except KeyboardInterrupt:  # which would end pytest
        pytest.fail("it went past the report")
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written == record.to_json()
    assert written["finished"] is False
