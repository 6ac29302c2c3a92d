# SPDX-License-Identifier: GPL-2.0-only
from dataclasses import replace

import pytest

from lab.programs.ktap import Outcome, Report, Result, read
from lab.results.ktap import ktap, ktap_of_all
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict

OUTCOMES = {
    Verdict.NOT_APPLICABLE: Outcome.SKIPPED,
    Verdict.KEPT: Outcome.PASSED,
    Verdict.SKIPPED: Outcome.SKIPPED,
    Verdict.KNOWN: Outcome.XFAILED,
    Verdict.BROKEN: Outcome.FAILED,
    Verdict.GUEST_LOST: Outcome.FAILED,
    Verdict.LAB_ERROR: Outcome.FAILED,
}
TRICKS = (
    "SKIP this",
    "timeout after 3 s",
    "a # SKIP b",
    "one\nok 2 another",
    "one\u2028ok 2 another",
    "one\x85ok 2 another",
    "\x1b[31mred\x00",
    "",
)


def report_of(text: str) -> Report:
    found = read(text)
    assert found is not None
    assert found.trouble is None
    return found


def leaves(text: str) -> list[Result]:
    return [leaf for result in report_of(text).results for leaf in result.leaves()]


def a_run(*tests: TestRecord) -> RunRecord:
    return RunRecord("0.1.0", "2025-11-22T12:59:00Z", 1.0, tests=tests)


def test_every_verdict_is_read_back(record: RunRecord) -> None:
    by_name = {test.id.partition("::")[2]: test for test in record.tests}
    found = leaves(ktap(record))
    assert len(found) == len(record.tests)
    for leaf in found:
        suite, subject, name = leaf.name.split(".", 2)
        test = by_name[name]
        assert (suite, subject) == (test.suite, test.subject)
        assert leaf.outcome is OUTCOMES[test.verdict]


def test_a_rule_s_tests_are_its_parts(record: RunRecord) -> None:
    suites = {suite.name: suite for suite in report_of(ktap(record)).results}
    assert {name: suite.outcome for name, suite in suites.items()} == {
        "selftests": Outcome.PASSED,
        "contract": Outcome.FAILED,
    }
    rules = {rule.name: rule for rule in suites["contract"].parts}
    assert len(rules["OWN-3"].parts) == 4
    assert rules["OWN-3"].outcome is Outcome.FAILED
    assert rules["SRV-1"].outcome is Outcome.SKIPPED
    assert rules["MAP-6"].outcome is Outcome.PASSED  # XFAIL fails nothing


def test_what_was_missing_and_what_happened_is_said(record: RunRecord) -> None:
    reasons = {leaf.name: leaf.reason for leaf in leaves(ktap(record))}
    broken = "contract.OWN-3.test_second_bind_is_refused[iommufd]"
    assert reasons[broken] == "broken: BIND <again> gave 0 & not EINVAL"
    assert reasons["contract.SRV-1.token"] == "QEMU has no igb"
    assert reasons["contract.NOIO-1.none"] == "not applicable: this machine has an IOMMU"
    assert reasons["contract.LIFE-4.lost"] == "guest lost: the guest panicked"


def test_diagnostics_stand_before_their_result(record: RunRecord) -> None:
    lines = [line.strip() for line in ktap(record).splitlines()]
    result = lines.index("not ok 1 lost # ERROR guest lost: the guest panicked")
    assert lines[result - 4 : result] == [
        "# lost: 9.000 s",
        "# lost: BUG: KASAN: use-after-free",
        "#  RIP: 0010",
        "# lost: evidence: guests/002/console.log",
    ]


@pytest.mark.parametrize("words", TRICKS)
def test_others_words_are_neither_a_directive_nor_a_line(words: str, broken: TestRecord) -> None:
    test = replace(
        broken, id=f"a.py::{words}", message=words, detail=words, splats=(words,), suite=words,
        rule=words,
    )  # fmt: skip
    text = ktap(a_run(test))
    assert [leaf.outcome for leaf in leaves(text)] == [Outcome.FAILED]
    assert text.replace("\n", "").isprintable()
    assert all(line.count("#") <= 1 for line in text.splitlines() if "ok " in line.split("#")[0])


def test_trouble_outside_of_a_test_fails_the_run() -> None:
    record = replace(a_run(), trouble=(Trouble("no QEMU\nat all"),))
    assert leaves(ktap(record)) == [
        Result("vfio-lab.no QEMU", Outcome.FAILED, "no QEMU at all"),
    ]


def test_a_run_of_nothing_has_not_passed() -> None:
    assert [leaf.outcome for leaf in leaves(ktap(a_run()))] == [Outcome.FAILED]


def test_a_night_s_runs_are_its_parts(record: RunRecord, broken: TestRecord) -> None:
    fine = a_run(replace(broken, verdict=Verdict.KEPT))
    text = ktap_of_all({"v6.12 on vtd: contract": record, "v6.12 on no-iommu: contract": fine})
    assert text.splitlines()[:4] == [
        "KTAP version 1",
        "1..2",
        "  KTAP version 1",
        "  1..2",
    ]
    assert [(run.name, run.outcome) for run in report_of(text).results] == [
        ("v6.12 on vtd: contract", Outcome.FAILED),
        ("v6.12 on no-iommu: contract", Outcome.PASSED),
    ]


def test_a_night_without_runs_is_ktap() -> None:
    assert report_of(ktap_of_all({})).results == ()
