# SPDX-License-Identifier: GPL-2.0-only
"""What is new about a night, a case at a time."""

from dataclasses import replace

import pytest

from lab.history.model import CellKey, Change, News
from lab.history.news import MEMORY
from lab.results.record import Trouble
from lab.results.verdict import Verdict

from .conftest import CELL, FIRST, FOURTH, SECOND, THIRD, UAF, UAF_TITLE, Nights, crash, record

KEPT, BROKEN, KNOWN = Verdict.KEPT, Verdict.BROKEN, Verdict.KNOWN
LOST, SKIPPED = Verdict.GUEST_LOST, Verdict.SKIPPED
LAB_ERROR = Verdict.LAB_ERROR
UNFINISHED = Trouble("the run did not finish")


def changes(news: tuple[News, ...]) -> list[Change]:
    return [each.change for each in news]


# Broken


def test_a_test_that_fails_and_was_kept_the_night_before_is_newly_broken(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a", BROKEN, "BIND gave 0\nand more"))
    news = nights.one(SECOND)
    assert news.change is Change.BROKEN
    assert news.test == record("a").id
    assert (news.rule, news.mode, news.verdict) == ("OWN-3", "iommufd", BROKEN)
    assert news.message == "BIND gave 0"
    assert (news.since, news.nights) == (SECOND, 1)
    assert (news.before, news.before_night) == (KEPT, FIRST)
    assert news.before_key == f"kernel of {FIRST}"
    assert (news.passed, news.runs) == (0, 1)


def test_a_new_test_that_fails_is_newly_broken(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a"), record("b", BROKEN))
    news = nights.one(SECOND)
    assert (news.change, news.before, news.before_night) == (Change.BROKEN, None, "")


def test_the_very_first_night_has_news(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN), record("b"))
    assert nights.one(FIRST).change is Change.BROKEN


def test_all_attempts_that_fail_are_one_news_of_the_last(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a", BROKEN, "first"))
    nights.ran(SECOND, replace(record("a", BROKEN, "again"), folder="tests/a"), attempt=1)
    news = nights.one(SECOND)
    assert (news.change, news.passed, news.runs) == (Change.BROKEN, 0, 2)
    assert news.message == "again"
    assert news.evidence == f"{SECOND}/cells/next-1/tests/a"


def test_a_crash_is_newly_broken(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), crash("b"))
    nights.ran(SECOND, crash("a"), crash("b"))
    news = nights.news(SECOND)
    assert changes(news) == [Change.BROKEN, Change.STILL]
    assert news[0].splats == (UAF_TITLE,)
    assert news[0].verdict is LOST


def test_nights_without_an_answer_are_passed_over(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a", LAB_ERROR))
    nights.ran(THIRD, record("a", BROKEN))
    news = nights.one(THIRD)
    assert (news.change, news.before_night) == (Change.BROKEN, FIRST)


def test_a_known_deviation_that_becomes_another_is_newly_broken(nights: Nights) -> None:
    nights.ran(FIRST, record("a", KNOWN))
    nights.ran(SECOND, record("a", BROKEN))
    news = nights.one(SECOND)
    assert (news.change, news.before) == (Change.BROKEN, KNOWN)


def test_a_known_deviation_is_no_news(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a", KNOWN))
    assert nights.news(SECOND) == ()


def test_another_cell_is_no_past(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN), cell=replace(CELL, machine="amd"))
    nights.ran(SECOND, record("a", BROKEN))
    assert nights.one(SECOND).change is Change.BROKEN


def test_what_came_later_is_no_past(nights: Nights) -> None:
    nights.ran(SECOND, record("a", BROKEN))
    nights.ran(FIRST, record("a", BROKEN))
    assert nights.one(FIRST).change is Change.BROKEN


# Still broken


def test_what_was_broken_before_is_still_broken_since_then(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    for night in (SECOND, THIRD, FOURTH):
        nights.ran(night, record("a", BROKEN))
    news = nights.one(FOURTH)
    assert (news.change, news.since, news.nights) == (Change.STILL, SECOND, 3)
    assert (news.before, news.before_night) == (KEPT, FIRST)


def test_a_night_without_an_answer_does_not_end_the_row(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN))
    nights.ran(SECOND, record("a", LAB_ERROR))
    nights.ran(THIRD, record("a", BROKEN))
    news = nights.one(THIRD)
    assert (news.change, news.since, news.nights) == (Change.STILL, FIRST, 2)


def test_broken_on_the_same_bits_is_still_broken(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN), key="same")
    nights.ran(SECOND, record("a", BROKEN), key="same")
    news = nights.one(SECOND)
    assert (news.change, news.passed, news.runs) == (Change.STILL, 0, 2)


# Mended


def test_what_was_broken_and_is_kept_is_newly_mended(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN))
    nights.ran(SECOND, record("a"))
    news = nights.one(SECOND)
    assert (news.change, news.verdict, news.before) == (Change.MENDED, KEPT, BROKEN)
    assert (news.since, news.before_night, news.nights) == (SECOND, FIRST, 1)
    assert news.before_key == f"kernel of {FIRST}"
    assert news.message == f"broken until {FIRST}"


