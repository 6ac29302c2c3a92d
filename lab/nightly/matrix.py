# SPDX-License-Identifier: GPL-2.0-only
"""What lab.yaml's `nightly` means: its cells, without those that are left out."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from lab import room
from lab.config import Lab
from lab.config.nightly import Exclusion, Nightly
from lab.history.model import CellKey
from lab.nightly.carrier import Order
from lab.nightly.drops import Dropped

_UNSAFE = re.compile(r"[^A-Za-z0-9_.+@-]+")
_LONGEST = 100  # characters of a folder's name


def cells(lab: Lab, nightly: Nightly, dropped: Iterable[Dropped] = ()) -> list[CellKey]:
    """Every cell once, in the order of lab.yaml. A suite that wants a machine of its own is run on
    that one alone."""
    platforms = [(kernel, "") for kernel in nightly.kernels]
    platforms += [(kernel, series.name) for series in dropped for kernel in series.kernels]
    every = (
        CellKey(kernel, machine, suite, series)
        for kernel, series in platforms
        for suite in nightly.suites
        for machine in _machines(lab, nightly, suite)
    )
    return list(dict.fromkeys(c for c in every if not any(_fits(c, e) for e in nightly.exclude)))


def _machines(lab: Lab, nightly: Nightly, suite: str) -> Iterator[str]:
    own = lab.suite(suite).machine
    yield from (own,) if own else nightly.machines or (lab.run.machine,)


def _fits(cell: CellKey, exclusion: Exclusion) -> bool:
    patterns = exclusion.model_dump().items()
    return all(fnmatchcase(getattr(cell, name), pattern) for name, pattern in patterns)


def order_for(
    lab: Lab, night: str, cell: CellKey, *, attempt: int = 0, tests: Iterable[str] = ()
) -> Order:
    """What has a cell run, or of it the tests that these words choose."""
    machine = lab.machine(cell.machine)
    name = folder_of(cell)
    return Order(
        night=night,
        cell=cell,
        attempt=attempt,
        words=("--machine", cell.machine, "--suite", cell.suite, *tests),
        name=f"{name}-{attempt}" if attempt else name,
        memory=2 * room.memory_of(machine),
        kernel=cell.kernel,
        series=f"series/{cell.series}.mbox" if cell.series else None,
    )


def folder_of(cell: CellKey) -> str:
    """A folder's name for a cell: one can read it, and no other cell has it."""
    words = "--".join(filter(None, (cell.series, cell.kernel, cell.machine, cell.suite)))
    safe = _UNSAFE.sub("-", words).strip("-.")
    if safe == words and len(safe) <= _LONGEST:
        return safe
    # what had to be changed may be another's name now
    return f"{safe[-_LONGEST:].strip('-.')}-{hashlib.sha256(str(cell).encode()).hexdigest()[:6]}"
