# SPDX-License-Identifier: GPL-2.0-only
"""What stands in a table, and in which order."""

from lab.contract import Mode
from lab.history.model import CellKey, Change, News, Row
from lab.page.table import Section, sections
from lab.results.verdict import Verdict

CELL = CellKey("v6.12", "vtd", "contract")
OTHER = CellKey("v6.1", "vtd", "contract")


def row(
    rule: str, verdict: Verdict = Verdict.KEPT, *, test: str = "", mode: Mode | None = Mode.IOMMUFD,
    attempt: int = 0, cell: CellKey = CELL,
) -> Row:  # fmt: skip
    name = test or f"test_{rule}[{mode}]"
    return Row("N", cell, attempt, name, rule, mode, verdict, 0.1, subject=rule)


def news(change: Change, of: Row) -> News:
    return News(change, of.cell, of.test, of.rule, of.mode, of.verdict)


def table(rows: list[Row], *told: News) -> Section:
    (section,) = sections([], rows, [], told)
    return section


def test_rows_are_in_the_contracts_order_and_modes_in_theirs() -> None:
    rows = [row("MAP-3", mode=None), row("OWN-3", mode=Mode.TYPE1), row("OWN-3")]
    section = table(rows)
    assert section.modes == [Mode.IOMMUFD, Mode.TYPE1, None]
    assert [line.subject for line in section.lines] == ["OWN-3", "MAP-3"]
    assert [bool(entry) for entry in section.lines[1].entries] == [False, False, True]


def test_new_comes_before_trouble_and_trouble_before_quiet() -> None:
    new, old = row("DMA-1", Verdict.BROKEN), row("MAP-3", Verdict.BROKEN)
    section = table([row("OWN-1"), old, new], news(Change.BROKEN, new), news(Change.STILL, old))
    assert [line.subject for line in section.lines] == ["DMA-1", "MAP-3", "OWN-1"]
    assert [entry.badges for entry in section.entries] == [["new"], [], []]


def test_test_that_failed_in_one_of_its_runs_is_not_green() -> None:
    first, again = row("OWN-3", Verdict.BROKEN), row("OWN-3", attempt=1)
    section = table([again, first], news(Change.FLAKY, first))
    (entry,) = section.entries
    assert (entry.text, entry.badges) == ("BROKEN", ["flaky"])
    assert [each.attempt for each in entry.tests[0].rows] == [0, 1]
    assert section.counts == {Verdict.BROKEN: 1}


def test_cell_shows_its_worst_verdict_and_how_many_have_it() -> None:
    rows = [row("OWN-3", test="a"), row("OWN-3", test="b"), row("OWN-3", Verdict.BROKEN, test="c")]
    assert [entry.text for entry in table(rows).entries] == ["BROKEN 1/3"]


def test_cell_with_an_alarm_comes_first() -> None:
    found = row("OWN-3", Verdict.BROKEN)
    quiet = row("OWN-3", cell=OTHER)
    made = sections([], [quiet, found], [], [news(Change.BROKEN, found)])
    assert [section.cell for section in made] == [CELL, OTHER]
    assert [section.is_quiet for section in made] == [False, True]


def test_run_with_trouble_of_its_own_is_not_quiet() -> None:
    trouble = Row("N", CELL, 0, "", None, None, Verdict.LAB_ERROR, 0.0, "the disk is full")
    (section,) = sections([], [row("OWN-3")], [trouble], [])
    assert not section.is_quiet