def test_mended_is_told_once(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN))
    nights.ran(SECOND, record("a"))
    nights.ran(THIRD, record("a"))
    assert nights.news(THIRD) == ()


def test_what_was_skipped_for_long_since_it_was_broken_is_mended(nights: Nights) -> None:
    nights.ran("20260100", record("a", BROKEN))
    for day in range(1, MEMORY + 2):
        nights.ran(f"202601{day:02}", record("a", SKIPPED))
    nights.ran("20260201", record("a"))
    news = nights.one("20260201")
    assert (news.change, news.before_night) == (Change.MENDED, "20260100")


def test_what_is_skipped_is_not_mended(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN))
    nights.ran(SECOND, record("a", SKIPPED))
    assert changes(nights.news(SECOND)) == [Change.GONE]


# Flaky


def test_a_test_that_fails_and_passes_tonight_is_flaky(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a", BROKEN, "BIND gave 0"))
    nights.ran(SECOND, record("a"), attempt=1)
    nights.ran(SECOND, record("a"), attempt=2)
    news = nights.one(SECOND)
    assert (news.change, news.passed, news.runs) == (Change.FLAKY, 2, 3)
    assert news.verdict is BROKEN
    assert news.message == "failed in 1 of 3 runs on the same bits: BIND gave 0"


def test_a_new_test_may_be_flaky(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN))
    nights.ran(FIRST, record("a"), attempt=1)
    assert nights.one(FIRST).change is Change.FLAKY


def test_a_test_that_fails_on_bits_that_it_passed_on_is_flaky(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), key="same")
    nights.ran(SECOND, record("a", BROKEN), key="same")
    news = nights.one(SECOND)
    assert (news.change, news.passed, news.runs) == (Change.FLAKY, 1, 2)
    assert (news.since, news.nights) == (SECOND, 1)


def test_a_test_that_passes_on_bits_that_it_failed_on_is_flaky_and_not_mended(
    nights: Nights,
) -> None:
    nights.ran(FIRST, record("a", BROKEN), key="same")
    nights.ran(SECOND, record("a"), key="same")
    news = nights.one(SECOND)
    assert (news.change, news.since, news.nights) == (Change.FLAKY, FIRST, 2)


def test_a_flaky_test_stays_in_doubt_on_the_same_bits_for_a_while(nights: Nights) -> None:
    nights.ran("20260100", record("a", BROKEN), key="same")
    for day in range(1, MEMORY + 2):
        nights.ran(f"202601{day:02}", record("a"), key="same")
    assert nights.one(f"202601{MEMORY:02}").change is Change.FLAKY
    assert nights.news(f"202601{MEMORY + 1:02}") == ()


def test_what_has_failed_for_long_on_the_same_bits_is_broken_and_not_flaky(nights: Nights) -> None:
    nights.ran("20260100", record("a"), key="same")
    for day in range(1, MEMORY + 2):
        nights.ran(f"202601{day:02}", record("a", BROKEN), key="same")
    assert nights.one(f"202601{MEMORY:02}").change is Change.FLAKY
    assert nights.one(f"202601{MEMORY + 1:02}").change is Change.STILL


