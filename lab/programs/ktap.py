# SPDX-License-Identifier: GPL-2.0-only
"""The Kernel Test Anything Protocol, read as Documentation/dev-tools/ktap.rst has it.

PyPI's tap.py (3.2) reads TAP only: KTAP's version line, nesting and directives it passes over.
What programs print beyond the document is read as tools/testing/selftests/kselftest.h writes it
(`ok 3 # SKIP name`) and tools/testing/kunit/kunit_parser.py reads it (`ok 1 - name`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

# Between "#" and a directive there is one space: the harness writes two before words that are none
# (kselftest.h: ksft_test_result_code()).
_START = re.compile(r"^(?P<indent> *)K?TAP version \d+$")
_PLAN = re.compile(r"^(?P<indent> *)1\.\.(?P<count>\d+)(?: # SKIP ?(?P<skipped>.*))?$")
_RESULT = re.compile(
    r"^(?P<indent> *)(?P<not>not )?ok (?P<number>\d+)(?: -)?(?: (?P<name>[^#]*?))?"
    r" *(?:#(?: (?P<directive>(?i:SKIP|TODO|XFAIL|XPASS|TIMEOUT|ERROR))\b)? *(?P<reason>.*))?$"
)
_BAIL_OUT = re.compile(r"^Bail out!\s*(?P<why>.*)$")


class Outcome(StrEnum):
    """What a result line says."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    """It failed, as was expected of it."""


@dataclass(frozen=True)
class Result:
    """One test. A test of which a part failed has failed, whatever its own line says."""

    name: str
    outcome: Outcome
    reason: str = ""
    parts: tuple["Result", ...] = ()

    def leaves(self, above: str = "") -> Iterator["Result"]:
        """The tests at the bottom, named with those above them: "suite.case"."""
        path = f"{above}.{self.name}" if above else self.name
        for part in self.parts:
            yield from part.leaves(path)
        # A failure of its own, which no part shows, would be lost.
        unexplained = self.outcome is Outcome.FAILED and not any(
            part.outcome is Outcome.FAILED for part in self.parts
        )
        if not self.parts or unexplained:
            yield Result(path, self.outcome, self.reason)


@dataclass(frozen=True)
class Report:
    """All that a program said."""

    results: tuple[Result, ...]
    trouble: str | None = None
    """Why the results are not all of them."""
    skipped: str | None = None
    """Why the program ran nothing at all."""


@dataclass
class _Level:
    """The results at one indentation, until the line of the test that they are parts of."""

    indent: int
    planned: int | None = None
    results: list[Result] = field(default_factory=list)

    @property
    def trouble(self) -> str | None:
        if self.planned is None or self.planned == len(self.results):
            return None
        return f"it announced {self.planned} tests and reported {len(self.results)}"


def read(output: str) -> Report | None:
    """What a program reported, or None where its output is no KTAP.

    Lines that are neither version, plan nor result say nothing of the tests.
    """
    levels: list[_Level] = []
    skipped = trouble = None
    for line in output.splitlines():
        if start := _START.match(line):
            _open(levels, len(start["indent"]))
        elif plan := _PLAN.match(line):
            if level := _open(levels, len(plan["indent"])):
                level.planned = (level.planned or 0) + int(plan["count"])
                skipped = plan["skipped"] if level.indent == 0 else skipped
        elif found := _RESULT.match(line):
            _add(levels, found)
        elif bail := _BAIL_OUT.match(line):
            trouble = f"it bailed out: {bail['why']}"
    if not levels:
        return None
    if any(level.results for level in levels[1:]):
        trouble = trouble or "it ended in the middle of a test"
    return Report(tuple(levels[0].results), trouble or levels[0].trouble, skipped)


def _open(levels: list[_Level], indent: int) -> _Level | None:
    """The level at this indentation, opened if need be; the outermost is not indented."""
    for level in levels:
        if level.indent == indent:
            return level
    if indent < (levels[-1].indent if levels else indent):
        return None
    if levels or indent == 0:
        levels.append(_Level(indent))
        return levels[-1]
    return None


def _add(levels: list[_Level], found: re.Match[str]) -> None:
    """A result, with the level below it as its parts."""
    indent = len(found["indent"])
    if indent not in (level.indent for level in levels):
        return  # an unknown line: no version line opened this level
    inner: list[_Level] = []
    while levels[-1].indent > indent:
        inner.insert(0, levels.pop())
    parts = tuple(inner[0].results) if inner else ()
    outcome = _outcome(found, parts)
    reason = (found["reason"] or "").strip()
    cut = "it ended in the middle of a part" if inner[1:] else inner[0].trouble if inner else None
    if cut and outcome is Outcome.PASSED:
        outcome, reason = Outcome.FAILED, cut
    # ksft_test_result_skip() writes the directive before the name.
    name = (found["name"] or "").strip()
    named = Result(name or reason or found["number"], outcome, reason if name else "", parts)
    levels[-1].results.append(named)


def _outcome(found: re.Match[str], parts: tuple[Result, ...]) -> Outcome:
    directive = (found["directive"] or "").upper()
    if directive == "SKIP":
        return Outcome.SKIPPED
    if directive in ("XFAIL", "TODO"):
        return Outcome.XFAILED
    if found["not"] or directive in ("TIMEOUT", "ERROR"):
        return Outcome.FAILED
    if any(part.outcome is Outcome.FAILED for part in parts):
        return Outcome.FAILED
    return Outcome.PASSED
