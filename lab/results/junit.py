# SPDX-License-Identifier: GPL-2.0-only
"""A run as JUnit XML, in the form of Jenkins' junit-10.xsd, which GitLab and others read too.

| verdict                        | element                            |
|--------------------------------|------------------------------------|
| broken                         | failure                            |
| guest-lost, lab-error          | error                              |
| known, skipped, not-applicable | skipped, the verdict as its `type` |

Every test case has its evidence in system-out. What went wrong outside of a test is a case of a
suite of its own, so that no reader shows a failed run as passed.
"""

from collections.abc import Iterable, Mapping
from xml.etree import ElementTree as ET

from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict
from lab.text import printable

_ELEMENTS = {
    Verdict.BROKEN: "failure",
    Verdict.GUEST_LOST: "error",
    Verdict.LAB_ERROR: "error",
    Verdict.KNOWN: "skipped",
    Verdict.SKIPPED: "skipped",
    Verdict.NOT_APPLICABLE: "skipped",
}

# The attribute that counts, and the element of a case that it counts. A suite counts what was
# skipped as well; the schema has no such attribute on the whole.
_COUNTED = {"failures": "failure", "errors": "error"}

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
_RUN = "vfio-lab"  # the suite of what belongs to no test


def junit(record: RunRecord) -> str:
    """The XML of a run."""
    return _text([("", record)], record.seconds)


def junit_of_all(records: Mapping[str, RunRecord]) -> str:
    """That of several runs by their names: each has suites of its own, `NAME: SUITE`."""
    return _text(
        [(f"{name}: ", record) for name, record in records.items()],
        sum(record.seconds for record in records.values()),
    )


def _text(records: Iterable[tuple[str, RunRecord]], seconds: float) -> str:
    root = ET.Element("testsuites", name=_RUN, time=_time(seconds))
    for prefix, record in records:
        _suites(root, prefix, record)
    _count(root, root.iter("testcase"), _COUNTED)
    ET.indent(root, " ")
    return f"{_DECLARATION}\n{ET.tostring(root, encoding='unicode')}\n"


def _suites(root: ET.Element, prefix: str, record: RunRecord) -> None:
    suites: dict[str, list[TestRecord]] = {}
    for test in record.tests:
        suites.setdefault(test.suite, []).append(test)
    for name, tests in suites.items():
        seconds = sum(test.duration for test in tests)
        _suite(root, record, f"{prefix}{name}", seconds, [_test_case(test) for test in tests])
    if record.every_trouble:
        cases = [_trouble_case(trouble) for trouble in record.every_trouble]
        _suite(root, record, f"{prefix}{_RUN}", 0.0, cases)


def _suite(
    root: ET.Element, record: RunRecord, name: str, seconds: float, cases: list[ET.Element]
) -> None:
    suite = ET.SubElement(root, "testsuite", name=printable(name))
    _count(suite, cases, _COUNTED | {"skipped": "skipped"})
    suite.set("time", _time(seconds))
    suite.set("timestamp", record.started)
    if host := record.host.get("name"):
        suite.set("hostname", printable(str(host)))
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(record).items():
        ET.SubElement(properties, "property", name=printable(key), value=printable(value))
    suite.extend(cases)


def _count(element: ET.Element, cases: Iterable[ET.Element], counted: Mapping[str, str]) -> None:
    found = list(cases)
    element.set("tests", str(len(found)))
    for attribute, child in counted.items():
        element.set(attribute, str(sum(case.find(child) is not None for case in found)))


def _properties(record: RunRecord) -> dict[str, str]:
    """What was tested and where, flat; the whole of it is in results.json."""
    parts: Mapping[str, Mapping[str, object]] = {
        "kernel": record.kernel,
        "image": record.image,
        "machine": record.machine,
        "qemu": record.qemu,
        "host": record.host,
        "figures": record.figures,
    }
    plain = {
        f"{part}.{key}": str(value)
        for part, facts in parts.items()
        for key, value in facts.items()
        if isinstance(value, str | int | float)
    }
    selection = " ".join(record.selection)
    return {"lab.version": record.version, "accel": record.accel, "selection": selection} | plain


def _test_case(test: TestRecord) -> ET.Element:
    file, _, name = test.id.partition("::")
    case = ET.Element(
        "testcase",
        classname=printable(file.removesuffix(".py").replace("/", ".")),
        name=printable(name or file),
        time=_time(test.duration),
    )
    _outcome(case, test)
    return case


def _trouble_case(trouble: Trouble) -> ET.Element:
    first = trouble.message.partition("\n")[0]
    case = ET.Element("testcase", classname=_RUN, name=printable(first), time=_time(0.0))
    _outcome(case, trouble)
    return case


def _outcome(case: ET.Element, item: TestRecord | Trouble) -> None:
    if element := _ELEMENTS.get(item.verdict):
        outcome = ET.SubElement(case, element, type=item.verdict.value)
        outcome.set("message", printable(item.message))
        outcome.text = printable("\n".join(filter(None, (item.detail, *item.splats))))
    machine = item.machine if isinstance(item, TestRecord) else None
    if said := [*([f"machine: {machine}"] if machine else []), *item.evidence]:
        ET.SubElement(case, "system-out").text = printable("\n".join(said))


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"