def test_what_was_only_flaky_is_not_mended(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN))
    nights.ran(FIRST, record("a"), attempt=1)
    nights.ran(SECOND, record("a"))
    assert nights.news(SECOND) == ()


def test_bits_of_another_lab_are_others(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN), key="same", lab="0.1")
    nights.ran(SECOND, record("a"), key="same", lab="0.2")
    assert nights.one(SECOND).change is Change.MENDED


def test_bits_that_nobody_knows_are_not_the_same(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN), key=None)
    nights.ran(SECOND, record("a"), key=None)
    assert nights.one(SECOND).change is Change.MENDED


def test_a_flaky_night_was_not_a_broken_one(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN))
    nights.ran(FIRST, record("a"), attempt=1)
    nights.ran(SECOND, record("a", BROKEN))
    news = nights.one(SECOND)
    assert (news.change, news.before_night) == (Change.BROKEN, FIRST)


# Splats


def test_a_splat_that_no_night_had_is_new(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, crash("a"))
    news = nights.news(SECOND)
    assert changes(news) == [Change.BROKEN, Change.SPLAT]
    assert (news[1].message, news[1].splats) == (UAF_TITLE, (UAF_TITLE,))
    assert news[1].test == record("a").id


def test_a_splat_that_any_cell_had_is_not_new(nights: Nights) -> None:
    nights.ran(FIRST, crash("b"), cell=replace(CELL, kernel="v6.12"))
    nights.ran(SECOND, crash("a"))
    assert changes(nights.news(SECOND)) == [Change.BROKEN]


def test_a_splat_of_a_run_is_new(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a"), trouble=[Trouble("at the end", BROKEN, splats=(UAF,))])
    news = nights.news(SECOND)
    assert changes(news) == [Change.BROKEN, Change.SPLAT]
    assert [each.test for each in news] == ["", ""]


def test_a_splat_is_told_once_for_a_cell(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), record("b"))
    nights.ran(SECOND, crash("a"), crash("b"))
    assert changes(nights.news(SECOND)).count(Change.SPLAT) == 1


# Not tested


@pytest.mark.parametrize("verdict", [LOST, LAB_ERROR])
def test_a_test_that_the_lab_lost_is_not_tested(nights: Nights, verdict: Verdict) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a", verdict, "no room"))
    nights.ran(THIRD, record("a", verdict, "no room"))
    news = nights.one(THIRD)
    assert (news.change, news.message) == (Change.LOST, "no room")
    assert (news.since, news.nights) == (SECOND, 2)
    assert (news.before, news.before_night) == (KEPT, FIRST)


def test_a_test_that_an_attempt_answers_is_tested(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a", LAB_ERROR))
    nights.ran(SECOND, record("a"), attempt=1)
    assert nights.news(SECOND) == ()


def test_a_run_that_broke_off_is_told_once_with_what_it_lacks(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), record("b"), record("c", rule="DMA-1"))
    nights.ran(SECOND, record("a"), trouble=[UNFINISHED])
    news = nights.one(SECOND)
    assert (news.change, news.test) == (Change.LOST, "")
    assert news.message == "the run did not finish; 2 more did not run"


def test_a_part_that_went_well_does_not_stand_for_the_whole(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a"), trouble=[UNFINISHED])
    nights.ran(SECOND, record("a"), attempt=1)
    assert nights.one(SECOND).change is Change.LOST


def test_a_kernel_that_does_not_boot_is_broken_and_then_still_broken(nights: Nights) -> None:
    panic = Trouble("the guest panicked at boot", LOST, splats=(UAF,))
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, trouble=[panic])
    nights.ran(THIRD, trouble=[panic])
    assert changes(nights.news(SECOND)) == [Change.BROKEN, Change.SPLAT]
    news = nights.one(THIRD)
    assert (news.change, news.since, news.before_night) == (Change.STILL, SECOND, FIRST)


# Not run any more


