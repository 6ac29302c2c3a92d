# SPDX-License-Identifier: GPL-2.0-only
"""Whether one kernel is slower than another: to boot, to hand a device out, to map memory.

Guests of both kernels are booted in pairs and measured by turns, so that a busy host disturbs both
alike. One pair is one observation, however many samples its guests gave: what came to lie where in
memory differs from boot to boot, and stays for a guest's life.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.deadline import Deadline
from lab.errors import GuestLost, InfrastructureError
from lab.programs import compile as compiling
from lab.programs import run as running
from lab.programs.run import TimedOut
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.testbed import Testbed
from lab.vfio.device import VFIO_PCI

BOOT = "boot"
PAIRS = 10
FEWEST = 9  # pairs: of fewer, too many agree by chance

_PROGRAM = Path(compiling.__file__).with_name("speed.c")
_BURSTS = 4  # of the program in each guest of a pair, by turns
_ROUNDS = 20  # of the program in a burst
_TIMEOUT = 60.0  # seconds for a burst, which takes a fraction of one
_SAMPLES = re.compile(r"^(?P<what>\w+ \w+)(?P<times>( \d+)+)$", re.MULTILINE)
# An emulated CPU's TSC that was calibrated while the host was busy has been 7 times too fast.
_CLOCK = "clocksource=hpet"
_LEAST = 0.03  # of a figure: a smaller change is nobody's concern


@dataclass(frozen=True)
class Change:
    """One figure of two kernels, in seconds.

    `before` is the median of the first kernel's guests, and `after` is that and the median of what
    the two guests of a pair differ by. `noise` is the largest change that these pairs would not
    have told from none: in this direction, or where there is none in either.
    """

    what: str
    before: float
    after: float
    noise: float

    @classmethod
    def of(cls, what: str, pairs: Sequence[tuple[float, float]]) -> "Change":
        """From the figures of each pair's guests, before and after.

        There is a change where all pairs have it, or all but one that is nearer to none than any
        other: that is Wilcoxon's signed-rank test, which asks nothing of the noise but that it be
        alike in both guests of a pair. n pairs agree so by chance in 4 of 2^n cases: 10 pairs do
        for one figure in 256. Raises ValueError for fewer than FEWEST.
        """
        if len(pairs) < FEWEST:
            raise ValueError(f"{len(pairs)} pairs of guests say nothing; measure {FEWEST} or more")
        before = statistics.median(first for first, _ in pairs)
        differences = sorted(second - first for first, second in pairs)
        change = statistics.median(differences)
        slower = change - statistics.mean(differences[:2])
        faster = statistics.mean(differences[-2:]) - change
        noise = max(slower if change > 0 else faster, _LEAST * before)
        if abs(change) <= noise:
            noise = max(noise, slower, faster)
        return cls(what, before, before + change, noise)

    @property
    def verdict(self) -> str:
        """same, slower or faster."""
        if abs(self.after - self.before) <= self.noise:
            return "same"
        return "slower" if self.after > self.before else "faster"

    def __str__(self) -> str:
        unit, scale = ("ms", 1e3) if self.before < 1 else ("s", 1.0)
        before, after, noise = (
            f"{scale * value:.3g}" for value in (self.before, self.after, self.noise)
        )
        if self.verdict == "same":
            return f"{self.what}: same, {before} {unit}; {noise} {unit} more or less would show"
        return f"{self.what}: {self.verdict}, from {before} to {after} {unit}, noise {noise} {unit}"

    def to_json(self) -> dict[str, Any]:
        """Seconds, and the verdict."""
        return {
            "what": self.what,
            "before": self.before,
            "after": self.after,
            "noise": self.noise,
            "verdict": self.verdict,
        }


def compare_speed(
    lab: Lab,
    before: Choice,
    after: Choice,
    folder: Path,
    progress: Progress,
    *,
    rounds: int = PAIRS,
) -> tuple[Change, ...]:
    """Boot and measure `rounds` pairs of guests; what both kernels can do is compared.

    `folder` gets what the guests leave. Raises as `Cell` and `boot` do, and GuestLost for a guest
    that is lost, or does not answer, while it is measured. What cannot be measured is said.
    """
    cache = Cache.of_user()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        cells = [
            stack.enter_context(
                Cell(
                    lab,
                    replace(choice, command_line=(*choice.command_line, _CLOCK)),
                    cache,
                    progress,
                    RunFolder(folder / name),
                )
            )
            for choice, name in ((before, "before"), (after, "after"))
        ]
        kernels = [cell.parts.kernel for cell in cells]
        source = next((kernel for kernel in kernels if kernel.headers), kernels[0])
        program = compiling.program(_PROGRAM, source, folder, progress)
        pairs: list[list[Mapping[str, float]]] = []
        title = f"measure {kernels[0].name} and {kernels[1].name}"
        with progress.step(title) as step:
            for number in range(rounds):
                # who comes first takes turns, too
                order = cells if number % 2 else cells[::-1]
                found = _measured(order, program)
                pairs.append([found[cell] for cell in cells])
                step.advance(number + 1, rounds, "pairs of guests")
    changes = compared(pairs)
    everything = {what for pair in pairs for guest in pair for what in guest}
    for what in sorted(everything - {change.what for change in changes}):
        progress.say(f"{what}: not every guest could be measured; see {running.OUTPUT} in {folder}")
    return changes


def compared(pairs: Sequence[Sequence[Mapping[str, float]]]) -> tuple[Change, ...]:
    """The change of every figure that all guests have, in the order of the first one's."""
    guests = [guest for pair in pairs for guest in pair]
    return tuple(
        Change.of(what, [(first[what], second[what]) for first, second in pairs])
        for what in guests[0]
        if all(what in guest for guest in guests)
    )


