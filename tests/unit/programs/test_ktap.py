# SPDX-License-Identifier: GPL-2.0-only
"""KTAP as the kernel's document describes it and as its programs print it."""

import pytest

from lab.programs.ktap import Outcome, Report, read

# The last example of Documentation/dev-tools/ktap.rst.
NESTED = """\
KTAP version 1
1..1
  KTAP version 1
  1..3
    KTAP version 1
    1..1
    # test_1: initializing test_1
    ok 1 test_1
  ok 1 example_test_1
    KTAP version 1
    1..2
    ok 1 test_1 # SKIP test_1 skipped
    ok 2 test_2
  ok 2 example_test_2
    KTAP version 1
    1..3
    ok 1 test_1
    # test_2: FAIL
    not ok 2 test_2
    ok 3 test_3 # SKIP test_3 skipped
  not ok 3 example_test_3
not ok 1 main_test
"""

# What kselftest_harness.h prints for one case of three kinds.
HARNESS = """\
TAP version 13
1..3
# Starting 3 tests from 2 test cases.
#  RUN           iommufd.simple_close ...
#            OK  iommufd.simple_close
ok 1 iommufd.simple_close
#  RUN           iommufd_ioas.mock_domain_hugepage.map ...
#      SKIP      no huge pages
#            OK  iommufd_ioas.mock_domain_hugepage.map
ok 2 iommufd_ioas.mock_domain_hugepage.map # SKIP no huge pages
# iommufd.c:99:cmd_fail:Expected -1 (-1) == 0 (0)
# cmd_fail: Test terminated by assertion
#          FAIL  iommufd.cmd_fail
not ok 3 iommufd.cmd_fail
# FAILED: 2 / 3 tests passed.
# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
"""


def outcomes(report: Report | None) -> dict[str, Outcome]:
    assert report is not None
    return {leaf.name: leaf.outcome for result in report.results for leaf in result.leaves()}


def only(line: str) -> tuple[str, Outcome, str]:
    report = read(f"TAP version 13\n1..1\n{line}\n")
    assert report is not None
    assert report.trouble is None
    (result,) = report.results
    return result.name, result.outcome, result.reason


def test_the_harness() -> None:
    report = read(HARNESS)
    assert report is not None
    assert report.trouble is None
    assert outcomes(report) == {
        "iommufd.simple_close": Outcome.PASSED,
        "iommufd_ioas.mock_domain_hugepage.map": Outcome.SKIPPED,
        "iommufd.cmd_fail": Outcome.FAILED,
    }
    assert report.results[1].reason == "no huge pages"


def test_nesting() -> None:
    report = read(NESTED)
    assert report is not None
    assert report.trouble is None
    assert outcomes(report) == {
        "main_test.example_test_1.test_1": Outcome.PASSED,
        "main_test.example_test_2.test_1": Outcome.SKIPPED,
        "main_test.example_test_2.test_2": Outcome.PASSED,
        "main_test.example_test_3.test_1": Outcome.PASSED,
        "main_test.example_test_3.test_2": Outcome.FAILED,
        "main_test.example_test_3.test_3": Outcome.SKIPPED,
    }
    assert [part.outcome for part in report.results[0].parts] == [
        Outcome.PASSED,
        Outcome.PASSED,
        Outcome.FAILED,
    ]


def test_a_failed_part_fails_the_whole_whatever_it_says_itself() -> None:
    report = read("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 a\nok 1 b\n")
    assert report is not None
    assert report.results[0].outcome is Outcome.FAILED
    assert outcomes(report) == {"b.a": Outcome.FAILED}


def test_a_failure_that_no_part_shows_is_kept() -> None:
    report = read("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 a\nnot ok 1 b # why\n")
    assert outcomes(report) == {"b.a": Outcome.PASSED, "b": Outcome.FAILED}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ok 1 fixture.case", ("fixture.case", Outcome.PASSED, "")),
        ("not ok 1 fixture.case", ("fixture.case", Outcome.FAILED, "")),
        ("ok 1", ("1", Outcome.PASSED, "")),
        ("ok 1 - kunit_style", ("kunit_style", Outcome.PASSED, "")),
        ("ok 1 two words # SKIP", ("two words", Outcome.SKIPPED, "")),
        ("not ok 1 a # SKIP no device", ("a", Outcome.SKIPPED, "no device")),
        ("ok 1 a # skip lower case", ("a", Outcome.SKIPPED, "lower case")),
        ("ok 1 # SKIP the name comes last", ("the name comes last", Outcome.SKIPPED, "")),
        ("ok 1 a # XFAIL known", ("a", Outcome.XFAILED, "known")),
        ("not ok 1 a # TODO later", ("a", Outcome.XFAILED, "later")),
        ("ok 1 a # XPASS unknown", ("a", Outcome.PASSED, "unknown")),
        ("not ok 1 a # TIMEOUT 30 seconds", ("a", Outcome.FAILED, "30 seconds")),
        ("ok 1 a # TIMEOUT 30 seconds", ("a", Outcome.FAILED, "30 seconds")),
        ("not ok 1 # error the name", ("the name", Outcome.FAILED, "")),
        ("ok 5 check return code # rcode=0", ("check return code", Outcome.PASSED, "rcode=0")),
        ("ok 1 a #  SKIP after two spaces", ("a", Outcome.PASSED, "SKIP after two spaces")),
        ("ok 1 a # SKIPPED is none either", ("a", Outcome.PASSED, "SKIPPED is none either")),
    ],
)  # fmt: skip
def test_a_line(line: str, expected: tuple[str, Outcome, str]) -> None:
    assert only(line) == expected


@pytest.mark.parametrize(
    "output", ["", "hello\n", "ok 1 without a version line\n", "ok, that was it\n", "  1..3\n"]
)
def test_what_is_no_ktap(output: str) -> None:
    assert read(output) is None


def test_unknown_lines_say_nothing() -> None:
    report = read("TAP version 13\n1..1\n  ok 7 no level was opened here\nOK 2 cooked\nok 1 a\n")
    assert outcomes(report) == {"a": Outcome.PASSED}
    assert report is not None
    assert report.trouble is None


def test_a_program_that_runs_nothing_says_why() -> None:
    report = read("1..0 # SKIP SR-IOV may not be supported by the PF: 0000:03:00.0\n")
    assert report == Report((), None, "SR-IOV may not be supported by the PF: 0000:03:00.0")


@pytest.mark.parametrize(
    ("output", "trouble"),
    [
        ("TAP version 13\n1..2\nok 1 a\n", "it announced 2 tests and reported 1"),
        ("TAP version 13\n1..1\nok 1 a\nok 2 b\n", "it announced 1 tests and reported 2"),
        ("TAP version 13\n1..2\nok 1 a\nBail out! no iommufd\n", "it bailed out: no iommufd"),
        ("KTAP version 1\n1..0\n  KTAP version 1\n  ok 1 a\n", "it ended in the middle of a test"),
    ],
)
def test_results_that_are_not_all(output: str, trouble: str) -> None:
    report = read(output)
    assert report is not None
    assert report.trouble == trouble


def test_parts_that_are_not_all_fail_the_whole() -> None:
    report = read("KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 a\nok 1 b\n")
    assert report is not None
    assert report.results[0].outcome is Outcome.FAILED
    assert report.results[0].reason == "it announced 2 tests and reported 1"


def test_two_reports_behind_each_other() -> None:
    report = read("TAP version 13\n1..1\nok 1 a\nTAP version 13\n1..1\nok 1 b\n")
    assert outcomes(report) == {"a": Outcome.PASSED, "b": Outcome.PASSED}
    assert report is not None
    assert report.trouble is None