def test_a_rule_of_which_no_test_runs_is_gone(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), record("b", rule="DMA-1"), record("c", rule="DMA-1"))
    nights.ran(SECOND, record("a"))
    news = nights.one(SECOND)
    assert (news.change, news.rule, news.test) == (Change.GONE, "DMA-1", "")
    assert news.message == f"none of its tests (2): it ran in {FIRST}"
    assert news.before_night == FIRST


def test_a_test_of_a_rule_that_still_runs_is_gone_alone(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), record("b"))
    nights.ran(SECOND, record("a"))
    news = nights.one(SECOND)
    assert (news.change, news.test, news.before) == (Change.GONE, record("b").id, KEPT)


def test_a_test_that_is_skipped_now_is_gone_and_says_why(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), record("b"))
    nights.ran(SECOND, record("a"), record("b", SKIPPED, "QEMU has no igb"))
    news = nights.one(SECOND)
    assert (news.change, news.verdict) == (Change.GONE, SKIPPED)
    assert news.message == f"skipped: QEMU has no igb; it ran in {FIRST}"


def test_gone_is_told_once(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), record("b"))
    nights.ran(SECOND, record("a"))
    nights.ran(THIRD, record("a"))
    assert nights.news(THIRD) == ()


def test_a_planned_cell_that_did_not_run_is_gone_for_so_many_nights(nights: Nights) -> None:
    other = replace(CELL, machine="amd")
    nights.ran(FIRST, record("a"))
    for night in (SECOND, THIRD):
        nights.ran(night, record("a"), cell=other)
    news = nights.one(THIRD, CELL, other)
    assert (news.change, news.cell, news.test) == (Change.GONE, CELL, "")
    assert (news.since, news.nights, news.before_night) == (SECOND, 2, FIRST)


def test_a_planned_cell_that_has_never_run_is_told(nights: Nights) -> None:
    other = replace(CELL, machine="amd")
    nights.ran(FIRST, record("a"))
    news = nights.one(FIRST, CELL, other)
    assert (news.change, news.cell) == (Change.GONE, other)
    assert news.message == "the cell has never run"


def test_a_cell_that_nobody_plans_any_more_is_no_news(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), cell=replace(CELL, machine="amd"))
    nights.ran(SECOND, record("a"))
    assert nights.news(SECOND, CELL) == ()


# The base


def test_the_base_of_a_series_is_its_kernel_without_it(nights: Nights) -> None:
    patched = replace(CELL, series="fix")
    nights.ran(FIRST, record("a", BROKEN))
    nights.ran(FIRST, record("a", BROKEN), cell=patched)
    of_series = next(news for news in nights.news(FIRST, CELL, patched) if news.cell == patched)
    assert of_series.base is BROKEN


def test_the_base_of_a_variant_is_the_next_that_was_run(nights: Nights) -> None:
    variant = CellKey("v6.12+kasan+lockdep", "vtd", "contract")
    nights.ran(FIRST, record("a"), cell=replace(variant, kernel="v6.12"))
    nights.ran(FIRST, record("a", BROKEN), cell=variant)
    assert nights.one(FIRST, variant).base is KEPT


def test_a_cell_that_varies_nothing_has_no_base(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN))
    assert nights.one(FIRST).base is None


# All of it


def test_what_matters_most_is_first(nights: Nights) -> None:
    nights.ran(
        FIRST,
        record("a_mended", BROKEN),
        record("b_still", BROKEN),
        *(record(name) for name in ("c_gone", "d_lost", "e_flaky", "f_broken")),
    )
    nights.ran(
        SECOND,
        record("a_mended"),
        record("b_still", BROKEN),
        record("d_lost", LAB_ERROR),
        record("e_flaky", BROKEN),
        crash("f_broken"),
    )
    nights.ran(SECOND, record("e_flaky"), attempt=1)
    assert changes(nights.news(SECOND)) == list(Change)


def test_a_quiet_night_has_none(nights: Nights) -> None:
    for night in (FIRST, SECOND):
        nights.ran(night, record("a"), record("b", KNOWN), record("c", SKIPPED))
    assert nights.news(SECOND) == ()