def figures_of(output: str) -> dict[str, list[float]]:
    """The samples that the program printed, in seconds."""
    return {
        match["what"]: [int(word) * 1e-9 for word in match["times"].split()]
        for match in _SAMPLES.finditer(output)
    }


def figure_of(samples: Sequence[float]) -> float:
    """What the samples of one guest come to: the third fastest, as the fastest may be luck.

    A busy host adds to a sample and never takes from it, and at times it adds to more than half
    of them. What slows only some rounds down does not show.
    """
    return sorted(samples)[:3][-1]


def _measured(cells: Sequence[Cell], program: Path) -> dict[Cell, dict[str, float]]:
    """The figures of one new guest of each cell, which are measured by turns."""
    boots = {cell: cell.testbed().guest.seconds["ready"] for cell in cells}
    samples: dict[Cell, dict[str, list[float]]] = {cell: {} for cell in cells}
    for burst in range(_BURSTS):
        for cell in cells if burst % 2 else cells[::-1]:
            for what, times in figures_of(_output(cell.testbed(), program)).items():
                samples[cell].setdefault(what, []).extend(times)
    for cell in cells:
        cell.discard()
    return {
        cell: {BOOT: boots[cell]} | {what: figure_of(times) for what, times in found.items()}
        for cell, found in samples.items()
    }


def _output(testbed: Testbed, program: Path) -> str:
    """What the program prints in a guest; nothing where no device is VFIO's."""
    guest, hands = testbed.guest, testbed.hands
    ours = [device for device in testbed.devices.values() if device.driver(hands) == VFIO_PCI]
    if not ours:
        return ""
    argv = [running.push(guest, hands, program), str(_ROUNDS)]
    environment = running.environment(ours[:1], None, hands)
    try:
        ended = running.run(
            guest, argv, Deadline.after(_TIMEOUT * testbed.stretch), environment=environment
        )
    except (GuestLost, TimedOut) as error:
        raise guest.why_lost(str(error)) from error
    if ended.status:
        raise InfrastructureError(
            f"{program.name}: {ended.how}\n{ended.output}",
            hint=f"see {guest.folder / running.OUTPUT}",
        )
    return ended.output
