# SPDX-License-Identifier: GPL-2.0-only
"""What a test provokes on purpose, and announces: reports of the kernel's, and blocked DMA.

Whatever else the kernel reports, and whatever other DMA the IOMMU blocks, fails the test during
which it came; so does what is announced and does not come.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from lab.guest import DmarFault
from lab.splats import Kind, Splat, find
from lab.testbed import Testbed
from lab.vfio.device import Device

_SHOWN = 3  # faults that are told one by one


class Announced:
    """The announcements of one test; Watch asks it what is left unexplained."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._guest = guest = testbed.guest
        self._console_start = guest.heard
        self._first_fault = guest.faults_heard
        self._titles: list[str] = []  # a pattern for each report that came as announced
        self._faults: set[int] = set()  # those announced, by their number among the guest's

    @contextmanager
    def splat(self, title: str) -> Iterator[list[Splat]]:
        """The block makes the kernel report something, once or more: `title` is a pattern that is
        found in the title of each. The list is filled when the block ends."""
        came: list[Splat] = []
        start = self._guest.console.size
        yield came
        self._hear_out()
        reports = _reports(self._guest.printed_since(start))
        came += [each for each in reports if re.search(title, each.title)]
        if not came:
            pytest.fail(f"announced, but the kernel reported nothing titled {title!r}")
        self._titles += [title] * len(came)

    @contextmanager
    def dma_faults(
        self, device: Device | int, count: int | None = None, *, perhaps: bool = False
    ) -> Iterator[list[DmarFault]]:
        """The IOMMU blocks DMA of this device, or requester, in the block: `count` accesses, or
        any number but none. `perhaps`: it is a race whether there are any. The list is filled when
        the block ends."""
        requester = device if isinstance(device, int) else device.requester
        came: list[DmarFault] = []
        before = self._guest.fault_count
        yield came
        faults = enumerate(self._guest.faults(before), before)
        mine = {number: fault for number, fault in faults if fault.requester == requester}
        came += mine.values()
        if (not came and not perhaps) or count not in (None, len(came)):
            wanted = "some" if count is None else count
            who = _bdf(requester)
            pytest.fail(f"announced {wanted} blocked DMA of {who}, and {len(came)} came")
        self._faults.update(mine)

    @property
    def spoke(self) -> bool:
        """Whether the kernel reported something as announced: that taints it."""
        return bool(self._titles)

    def unexplained(self) -> tuple[tuple[Splat, ...], tuple[DmarFault, ...]]:
        """The reports, and the blocked DMA, that came since this was made and nobody announced.

        Raises as `Testbed.hear_out` does.
        """
        self._hear_out()
        reports = _reports(self._guest.hear(self._console_start))
        for title in self._titles:
            known = next((each for each in reports if re.search(title, each.title)), None)
            if known:
                reports.remove(known)
        faults = self._guest.faults(self._first_fault)
        self._guest.faults_heard = self._first_fault + len(faults)
        numbered = enumerate(faults, self._first_fault)
        return tuple(reports), tuple(fault for n, fault in numbered if n not in self._faults)

    def _hear_out(self) -> None:
        if self._guest.alive:
            self._testbed.hear_out()


def _reports(text: str) -> list[Splat]:
    """The kernel's, but those of blocked DMA: QEMU counts all of that, the console some."""
    return [each for each in find(text, stamped=True) if each.kind is not Kind.DMA_FAULT]


def told(faults: Sequence[DmarFault]) -> list[str]:
    """What the IOMMU blocked, in words."""
    words = [
        f"the IOMMU blocked a {'write' if fault.write else 'read'} of {_bdf(fault.requester)}"
        f" at {fault.address:#x}"
        for fault in faults[:_SHOWN]
    ]
    more = len(faults) - _SHOWN
    return [*words, f"and {more} more"] if more > 0 else words


def _bdf(requester: int) -> str:
    return f"{requester >> 8:02x}:{requester >> 3 & 0x1F:02x}.{requester & 7}"
