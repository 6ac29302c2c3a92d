# SPDX-License-Identifier: GPL-2.0-only
"""How what a night says of a test differs from what earlier nights said."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from lab.history.model import Change
from lab.history.past import Said


@dataclass(frozen=True)
class Turn:
    """What has come of a test.

    `since`, `nights`, `passed` and `runs` as in `lab.history.model.News`; `before` is the last
    night that said otherwise, None where there is none.
    """

    change: Change
    since: str
    nights: int
    before: Said | None
    passed: int
    runs: int

    def says(self, message: str) -> str:
        """What happened, in a line; `message` is what its last failure, or trouble, said."""
        if self.change is Change.MENDED and self.before:
            return f"{self.before.verdict} until {self.before.night}"
        if self.change is Change.FLAKY:
            failed = f"failed in {self.runs - self.passed} of {self.runs} runs on the same bits"
            return f"{failed}: {message}" if message else failed
        return message


def turn_of(now: Said, past: Sequence[Said], memory: str) -> Turn | None:
    """What `now` says beside `past`, the newest first; None where that is nothing to tell.

    `memory` is the first night with which `now` is compared for what it said on the same bits.
    """
    answered = [said for said in past if said.answered]
    recent = (said for said in answered if said.night >= memory)
    same = [now, *(said for said in recent if now.bits and said.bits == now.bits)]
    passed, failed = sum(said.passed for said in same), sum(said.failed for said in same)

    def turn(change: Change, row: Sequence[Said], before: Said | None) -> Turn:
        return Turn(change, row[-1].night, len(row), before, passed, passed + failed)

    if now.lost:
        row = [now, *takewhile(lambda said: said.lost, past)]
        return turn(Change.LOST, row, next(iter(answered), None))
    if not now.answered:
        return None
    if passed and failed:
        first = max(index for index, said in enumerate(same) if said.failed)
        return turn(Change.FLAKY, same[: first + 1], next(iter(answered), None))
    if now.broken:
        row = [now, *takewhile(lambda said: said.broken, answered)]
        change = Change.STILL if len(row) > 1 else Change.BROKEN
        return turn(change, row, next(iter(answered[len(row) - 1 :]), None))
    if answered and answered[0].broken:
        return turn(Change.MENDED, [now], answered[0])
    return None
