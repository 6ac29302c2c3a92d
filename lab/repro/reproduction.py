# SPDX-License-Identifier: GPL-2.0-only
"""All attempts at one thing, and what they say: the content of repro.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.repro import rate as rates
from lab.repro.attempt import Attempt
from lab.repro.order import Order
from lab.results.record import Written

FILE = "repro.json"


@dataclass(frozen=True)
class Reproduction(Written):
    """What was attempted, on what, and what came of it.

    `failures` say why attempts were none: there the lab failed, and each was repeated. `seconds` is
    how long it took, `jobs` guests at once. It is not `finished` where somebody stopped it.
    """

    order: Order
    kernel: str
    machine: str
    attempts: tuple[Attempt, ...]
    failures: tuple[str, ...]
    seconds: float
    jobs: int
    finished: bool = True

    @property
    def expected(self) -> str:
        """What alone counted; empty where everything did."""
        return self.order.expected.text if self.order.expected else ""

    @property
    def shown(self) -> tuple[Attempt, ...]:
        """The attempts in which it showed, the first to do so first."""
        found = [attempt for attempt in self.attempts if attempt.shown]
        return tuple(sorted(found, key=lambda attempt: attempt.since))

    @property
    def rate(self) -> float:
        """How often it showed, 0 to 1; 0 where nothing was attempted."""
        return len(self.shown) / len(self.attempts) if self.attempts else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Between which rates the true one lies, with 95 % confidence."""
        return rates.interval(len(self.shown), len(self.attempts))

    def groups(self) -> dict[str, list[Attempt]]:
        """The attempts in which it showed by the title of their first sign, the most first."""
        found: dict[str, list[Attempt]] = {}
        for attempt in self.shown:
            found.setdefault(attempt.shown[0].title, []).append(attempt)
        return dict(sorted(found.items(), key=lambda group: -len(group[1])))

    def besides(self) -> dict[str, list[Attempt]]:
        """The same of what was not expected."""
        found: dict[str, list[Attempt]] = {}
        for attempt in self.attempts:
            for title in dict.fromkeys(sign.title for sign in attempt.others):
                found.setdefault(title, []).append(attempt)
        return dict(sorted(found.items(), key=lambda group: -len(group[1])))

    @property
    def status(self) -> int:
        """The exit status: 1 it showed; 0 it did not; 2 nobody knows, as the lab failed."""
        if self.shown:
            return 1
        return 0 if self.attempts and self.finished else 2

    def to_json(self) -> dict[str, Any]:
        """The content of repro.json. What follows from the attempts is in it for scripts; nobody
        reads it back."""
        low, high = self.interval
        first = self.shown[0] if self.shown else None
        summary: Mapping[str, Any] = {
            "status": self.status,
            "shown": len(self.shown),
            "of": len(self.attempts),
            "rate": round(self.rate, 5),
            "interval": [round(low, 5), round(high, 5)],
            "first_seconds": first.since if first else None,
            "titles": {title: len(found) for title, found in self.groups().items()},
            "besides": {title: len(found) for title, found in self.besides().items()},
        }
        return {"summary": summary, **super().to_json()}
