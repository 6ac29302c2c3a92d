# SPDX-License-Identifier: GPL-2.0-only
"""Two runs of the same tests, before and after a change: what it broke, and what it mended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

_GOOD = (Verdict.KEPT, Verdict.NOT_APPLICABLE)
_BAD = (Verdict.BROKEN, Verdict.KNOWN)
_KIND_OF_NEW = {
    Verdict.KEPT: "mended",
    Verdict.BROKEN: "broken",
    Verdict.NOT_APPLICABLE: "unchanged",
    Verdict.SKIPPED: "unchanged",
}


@dataclass(frozen=True)
class Pair:
    """One test in both runs; None where a run does not have it."""

    before: TestRecord | None
    after: TestRecord | None

    @property
    def test(self) -> TestRecord:
        """The later one, if there is one."""
        found = self.after or self.before
        assert found is not None
        return found


@dataclass(frozen=True)
class Comparison:
    """Every test of both runs, in the order of the later one, once.

    `broken` was not before; `mended` was. `crashed` lost its guest to a report of the kernel's own
    that it did not lose it to before. `undecided` is what either run does not know: its guest was
    lost without a word, the lab erred, or the test is gone, or does not apply any more: a kernel
    without a flow keeps its rules trivially. A test that is new was neither kept nor broken before:
    it is mended, or broken, now. The rest, which says the same in both, is `unchanged`.
    """

    broken: tuple[Pair, ...]
    crashed: tuple[Pair, ...]
    mended: tuple[Pair, ...]
    undecided: tuple[Pair, ...]
    unchanged: tuple[Pair, ...]

    @property
    def status(self) -> int:
        """0: nothing is broken that was not before; 1: something is, whatever else is not known; 2:
        nobody knows."""
        if self.broken or self.crashed:
            return 1
        return 2 if self.undecided else 0

    def doubted(self, pairs: Sequence[Pair]) -> "Comparison":
        """The same, where these of the broken ones are undecided."""
        return replace(
            self,
            broken=tuple(pair for pair in self.broken if pair not in pairs),
            crashed=tuple(pair for pair in self.crashed if pair not in pairs),
            undecided=(*self.undecided, *pairs),
        )

    def owed(self, own: Callable[[TestRecord], bool]) -> "Comparison":
        """The same where the later run owes these tests: one that fails in both runs is broken, and
        one that loses its guest to the kernel in both crashed."""
        failed = [pair for pair in self.unchanged if own(pair.test) and pair.test.exit_status == 1]
        return replace(
            self,
            broken=(*self.broken, *(pair for pair in failed if not _crashed(pair.test))),
            crashed=(*self.crashed, *(pair for pair in failed if _crashed(pair.test))),
            unchanged=tuple(pair for pair in self.unchanged if pair not in failed),
        )


def compare(before: RunRecord, after: RunRecord) -> Comparison:
    """What differs. Both should have run the same tests on the same machines."""
    earlier = {test.id: test for test in before.tests}
    pairs = [Pair(earlier.pop(test.id, None), test) for test in after.tests]
    pairs += [Pair(test, None) for test in earlier.values()]
    sorted_: dict[str, list[Pair]] = {}
    for pair in pairs:
        sorted_.setdefault(_kind(pair), []).append(pair)
    return Comparison(**{
        kind: tuple(sorted_.get(kind, ()))
        for kind in ("broken", "crashed", "mended", "undecided", "unchanged")
    })  # fmt: skip


def _kind(pair: Pair) -> str:
    """The field of Comparison that a pair belongs to."""
    before, after = pair.before, pair.after
    if after is None:
        return "undecided"
    if before is None:
        return "crashed" if _crashed(after) else _KIND_OF_NEW.get(after.verdict, "undecided")
    if _crashed(after):
        return "unchanged" if _crashed(before) else "crashed"
    return _kind_of_verdicts(before, after)


def _kind_of_verdicts(before: TestRecord, after: TestRecord) -> str:
    """The same for a test of both runs with which the later one did not crash."""
    if before.verdict is after.verdict and after.verdict.exit_status(splat=False) != 2:
        return "unchanged"
    if after.verdict in _BAD:
        return "broken" if before.verdict in _GOOD else "undecided"
    if after.verdict is Verdict.KEPT:
        bad = before.verdict in _BAD or _crashed(before)
        return "mended" if bad else "unchanged" if before.verdict in _GOOD else "undecided"
    return "undecided"


def _crashed(test: TestRecord) -> bool:
    return test.verdict is Verdict.GUEST_LOST and bool(test.splats)
