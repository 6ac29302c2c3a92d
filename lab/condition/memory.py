# SPDX-License-Identifier: GPL-2.0-only
"""Pages that stay pinned for DMA, or locked.

What cannot be seen: what VFIO charges for pinned pages, which is the mm's `locked_vm` (type1) or
its user's (iommufd). The first is VmLck of /proc/PID/status and goes with the process; nothing
tells the second. A charge that is never taken back shows only to a process that has a limit
(MAP-10).
"""

from lab.agent.calls import write_file
from lab.agent.errors import check
from lab.condition.asking import Question, stream
from lab.condition.detector import MEANWHILE, Detector, Seen
from lab.vfio.device import STAT_REFRESH, VMSTAT, pinned_of

_PINNED, _LOCKED = "pinned", "locked"
_USUAL = 1536  # bytes
_DROP_CACHES = "/proc/sys/vm/drop_caches"


def _memory(known: Seen | None) -> Question[Seen | None]:
    seen = yield from _counted()
    if known and seen[_LOCKED] != known[_LOCKED]:
        # mm/mlock.c: munlock_folio() leaves what it unlocks to a batch of its CPU's. The way to
        # lru_add_drain_all() is drop_caches, which the console tells of.
        yield from _write(_DROP_CACHES, b"1")
        seen = yield from _counted()
    return seen


def _counted() -> Question[Seen]:
    yield from _write(STAT_REFRESH, b"1")  # each CPU counts for itself first
    counts = dict(line.split() for line in ((yield from stream(VMSTAT, _USUAL)) or "").splitlines())
    return {_PINNED: str(pinned_of(counts)), _LOCKED: counts["nr_mlock"]}


def _write(path: str, data: bytes) -> Question[None]:
    opened, written, _ = yield write_file(path, data)
    check(opened, f"openat {path}")
    check(written, f"write {path}")


def _tell(kind: str, before: str | None, now: str | None) -> str:
    return f"pages that are still {kind}: {int(now or 0) - int(before or 0)}"


MEMORY = Detector("pinned and locked pages", _memory, _tell, MEANWHILE)
