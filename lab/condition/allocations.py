# SPDX-License-Identifier: GPL-2.0-only
"""Memory that lines of VFIO's and the IOMMU's source have allocated and that stays.

Kernels with CONFIG_MEM_ALLOC_PROFILING count it: /proc/allocinfo, lib/alloc_tag.c. What these
lines have others allocate for them, such as a node of an xarray, is counted there and not seen
here; kmemleak may see it.
"""

import re

from lab.condition.asking import Question, exists, stream
from lab.condition.detector import MEANWHILE, Detector, Seen

_ALLOCINFO = "/proc/allocinfo"
_PIECES = 128  # of 4 KiB, in one round trip: a small kernel has 3000 lines
_SITE = re.compile(
    r"^ *(?P<bytes>\d+) +(?P<calls>\d+) \S*?"
    r"(?P<site>(?:drivers/(?:vfio|iommu)|virt/lib)/\S+:\d+) .*?func:(?P<function>\S+)",
    re.MULTILINE,
)


def _allocations(known: Seen | None) -> Question[Seen | None]:
    """Of each site how many bytes in how many allocations it has."""
    del known
    if not (yield from exists(_ALLOCINFO)):
        return None
    text = yield from stream(_ALLOCINFO, pieces=_PIECES)
    return None if text is None else sites(text)


def sites(text: str) -> Seen:
    """What stands in /proc/allocinfo of those who are under test."""
    return {
        f"{match['function']}() in {match['site']}": f"{match['bytes']} {match['calls']}"
        for match in _SITE.finditer(text)
    }


def _tell(site: str, before: str | None, now: str | None) -> str:
    size, calls = (int(new) - int(old) for new, old in zip(_both(now), _both(before), strict=True))
    return f"{calls} allocations of {site}, {size} bytes in all" if size > 0 else ""


def _both(counts: str | None) -> list[str]:
    return (counts or "0 0").split()


ALLOCATIONS = Detector(
    "allocations", _allocations, _tell, MEANWHILE, needs="CONFIG_MEM_ALLOC_PROFILING"
)
