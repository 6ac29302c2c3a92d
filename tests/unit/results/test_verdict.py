# SPDX-License-Identifier: GPL-2.0-only
import itertools

import pytest

from lab.results.verdict import Verdict, marked, worst

MILDEST_FIRST = (
    "not-applicable",
    "kept",
    "skipped",
    "known",
    "broken",
    "guest-lost",
    "lab-error",
)


@pytest.mark.parametrize(("mild", "severe"), list(itertools.combinations(MILDEST_FIRST, 2)))
def test_a_cell_shows_the_more_severe(mild: str, severe: str) -> None:
    assert worst([Verdict(mild), Verdict(severe)]) is Verdict(severe)
    assert worst([Verdict(severe), Verdict(mild)]) is Verdict(severe)


def test_nothing_has_no_worst() -> None:
    with pytest.raises(ValueError, match="empty"):
        worst([])


@pytest.mark.parametrize(
    ("verdict", "without_splat", "with_splat"),
    [
        (Verdict.NOT_APPLICABLE, 0, 0),
        (Verdict.KEPT, 0, 0),
        (Verdict.SKIPPED, 0, 0),
        (Verdict.KNOWN, 0, 0),
        (Verdict.BROKEN, 1, 1),
        (Verdict.GUEST_LOST, 2, 1),
        (Verdict.LAB_ERROR, 2, 2),
    ],
)
def test_exit_status(verdict: Verdict, without_splat: int, with_splat: int) -> None:
    assert verdict.exit_status(splat=False) == without_splat
    assert verdict.exit_status(splat=True) == with_splat


def test_trouble_is_what_changes_the_exit_status() -> None:
    for verdict in Verdict:
        assert verdict.is_trouble == (verdict.exit_status(splat=False) > 0)


def test_marks_differ_without_their_colour() -> None:
    texts = {verdict.mark.text for verdict in Verdict}
    assert len(texts) == len(Verdict)
    assert all(len(text) <= 6 for text in texts)


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        ([Verdict.KEPT], "kept"),
        ([Verdict.KEPT, Verdict.KEPT], "kept 2"),
        ([Verdict.KEPT, Verdict.BROKEN, Verdict.KEPT], "BROKEN 1/3"),
        ([Verdict.NOT_APPLICABLE, Verdict.KEPT], "kept"),
        ([Verdict.NOT_APPLICABLE, Verdict.NOT_APPLICABLE], "n/a 2"),
    ],
)
def test_cell_says_how_many_of_those_that_apply(verdicts: list[Verdict], text: str) -> None:
    assert marked(verdicts) == text
