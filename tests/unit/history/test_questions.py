# SPDX-License-Identifier: GPL-2.0-only
"""What one asks a history, and what it answers."""

from dataclasses import replace

import pytest

from lab.errors import ConfigurationError
from lab.history.questions import Moment, Standing, seen, standings, summaries
from lab.history.subject import Subject, subject_of
from lab.results.record import Trouble
from lab.results.verdict import Verdict

from .conftest import CELL, FIRST, FOURTH, SECOND, THIRD, UAF, UAF_TITLE, Nights, crash, record

BROKEN = Verdict.BROKEN
AMD = replace(CELL, machine="amd")


def moment(night: str) -> Moment:
    """As `Nights.ran` has it by default."""
    return Moment(night, "6.12.57", f"at {night}", f"kernel of {night}")


def one(nights: Nights, name: str = "a") -> Standing:
    (standing,) = standings(nights.history, [record(name).id])
    return standing


def test_a_test_that_always_passed_says_when_it_did_last(nights: Nights) -> None:
    for night in (FIRST, SECOND):
        nights.ran(night, record("a"), record("b", BROKEN))
    standing = one(nights)
    assert standing.cell == CELL
    assert (standing.passed, standing.failed) == (2, 0)
    assert standing.last_good == moment(SECOND)
    assert (standing.last_bad, standing.first_bad) == (None, None)


