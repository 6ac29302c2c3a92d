# SPDX-License-Identifier: GPL-2.0-only
"""A scheduler that is there, or not."""

import io
from collections.abc import Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("distributed", reason="needs the extra `fleet`")

from lab.config import Lab
from lab.errors import ConfigurationError
from lab.fleet import link as module
from lab.fleet.asking import Asking
from lab.fleet.errand import Errand
from lab.fleet.fleet import Fleet
from lab.fleet.link import Link
from lab.progress import Progress


class Connection:
    """Dask's, with seven workers; since 2025.4 it tells of five where nothing else is said."""

    status = "running"

    def scheduler_info(self, n_workers: int = 5) -> Mapping[str, Any]:
        names = [f"worker-{number}" for number in range(7)]
        return {"workers": {name: {} for name in names[: None if n_workers < 0 else n_workers]}}


def test_all_workers_are_counted(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Client", lambda *_, **__: Connection())
    link = Link("tcp://host:8786", Event(), progress)
    link.reach()
    assert len(link.workers()) == 7


def test_what_is_no_address_is_told_at_once(progress: Progress) -> None:
    with pytest.raises(ConfigurationError, match="expected tcp://HOST:8786"):
        Link("nowhere://host", Event(), progress).reach()


@pytest.mark.timeout(60)
def test_a_scheduler_that_never_comes_costs_no_more_than_the_night(
    lab: Lab, errand: Errand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise OSError("nobody listens")

    monkeypatch.setattr(module, "Client", nobody)
    monkeypatch.setattr(Asking, "errand", lambda *_: errand)
    said = io.StringIO()
    progress = Progress(Console(file=said, width=200))
    with Fleet("tcp://host:1", errand.store, lab=lab, nights=tmp_path, progress=progress) as fleet:
        assert fleet.places == 1
        future = fleet.carry(errand.order)
    with pytest.raises(CancelledError):
        future.result(0)
    assert "waiting for the scheduler at tcp://host:1: nobody listens" in said.getvalue()
