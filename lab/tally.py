# SPDX-License-Identifier: GPL-2.0-only
"""What has become of a run so far, in one process; several of them are added up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.errors import GuestLost, LabError
from lab.results.record import TestRecord, Trouble, Written
from lab.results.verdict import Verdict


@dataclass
class Tally(Written):
    """Grows while tests run; JSON can carry it from one process to another.

    `machines` are those that guests were booted on, by name; `detectors` what looked at them after
    each test. `first_seconds` says once how long the
    user waited for what; `repeats` how often each guest's boot was repeated, by its folder's name.
    `waited` is how many seconds tests have waited for guests, but for each process's first.
    """

    accelerator: str = ""
    tests: list[TestRecord] = field(default_factory=list)
    trouble: list[Trouble] = field(default_factory=list)
    machines: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    detectors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    first_seconds: dict[str, float] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    waited: float = 0.0

    def note(self, error: BaseException) -> None:
        """Something failed that is no test's."""
        splat = error.splat if isinstance(error, GuestLost) else None
        verdict = Verdict.GUEST_LOST if isinstance(error, GuestLost) else Verdict.LAB_ERROR
        message = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        self.trouble.append(Trouble(message, verdict, splats=(splat,) if splat else ()))

    def add(self, other: "Tally") -> None:
        """What another process has seen; its tests came one by one already."""
        self.accelerator = self.accelerator or other.accelerator
        self.trouble += other.trouble
        self.machines |= other.machines
        self.detectors |= other.detectors
        for what, seconds in other.first_seconds.items():
            self.first_seconds.setdefault(what, seconds)
        self.repeats |= other.repeats
        self.waited += other.waited

    @property
    def figures(self) -> dict[str, float]:
        """As they stand in a run's record, the unit in the name."""
        found = {f"{what}_seconds": round(value, 3) for what, value in self.first_seconds.items()}
        if self.repeats:
            found["guests"] = len(self.repeats)
            found["boots_repeated"] = sum(self.repeats.values())
            found["waited_seconds"] = round(self.waited, 3)
        return found
