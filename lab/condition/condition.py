# SPDX-License-Identifier: GPL-2.0-only
"""The condition of a guest, and its difference to how it was."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.condition.allocations import ALLOCATIONS
from lab.condition.asking import Question, ask, together
from lab.condition.detector import Detector, Seen
from lab.condition.functions import DRIVERS, GROUPS
from lab.condition.kernel import KCSAN, LOCKDEP, MODULES, SETTINGS_OF_TESTS, TAINT
from lab.condition.leaks import NAME, NEEDS
from lab.condition.memory import MEMORY
from lab.condition.nodes import NODES, OWNERS
from lab.condition.processes import OWN_FILES, PROCESSES
from lab.errors import InfrastructureError
from lab.vfio.device import Device

_AGAIN = 0.02  # seconds

DETECTORS: Sequence[Detector] = (
    PROCESSES,
    OWN_FILES,
    DRIVERS,
    GROUPS,
    NODES,
    OWNERS,
    MEMORY,
    MODULES,
    TAINT,
    LOCKDEP,
    KCSAN,
    SETTINGS_OF_TESTS,
    ALLOCATIONS,
)


def needs() -> dict[str, str]:
    """Each detector's name, and the kernel's option without which it sees nothing; the empty string
    where any kernel will do."""
    return {**{detector.name: detector.needs for detector in DETECTORS}, NAME: NEEDS}


@dataclass(frozen=True)
class Condition:
    """The condition of a guest, as its own kernel tells it."""

    seen: Mapping[str, Seen]  # by the detector's name, of those that have anything to look at
    roles: Mapping[str, str]  # of devices, by their addresses

    @classmethod
    def of(cls, hands: Process, devices: Mapping[str, Device]) -> Self:
        """What it is now. Raises GuestLost or AgentDied when nobody answers, InfrastructureError
        when a detector cannot run."""
        return cls(_look(hands, {}), {device.address: role for role, device in devices.items()})

    @property
    def detectors(self) -> tuple[str, ...]:
        """Who looks at this guest, by name: its kernel or machine may lack what others look at."""
        return tuple(name for name in self.seen if name not in self.off)

    @property
    def off(self) -> dict[str, str]:
        """Who could look at this guest, but was hindered from the start; by name, why."""
        seen = ((each, self.seen[each.name]) for each in DETECTORS if each.name in self.seen)
        return {each.name: why for each, things in seen if (why := each.off(things))}

    def leftovers(
        self, hands: Process, *, stretch: float = 1.0, excused: Collection[str] = ()
    ) -> list[str]:
        """What is not as it was, in words, but for what `excused` detectors see. Raises as `of`
        does.

        What may come right by itself has its time for that, `stretch` times as much.
        """
        started = time.monotonic()
        while True:
            now = _look(hands, self.seen)
            found = [each for each in self._changes(now) if each[0].name not in excused]
            longest = max((detector.patience for detector, _ in found), default=0.0)
            if time.monotonic() - started >= longest * stretch:
                return [words for _, words in found]
            time.sleep(_AGAIN)

    def _changes(self, now: Mapping[str, Seen]) -> Iterator[tuple[Detector, str]]:
        for detector in DETECTORS:
            if detector.name not in self.seen:
                continue
            before, after = self.seen[detector.name], now[detector.name]
            for thing in {**before, **after}:
                was, is_ = before.get(thing), after.get(thing)
                name = self.roles.get(thing, thing)
                if was != is_ and (words := detector.tell(name, was, is_)):
                    yield detector, words


def _look(hands: Process, known: Mapping[str, Seen]) -> Mapping[str, Seen]:
    looks = [_named(detector, known.get(detector.name)) for detector in DETECTORS]
    answers = zip(DETECTORS, ask(hands, together(*looks)), strict=True)
    seen = {detector.name: answer for detector, answer in answers if answer is not None}
    if blind := [name for name in known if name not in seen]:
        raise InfrastructureError(f"the kernel does not tell any more: {', '.join(blind)}")
    return seen


def _named(detector: Detector, known: Seen | None) -> Question[Seen | None]:
    try:
        return (yield from detector.look(known))
    except RemoteError as error:
        raise InfrastructureError(f"the look at {detector.name}: {error}") from error
