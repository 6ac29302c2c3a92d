# SPDX-License-Identifier: GPL-2.0-only
"""What became of a test, and what a run's exit status makes of it.

| status | when                                                                              |
|--------|-----------------------------------------------------------------------------------|
| 0      | nothing is broken                                                                 |
| 1      | a rule is broken, or the kernel crashed: a guest is lost and left a splat         |
| 2      | the lab, its configuration or the infrastructure failed: a guest is lost without  |
|        | a splat, the lab erred, the run did not finish, or no test was selected           |

2 beats 1: where the lab failed, nobody knows what else is broken.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Mark:
    """How a verdict looks in a table: at most six characters, and a style of rich's.

    Colour only repeats what the text says; capitals ask for a person's eye.
    """

    text: str
    style: str


class Verdict(StrEnum):
    """What became of a test, in order of severity, the mildest first.

    The order answers "what may I still believe of this cell?". `skipped` outranks `kept`: a cell
    of which a part was not tested must not look tested. `not-applicable` is mildest, because
    nothing is missing where there is nothing to test.
    """

    NOT_APPLICABLE = "not-applicable"
    KEPT = "kept"
    SKIPPED = "skipped"
    KNOWN = "known"
    BROKEN = "broken"
    GUEST_LOST = "guest-lost"
    LAB_ERROR = "lab-error"

    @property
    def severity(self) -> int:
        """Its place in the order of severity; greater is worse."""
        return _SEVERITY[self]

    @property
    def is_trouble(self) -> bool:
        """Whether somebody has to act on it; then the exit status is not 0."""
        return self in (Verdict.BROKEN, Verdict.GUEST_LOST, Verdict.LAB_ERROR)

    @property
    def is_checked(self) -> bool:
        """Whether the kernel's answer was seen."""
        return self in (Verdict.KEPT, Verdict.KNOWN, Verdict.BROKEN)

    @property
    def mark(self) -> Mark:
        """How it looks in a table."""
        return _MARKS[self]

    def exit_status(self, *, splat: bool) -> int:
        """What it adds to a run's exit status. `splat`: the kernel left a report of its own.

        Only a lost guest asks for the splat: it tells a crashed kernel from a failed lab.
        """
        if self is Verdict.GUEST_LOST:
            return 1 if splat else 2
        return {Verdict.BROKEN: 1, Verdict.LAB_ERROR: 2}.get(self, 0)


_MARKS = {
    Verdict.NOT_APPLICABLE: Mark("n/a", "dim"),
    Verdict.KEPT: Mark("kept", "green"),
    Verdict.SKIPPED: Mark("skip", "yellow"),
    Verdict.KNOWN: Mark("known", "cyan"),
    Verdict.BROKEN: Mark("BROKEN", "bold red"),
    Verdict.GUEST_LOST: Mark("LOST", "bold magenta"),
    Verdict.LAB_ERROR: Mark("ERROR", "bold white on red"),
}

_SEVERITY = {verdict: place for place, verdict in enumerate(Verdict)}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The most severe of `verdicts`. Raises ValueError when there is none."""
    return max(verdicts, key=lambda verdict: verdict.severity)


def marked(verdicts: Sequence[Verdict]) -> str:
    """A table cell's text: the worst of `verdicts`, and how many have it of those that apply:
    `BROKEN 2/3`. Raises ValueError when there is none."""
    verdict = worst(verdicts)
    applicable = [each for each in verdicts if each is not Verdict.NOT_APPLICABLE]
    total, count = len(applicable or verdicts), verdicts.count(verdict)
    share = "" if total == 1 else f" {count}"
    rest = "" if count == total else f"/{total}"
    return verdict.mark.text + share + rest
