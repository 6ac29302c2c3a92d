# SPDX-License-Identifier: GPL-2.0-only
"""What is put into a history comes out of it again."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from lab.contract import Mode
from lab.errors import ConfigurationError, InfrastructureError
from lab.history import schema
from lab.history.model import CellKey, CellRun, Row
from lab.history.questions import standings
from lab.history.store import History
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict

from .conftest import CELL, FIRST, SECOND, SERVER, THIRD, UAF, UAF_TITLE, Nights, crash, record

RUN = CellRun(
    FIRST, CELL, 0, f"{FIRST}/cells/next", "2026-11-21T21:00:00Z", 61.5, 1,
    "6.18.0-rc1", "0a1b", "~/linux at 0a1b2c", "9.2.0", "kvm", "lab1", "0.1.0",
    {"boot_seconds": 2.5},
)  # fmt: skip


def stored(history: History) -> list[int]:
    """How many lines each table has."""
    with history.reading() as connection:
        return [
            connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in schema.metadata.sorted_tables
        ]


def test_a_run_comes_out_as_it_went_in(history: History) -> None:
    history.add(RUN, RunRecord("0.1.0", RUN.started, RUN.seconds))
    assert history.runs(FIRST) == [RUN]
    assert history.nights() == [FIRST]
    assert history.cells() == [CELL]


def test_a_test_comes_out_as_a_row(history: History) -> None:
    test = replace(record("a", Verdict.BROKEN, "BIND gave 0"), folder="tests/a", splats=(UAF,))
    history.add(RUN, RunRecord("0.1.0", RUN.started, 1.0, tests=(test,)))
    assert history.tests(FIRST) == [
        Row(
            FIRST, CELL, 0, test.id, "OWN-3", Mode.IOMMUFD, Verdict.BROKEN, 1.0, "BIND gave 0",
            (UAF_TITLE,), f"{FIRST}/cells/next/tests/a", "OWN-3",
        )
    ]  # fmt: skip


def test_a_test_without_rule_mode_and_folder(history: History) -> None:
    test = TestRecord("tests/selftests/vfio::dma", "selftests", Verdict.SKIPPED, 0.5)
    history.add(RUN, RunRecord("0.1.0", RUN.started, 1.0, tests=(test,)))
    (row,) = history.tests(FIRST)
    assert (row.rule, row.mode, row.evidence, row.subject) == (None, None, "", "selftests")


def test_trouble_is_no_test(history: History) -> None:
    trouble = Trouble("a guest hung", Verdict.GUEST_LOST, splats=(UAF,))
    history.add(RUN, RunRecord("0.1.0", RUN.started, 1.0, trouble=(trouble,)))
    (row,) = history.troubles(FIRST)
    assert (row.test, row.message, row.splats) == ("", "a guest hung", (UAF_TITLE,))
    assert row.failed
    assert history.tests(FIRST) == []


def test_a_run_that_did_not_finish_has_trouble(history: History) -> None:
    history.add(RUN, RunRecord("0.1.0", RUN.started, 1.0, finished=False))
    (row,) = history.troubles(FIRST)
    assert (row.verdict, row.failed) == (Verdict.LAB_ERROR, False)


def test_a_run_that_is_added_again_is_there_once(history: History, nights: Nights) -> None:
    nights.ran(FIRST, crash("a"), record("b"), trouble=[Trouble("x")])
    before = stored(history)
    nights.ran(FIRST, crash("a"), record("b"), trouble=[Trouble("x")])
    assert stored(history) == before


def test_a_run_that_is_added_again_replaces_the_first(history: History, nights: Nights) -> None:
    nights.ran(FIRST, crash("a"), record("b"), record("c"))
    nights.ran(FIRST, record("a"), record("b", Verdict.BROKEN))
    assert [row.verdict for row in history.tests(FIRST)] == [Verdict.KEPT, Verdict.BROKEN]
    assert all(not row.splats for row in history.tests(FIRST))
    stands = {each.test: each for each in standings(history, [record(n).id for n in "abc"])}
    assert [(stands[record(n).id].passed, stands[record(n).id].failed) for n in "abc"] == [
        (1, 0),
        (0, 1),
        (0, 0),
    ]


def test_a_test_may_run_twice_in_a_run(history: History, nights: Nights) -> None:
    nights.ran(FIRST, record("a"), record("a", Verdict.BROKEN))
    assert [row.verdict for row in history.tests(FIRST)] == [Verdict.KEPT, Verdict.BROKEN]


def test_cells_come_in_order_and_attempts_as_they_were_made(nights: Nights) -> None:
    other = CellKey("a kernel", "vtd", "contract")
    nights.ran(FIRST, record("a"), attempt=1)
    nights.ran(FIRST, record("b"), record("a"))
    nights.ran(FIRST, record("a"), cell=other)
    found = [(row.cell, row.attempt, row.test) for row in nights.history.tests(FIRST)]
    assert found == [
        (other, 0, record("a").id),
        (CELL, 0, record("b").id),
        (CELL, 0, record("a").id),
        (CELL, 1, record("a").id),
    ]
    assert [run.attempt for run in nights.history.runs(FIRST)] == [0, 0, 1]
    assert len(nights.history.tests(FIRST, CELL)) == 3


def test_nights_are_told_the_newest_first(nights: Nights) -> None:
    for night in (SECOND, THIRD, FIRST):
        nights.ran(night, record("a"))
    assert nights.history.nights() == [THIRD, SECOND, FIRST]


def test_text_that_no_database_takes_is_escaped(history: History, nights: Nights) -> None:
    nights.ran(FIRST, record("a", Verdict.BROKEN, "\x00 and \udc80"))
    assert history.tests(FIRST)[0].message == "\\x00 and \\udc80"


def test_a_report_that_nobody_can_read_any_more_has_its_first_line(
    history: History, nights: Nights
) -> None:
    nights.ran(FIRST, crash("a", "something odd\nmore of it\n"))
    (row,) = history.tests(FIRST)
    assert (row.splats, row.failed) == (("something odd",), True)


def test_a_trend_has_the_whole_runs_of_a_cell_the_oldest_first(nights: Nights) -> None:
    for night in (FIRST, SECOND, THIRD):
        nights.ran(night, record("a"), record("b"), record("c", Verdict.BROKEN))
        nights.ran(night, record("c"), attempt=1)
        nights.ran(night, record("a"), cell=replace(CELL, machine="amd"))
    trend = nights.history.trend(CELL, limit=2)
    assert [point.night for point in trend] == [SECOND, THIRD]
    assert trend[0].counts == {Verdict.KEPT: 2, Verdict.BROKEN: 1}
    assert (trend[0].seconds, trend[0].kernel_key) == (60.0, f"kernel of {SECOND}")


# Several processes


def writer(url: str, night: str, count: int) -> "subprocess.Popen[str]":
    """Another process that adds `count` runs of as many cells to a night."""
    program = f"""
        from lab.history.model import CellKey, CellRun
        from lab.history.store import History
        from lab.results.record import RunRecord, TestRecord
        from lab.results.verdict import Verdict

        tests = tuple(TestRecord(f"t.py::t{{n}}", "s", Verdict.KEPT, 1.0) for n in range(20))
        for number in range({count}):
            with History.opened({url!r}) as history:
                cell = CellKey(f"k{{number}}", "vtd", "s")
                run = CellRun({night!r}, cell, 0, "f", "2026", 1.0, 0)
                history.add(run, RunRecord("0.1", "2026", 1.0, tests=tests))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stderr=subprocess.PIPE, text=True
    )


