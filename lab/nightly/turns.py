# SPDX-License-Identifier: GPL-2.0-only
"""Whose turn it is: cells of which something has changed since they were last run come first, and
among equals those that take the longest. One whose last run came to no end is to be told anew."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab.cache import Cache
from lab.config import Lab
from lab.errors import LabError
from lab.history.model import CellKey, CellRun
from lab.history.store import History
from lab.kernel.incremental import patched
from lab.kernel.mail import read_series
from lab.kernel.prepare import look
from lab.nightly.night import Planned

_NOBODY_KNOWS = 2  # of `lab.results.verdict`: the lab failed, or the night's time was up


def plan(
    cells: Iterable[CellKey],
    mails: Mapping[str, Path],
    lab: Lab,
    cache: Cache,
    history: History,
    version: str,
) -> list[Planned]:
    """The cells in the order of their turn. `mails` are the mailboxes of series by their names,
    `version` is the lab's own: other tests make every cell another one."""
    last = {cell: last_run(history, cell) for cell in cells}
    keys = {
        (cell.kernel, cell.series): _key(cell, mails.get(cell.series), lab, cache) for cell in last
    }
    planned = [
        Planned(
            cell,
            changed=run is None
            or run.status == _NOBODY_KNOWS
            or run.lab != version
            or run.kernel_key != keys[cell.kernel, cell.series],
            seconds=run.seconds if run else None,
        )
        for cell, run in last.items()
    ]
    return sorted(planned, key=_turn)


def _turn(planned: Planned) -> tuple[bool, float]:
    # nobody knows how long a new one takes: it begins early
    return not planned.changed, -math.inf if planned.seconds is None else -planned.seconds


def last_run(history: History, cell: CellKey) -> CellRun | None:
    """The newest run of the whole cell."""
    points = history.trend(cell, limit=1)
    found = history.runs(points[-1].night) if points else []
    return next((run for run in found if run.cell == cell and run.attempt == 0), None)


def _key(cell: CellKey, mail: Path | None, lab: Lab, cache: Cache) -> str | None:
    """That of the cell's kernel; None while it has to be built, or nobody knows."""
    try:
        kernel = look(cell.kernel, lab, cache).built
        if kernel and mail:
            kernel = patched(kernel, read_series(str(mail)), cache)
    except LabError:
        return None  # whoever runs it says why
    return kernel.key if kernel else None
