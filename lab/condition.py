# SPDX-License-Identifier: GPL-2.0-only
"""What a guest is like while nobody uses it, and what a test has left behind."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.deadline import Deadline
from lab.vfio.device import CDEVS, Device, pinned_pages

_SOON = 5.0  # seconds: a process that was killed lets go while nobody waits for it
_AGAIN = 0.02


@dataclass(frozen=True)
class Condition:
    """The condition of a guest, as its own kernel tells it."""

    drivers: Mapping[str, str | None]  # by the device's role
    cdevs: int  # nodes under /dev/vfio/devices
    pinned: int  # pages that DMA may reach: pin_user_pages() without its unpin

    @classmethod
    def of(cls, hands: Process, devices: Mapping[str, Device]) -> Self:
        """What it is now. Raises GuestLost or AgentDied when nobody answers."""
        return cls(
            {role: device.driver(hands) for role, device in devices.items()},
            len(hands.listdir(CDEVS)) if hands.exists(CDEVS) else 0,
            pinned_pages(hands),
        )

    def leftovers(self, hands: Process, devices: Mapping[str, Device]) -> list[str]:
        """What is not as it was, in words; owners of groups among it. Raises as `of` does."""
        now = Condition.of(hands, devices)
        deadline = Deadline.after(_SOON)
        while now.pinned != self.pinned and not deadline.passed:
            time.sleep(_AGAIN)
            now = Condition.of(hands, devices)
        found = [
            f"{role} has the driver {driver}, not {self.drivers[role]}"
            for role, driver in now.drivers.items()
            if driver != self.drivers[role]
        ]
        if now.cdevs != self.cdevs:
            found.append(f"{now.cdevs} device cdevs, not {self.cdevs}")
        if now.pinned != self.pinned:
            found.append(f"pages that are still pinned: {now.pinned - self.pinned}")
        return found + _owned_groups(hands)


def _owned_groups(hands: Process) -> list[str]:
    found = []
    for name in hands.listdir("/dev/vfio"):
        if not name.isdigit():
            continue
        try:
            hands.open(f"/dev/vfio/{name}").close()
        except RemoteError as error:
            found.append(f"/dev/vfio/{name} cannot be opened ({error.strerror})")
    return found