def ended(writers: Sequence["subprocess.Popen[str]"]) -> list[str]:
    """What each had to complain of."""
    return [process.communicate()[1] for process in writers]


def test_writers_at_the_same_time_lose_nothing(url: str) -> None:
    """They make the file, too."""
    nights = [FIRST, SECOND, THIRD]
    assert ended([writer(url, night, 10) for night in nights]) == ["", "", ""]
    with History.opened(url) as history:
        assert sorted(history.nights()) == nights
        assert [len(history.runs(night)) for night in nights] == [10, 10, 10]
        (first, *_) = standings(history, ["t.py::t7"])
        assert (first.passed, first.failed) == (3, 0)


def test_writers_of_the_same_run_leave_one(url: str) -> None:
    assert ended([writer(url, FIRST, 5), writer(url, FIRST, 5)]) == ["", ""]
    with History.opened(url) as history:
        assert len(history.tests(FIRST)) == 5 * 20
        assert [each.passed for each in standings(history, ["t.py::t7"])] == [1] * 5


@pytest.mark.skipif(SERVER in os.environ, reason="this is about the locks of a file")
def test_a_reader_does_not_wait_for_a_writer(history: History, nights: Nights, url: str) -> None:
    nights.ran(FIRST, record("a"))
    engine = sa.create_engine(url)
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        assert history.nights() == [FIRST]
        other.rollback()
    engine.dispose()


# Where it is


def test_a_history_is_in_the_users_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))
    with History.opened() as history:
        assert history.nights() == []
    assert (tmp_path / "state" / "history.sqlite3").exists()


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name", "sqlite://", "odd+db://x"])
def test_what_is_no_database_for_it_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="history: "), History.opened(url):
        pass


def test_a_place_that_cannot_be_written_is_the_hosts_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/history.sqlite3"
    with pytest.raises(InfrastructureError), History.opened(url):
        pass


def test_a_file_that_is_no_database_is_the_hosts_trouble(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite3").write_text("no database at all, but long enough for a header")
    url = f"sqlite:///{tmp_path}/history.sqlite3"
    with pytest.raises(InfrastructureError, match="not a database"), History.opened(url):
        pass


def test_a_password_is_not_shown() -> None:
    url = "postgresql://lab:secret@localhost:1/history?connect_timeout=1"
    with pytest.raises(InfrastructureError) as refused, History.opened(url):
        pass
    assert "secret" not in str(refused.value)
