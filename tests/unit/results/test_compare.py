# SPDX-License-Identifier: GPL-2.0-only
"""Two runs side by side: which pair of verdicts says what."""

from dataclasses import replace

import pytest

from lab.results.compare import compare
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

KEPT, BROKEN, KNOWN = Verdict.KEPT, Verdict.BROKEN, Verdict.KNOWN
LOST, ERROR, SKIPPED, NONE = (
    Verdict.GUEST_LOST,
    Verdict.LAB_ERROR,
    Verdict.SKIPPED,
    Verdict.NOT_APPLICABLE,
)
CRASHED = None  # here: lost, with a report of the kernel's


def run(*verdicts: Verdict | None) -> RunRecord:
    tests = tuple(
        TestRecord(f"test-{number}", "contract", verdict or LOST, 0.1)
        if verdict
        else TestRecord(f"test-{number}", "contract", LOST, 0.1, splats=("Oops",))
        for number, verdict in enumerate(verdicts)
    )
    return RunRecord(version="1", started="2026-11-22T00:00:00Z", seconds=1.0, tests=tests)


@pytest.mark.parametrize(
    ("before", "after", "kind", "status"),
    [
        (KEPT, KEPT, "unchanged", 0),
        (KEPT, BROKEN, "broken", 1),
        (KEPT, KNOWN, "broken", 1),
        (NONE, BROKEN, "broken", 1),
        (BROKEN, BROKEN, "unchanged", 0),
        (BROKEN, KEPT, "mended", 0),
        (CRASHED, KEPT, "mended", 0),
        (KNOWN, KEPT, "mended", 0),
        (NONE, NONE, "unchanged", 0),
        (KEPT, NONE, "undecided", 2),
        (BROKEN, NONE, "undecided", 2),
        (SKIPPED, SKIPPED, "unchanged", 0),
        (KEPT, CRASHED, "crashed", 1),
        (BROKEN, CRASHED, "crashed", 1),
        (CRASHED, CRASHED, "unchanged", 0),
        (KEPT, LOST, "undecided", 2),
        (KEPT, ERROR, "undecided", 2),
        (LOST, LOST, "undecided", 2),
        (ERROR, ERROR, "undecided", 2),
        (LOST, KEPT, "undecided", 2),
        (SKIPPED, BROKEN, "undecided", 2),
        (KEPT, SKIPPED, "undecided", 2),
    ],
)
def test_what_a_pair_of_verdicts_says(
    before: Verdict | None, after: Verdict | None, kind: str, status: int
) -> None:
    comparison = compare(run(before), run(after))
    (pair,) = getattr(comparison, kind)
    assert pair.test.id == "test-0"
    assert comparison.status == status


def test_a_test_that_is_gone_is_undecided() -> None:
    comparison = compare(run(KEPT, KEPT), run(KEPT))
    assert [pair.test.id for pair in comparison.undecided] == ["test-1"]
    assert comparison.status == 2


@pytest.mark.parametrize(
    ("verdict", "kind", "status"),
    [
        (KEPT, "mended", 0),
        (BROKEN, "broken", 1),
        (CRASHED, "crashed", 1),
        (NONE, "unchanged", 0),
        (SKIPPED, "unchanged", 0),
        (LOST, "undecided", 2),
        (ERROR, "undecided", 2),
    ],
)
def test_a_test_that_is_new(verdict: Verdict | None, kind: str, status: int) -> None:
    comparison = compare(run(KEPT), run(KEPT, verdict))
    assert [pair.test.id for pair in getattr(comparison, kind)][-1] == "test-1"
    assert comparison.status == status


def test_what_a_series_owes_is_broken_when_it_still_fails() -> None:
    comparison = compare(run(BROKEN, BROKEN, KNOWN, KEPT), run(BROKEN, BROKEN, KNOWN, KEPT))
    assert comparison.status == 0
    owed = comparison.owed(lambda test: test.id != "test-0")
    assert [pair.test.id for pair in owed.broken] == ["test-1"]
    assert [pair.test.id for pair in owed.unchanged] == ["test-0", "test-2", "test-3"]
    assert owed.status == 1


def test_what_a_series_owes_has_crashed_when_it_still_does() -> None:
    """It brings the reproducer of a crash, and a fix that does not help."""
    comparison = compare(run(CRASHED, CRASHED), run(CRASHED, CRASHED))
    assert comparison.status == 0
    owed = comparison.owed(lambda test: test.id == "test-1")
    assert [pair.test.id for pair in owed.crashed] == ["test-1"]
    assert [pair.test.id for pair in owed.unchanged] == ["test-0"]
    assert (owed.broken, owed.status) == ((), 1)


def test_what_is_broken_is_so_whatever_else_nobody_knows() -> None:
    comparison = compare(run(KEPT, KEPT), run(BROKEN, LOST))
    assert len(comparison.broken) == 1
    assert len(comparison.undecided) == 1
    assert comparison.status == 1


def test_the_message_is_the_later_one() -> None:
    after = run(BROKEN)
    after = replace(after, tests=(replace(after.tests[0], message="it is broken"),))
    (pair,) = compare(run(KEPT), after).broken
    assert pair.test.message == "it is broken"