def test_a_test_that_fails_says_first_bad_and_last_good(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a"))
    nights.ran(THIRD, record("a", BROKEN))
    nights.ran(FOURTH, record("a", BROKEN))
    standing = one(nights)
    assert standing.last_good == moment(SECOND)
    assert standing.first_bad == moment(THIRD)
    assert standing.last_bad == moment(FOURTH)


def test_what_failed_once_and_passes_again_has_no_first_bad(nights: Nights) -> None:
    nights.ran(FIRST, record("a", BROKEN))
    nights.ran(SECOND, record("a"))
    standing = one(nights)
    assert (standing.last_bad, standing.first_bad) == (moment(FIRST), None)


def test_what_never_passed_was_bad_from_its_first_night(nights: Nights) -> None:
    nights.ran(SECOND, record("a", BROKEN))
    nights.ran(FIRST, record("a", BROKEN))
    standing = one(nights)
    assert (standing.last_good, standing.first_bad) == (None, moment(FIRST))


def test_the_lab_s_own_trouble_is_no_answer(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a", Verdict.LAB_ERROR), record("a", Verdict.SKIPPED))
    standing = one(nights)
    assert (standing.passed, standing.failed) == (1, 0)
    assert standing.last_good == moment(FIRST)


def test_another_test_that_passes_does_not_count(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), record("b"))
    nights.ran(SECOND, record("a", BROKEN), record("b"))
    standing = one(nights)
    assert (standing.last_good, standing.first_bad) == (moment(FIRST), moment(SECOND))


def test_a_crash_is_a_failure(nights: Nights) -> None:
    nights.ran(FIRST, crash("a"))
    assert one(nights).first_bad == moment(FIRST)


def test_each_cell_stands_for_itself(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(FIRST, record("a", BROKEN), cell=AMD)
    amd, vtd = standings(nights.history, [record("a").id])
    assert (amd.cell, amd.failed, amd.last_good) == (AMD, 1, None)
    assert (vtd.cell, vtd.failed, vtd.last_good) == (CELL, 0, moment(FIRST))


def test_a_kernel_or_a_machine_may_be_asked_for(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(FIRST, record("a"), cell=AMD)
    names = [record("a").id]
    assert [each.cell for each in standings(nights.history, names, machine="amd")] == [AMD]
    assert standings(nights.history, names, kernel="v6.12") == []


def test_failures_on_bits_that_passed_too_are_flakes(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), key="same")
    nights.ran(SECOND, record("a", BROKEN), key="same")
    nights.ran(SECOND, record("a"), key="same", attempt=1)
    nights.ran(THIRD, record("a"))
    standing = one(nights)
    assert (standing.flaked, standing.runs) == (1, 4)
    low, high = standing.interval
    assert low < 1 / 4 < high


def test_failures_on_bits_that_never_passed_are_none(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a", BROKEN), record("b"))
    nights.ran(SECOND, record("a", BROKEN), attempt=1)
    standing = one(nights)
    assert (standing.failed, standing.flaked, standing.runs) == (2, 0, 1)


def test_another_lab_s_are_not_the_same_bits(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), key="same", lab="0.1")
    nights.ran(SECOND, record("a", BROKEN), key="same", lab="0.2")
    assert one(nights).flaked == 0


def test_another_cell_s_are_not_the_same_bits(nights: Nights) -> None:
    nights.ran(FIRST, record("a"), key="same", cell=AMD)
    nights.ran(FIRST, record("a", BROKEN), key="same")
    assert [each.flaked for each in standings(nights.history, [record("a").id])] == [0, 0]


def test_a_splat_says_where_and_when_it_was_seen(nights: Nights) -> None:
    nights.ran(FIRST, crash("a"))
    nights.ran(SECOND, record("a"))
    nights.ran(THIRD, crash("b"), crash("a"))
    nights.ran(THIRD, record("a"), cell=AMD, trouble=[Trouble("x", BROKEN, splats=(UAF,))])
    amd, vtd = seen(nights.history, UAF_TITLE)
    assert (amd.cell, amd.nights, amd.tests) == (AMD, 1, ())
    assert (vtd.nights, vtd.first, vtd.last) == (2, moment(FIRST), moment(THIRD))
    assert vtd.tests == (record("a").id, record("b").id)


def test_nights_are_summed_up_by_their_whole_runs(nights: Nights) -> None:
    nights.ran(FIRST, record("a"))
    nights.ran(SECOND, record("a"), record("b", BROKEN))
    nights.ran(SECOND, record("b"), attempt=1)
    nights.ran(SECOND, record("a"), cell=AMD)
    second, first = summaries(nights.history, 10)
    assert (second.night, second.cells, second.seconds) == (SECOND, 2, 120.0)
    assert second.counts == {Verdict.KEPT: 2, BROKEN: 1}
    assert first.night == FIRST
    assert [each.night for each in summaries(nights.history, 1)] == [SECOND]


# What is asked for


@pytest.fixture
def told(nights: Nights) -> Nights:
    nights.ran(
        FIRST,
        record("test_second_bind"),
        record("test_second_bind_of_another"),
        record("test_unbind", rule="OWN-4"),
        record("test_map", rule=None),
        crash("test_crash"),
    )
    return nights


@pytest.mark.parametrize("word", ["OWN-4", "own-4"])
def test_a_rule_is_asked_for_by_its_id(told: Nights, word: str) -> None:
    assert subject_of(told.history, word) == Subject("OWN-4", (record("test_unbind").id,))


@pytest.mark.parametrize("word", ["test_unbind", "unbi", "test_unbind[iommufd]", "UNBIND"])
def test_a_test_is_asked_for_by_its_name_or_a_part_of_it(told: Nights, word: str) -> None:
    assert subject_of(told.history, word).tests == (record("test_unbind").id,)


def test_a_test_whose_name_is_the_beginning_of_another_is_itself(told: Nights) -> None:
    assert subject_of(told.history, "test_second_bind").tests == (record("test_second_bind").id,)


def test_a_test_is_meant_in_all_its_modes(told: Nights) -> None:
    other = replace(record("test_map"), id=record("test_map").id.replace("iommufd", "type1"))
    told.ran(SECOND, other)
    subject = subject_of(told.history, "test_map")
    assert subject.name == "tests/contract/test_ownership.py::test_map"
    assert len(subject.tests) == 2


@pytest.mark.parametrize("word", [UAF_TITLE, "group_fops_open", "kasan"])
def test_a_splat_is_asked_for_by_a_part_of_its_title(told: Nights, word: str) -> None:
    subject = subject_of(told.history, word)
    assert (subject.name, subject.is_splat) == (UAF_TITLE, True)


def test_what_may_be_several_things_is_refused_with_their_names(told: Nights) -> None:
    with pytest.raises(ConfigurationError) as refused:
        subject_of(told.history, "second_bind")
    assert "may be any of 2" in str(refused.value)
    assert "::test_second_bind_of_another" in str(refused.value)


def test_what_is_not_there_is_refused_with_what_may_be_meant(told: Nights) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'test_unbind'"):
        subject_of(told.history, "test_unbnid")


def test_a_pattern_is_no_part_of_a_name(told: Nights) -> None:
    with pytest.raises(ConfigurationError, match="has no rule"):
        subject_of(told.history, "test%bind")
