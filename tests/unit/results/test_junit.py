# SPDX-License-Identifier: GPL-2.0-only
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from lab.results.junit import junit
from lab.results.record import RunRecord, Trouble

# What Jenkins' junit-10.xsd allows: an element's attributes (required, others) and children.
SCHEMA = {
    "testsuites": ("", "name time tests failures errors", "testsuite"),
    "testsuite": (
        "name tests failures errors",
        "group time skipped timestamp hostname id package file log url",
        "testsuite properties testcase system-out system-err",
    ),
    "properties": ("", "", "property"),
    "property": ("name value", "", ""),
    "testcase": ("name", "time classname group", "skipped error failure system-out system-err"),
    "skipped": ("", "type message", ""),
    "failure": ("", "type message", ""),
    "error": ("", "type message", ""),
    "system-out": ("", "", ""),
}


@pytest.fixture
def root(record: RunRecord) -> ET.Element:
    return ET.fromstring(junit(record))


def case(root: ET.Element, name: str) -> ET.Element:
    return next(case for case in root.iter("testcase") if case.get("name") == name)


def test_the_schema_is_kept(record: RunRecord) -> None:
    root = ET.fromstring(junit(replace(record, trouble=(Trouble("no QEMU"),))))
    assert root.tag == "testsuites"
    for element in root.iter():
        required, others, children = (words.split() for words in SCHEMA[element.tag])
        assert set(required) <= set(element.attrib) <= {*required, *others}, element.tag
        assert {child.tag for child in element} <= set(children), element.tag


def test_a_suite_counts_its_cases(root: ET.Element) -> None:
    counts = {
        suite.get("name"): [suite.get(a) for a in ("tests", "failures", "errors", "skipped")]
        for suite in root.iter("testsuite")
    }
    assert counts == {"contract": ["10", "1", "2", "4"], "selftests": ["1", "0", "0", "0"]}
    assert [root.get(a) for a in ("tests", "failures", "errors")] == ["11", "1", "2"]


@pytest.mark.parametrize(
    ("name", "element", "kind"),
    [
        ("test_second_bind_is_refused[iommufd]", "failure", "broken"),
        ("lost", "error", "guest-lost"),
        ("error", "error", "lab-error"),
        ("old", "skipped", "known"),
        ("token", "skipped", "skipped"),
        ("none", "skipped", "not-applicable"),
    ],
)
def test_a_verdict_has_its_element(root: ET.Element, name: str, element: str, kind: str) -> None:
    found = case(root, name).find(element)
    assert found is not None
    assert found.get("type") == kind
    assert found.get("message")


def test_a_kept_rule_has_no_outcome(root: ET.Element) -> None:
    assert list(case(root, "dma")) == []


def test_text_is_escaped_and_whole(root: ET.Element) -> None:
    failure = case(root, "test_second_bind_is_refused[iommufd]").find("failure")
    assert failure is not None
    assert failure.get("message") == "BIND <again> gave 0 & not EINVAL"
    assert failure.text is not None
    assert failure.text.splitlines()[-1] == r"E  \x1b[31mFailed\x1b[0m \x00 \udc80"
    assert failure.text.startswith("test_ownership.py:1: in frame 1\n")


def test_a_case_names_its_place_time_and_evidence(root: ET.Element) -> None:
    found = case(root, "test_second_bind_is_refused[iommufd]")
    assert found.get("classname") == "tests.contract.test_ownership"
    assert found.get("time") == "1.250"
    assert found.findtext("system-out") == "machine: vtd\nguests/001/console.log"


def test_a_splat_is_in_the_text(root: ET.Element) -> None:
    assert case(root, "lost").findtext("error") == "BUG: KASAN: use-after-free\n RIP: 0010"


def test_properties_say_what_was_tested(root: ET.Element) -> None:
    found = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert found["kernel.release"] == "6.12.57"
    assert found["machine.name"] == "vtd"
    assert found["qemu.version"] == "9.2.0"
    assert found["accel"] == "tcg"
    assert found["figures.boot_seconds"] == "4.5"


@pytest.mark.parametrize("finished", [True, False])
def test_an_empty_run_is_an_error(record: RunRecord, finished: bool) -> None:
    root = ET.fromstring(junit(replace(record, tests=(), finished=finished)))
    assert root.get("errors") == "1"
