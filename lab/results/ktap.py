# SPDX-License-Identifier: GPL-2.0-only
"""Runs in the Kernel Test Anything Protocol, version 1, as Documentation/dev-tools/ktap.rst has it.

| verdict        | result line               |
|----------------|---------------------------|
| kept           | ok                        |
| known          | ok, with XFAIL            |
| skipped        | ok, with SKIP             |
| not-applicable | ok, with SKIP             |
| broken         | not ok                    |
| guest-lost     | not ok, with ERROR        |
| lab-error      | not ok, with ERROR        |

Tests are parts of their rule (or program), rules of their suite, suites of the run, and of several
runs each is a part of the whole. What went wrong outside of a test is a part of its run.
`lab.programs.ktap` reads it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict
from lab.text import one_line, printable

_VERSION = "KTAP version 1"
_INDENT = "  "
_RUN = "vfio-lab"  # the name of what belongs to no test
_SKIP = "SKIP"

# What stands between "#" and the message. A message is others' words: one that began with a
# directive would be read as one, so it never stands there alone.
_DIRECTIVES = {
    Verdict.NOT_APPLICABLE: f"{_SKIP} not applicable:",
    Verdict.SKIPPED: _SKIP,
    Verdict.KNOWN: "XFAIL",
    Verdict.BROKEN: "broken:",
    Verdict.GUEST_LOST: "ERROR guest lost:",
    Verdict.LAB_ERROR: "ERROR",
}


@dataclass(frozen=True)
class _Point:
    """A test, or several. `remarks` are lines that stand before its own."""

    name: str
    ok: bool = True
    said: str = ""
    remarks: tuple[str, ...] = ()
    parts: tuple["_Point", ...] = ()

    @classmethod
    def of_parts(
        cls, name: str, parts: Iterable["_Point"], remarks: tuple[str, ...] = ()
    ) -> "_Point":
        """It fails if one of them does, and is skipped where all of them are."""
        found = tuple(parts)
        skipped = all(part.skipped for part in found)
        return cls(name, all(part.ok for part in found), _SKIP * skipped, remarks, found)

    @property
    def skipped(self) -> bool:
        return self.said.startswith(_SKIP)

    def lines(self, number: int) -> Iterator[str]:
        """All that is said of it."""
        if self.parts:
            for line in _body(self.parts, self.remarks):
                yield f"{_INDENT}{line}"
        else:
            yield from _diagnostics(self.remarks)
        result = f"{'ok' if self.ok else 'not ok'} {number} {_words(self.name) or '?'}"
        yield f"{result} # {_words(self.said)}" if self.said else result


def ktap(record: RunRecord) -> str:
    """A run."""
    return _text(_parts(record), _remarks(record))


def ktap_of_all(records: Mapping[str, RunRecord]) -> str:
    """Several runs by their names: a night."""
    runs = [
        _Point.of_parts(name, _parts(record), _remarks(record)) for name, record in records.items()
    ]
    return _text(runs, ())


def _text(parts: Sequence[_Point], remarks: Sequence[str]) -> str:
    return "\n".join(_body(parts, remarks)) + "\n"


def _body(parts: Sequence[_Point], remarks: Sequence[str]) -> Iterator[str]:
    yield _VERSION
    yield f"1..{len(parts)}"
    yield from _diagnostics(remarks)
    for number, part in enumerate(parts, 1):
        yield from part.lines(number)


def _parts(record: RunRecord) -> tuple[_Point, ...]:
    suites: dict[str, dict[str, list[TestRecord]]] = {}
    for test in record.tests:
        suites.setdefault(test.suite, {}).setdefault(test.subject, []).append(test)
    found = [
        _Point.of_parts(
            suite,
            [_Point.of_parts(name, map(_of_test, tests)) for name, tests in subjects.items()],
        )
        for suite, subjects in suites.items()
    ]
    if record.every_trouble:
        found.append(_Point.of_parts(_RUN, map(_of_trouble, record.every_trouble)))
    return tuple(found)


def _remarks(record: RunRecord) -> tuple[str, ...]:
    said = {
        "kernel": record.kernel.get("release"),
        "machine": record.machine.get("name"),
        "QEMU": record.qemu.get("version"),
        "accelerator": record.accel,
        "started": record.started,
    }
    return tuple(f"{name}: {value}" for name, value in said.items() if value)


def _of_test(test: TestRecord) -> _Point:
    file, _, name = test.id.partition("::")
    machine = f"machine {test.machine}, " if test.machine else ""
    return _of(name or file, test, [f"{machine}{test.duration:.3f} s"])


def _of_trouble(trouble: Trouble) -> _Point:
    return _of(trouble.message.partition("\n")[0], trouble, [])


def _of(name: str, item: TestRecord | Trouble, remarks: list[str]) -> _Point:
    if item.verdict.is_trouble:
        remarks += [item.detail, *item.splats]
    remarks += [f"evidence: {path}" for path in item.evidence]
    directive = _DIRECTIVES.get(item.verdict)
    said = f"{directive} {item.message}" if directive else ""
    ok = not item.verdict.is_trouble
    return _Point(name, ok, said, tuple(f"{name}: {text}" for text in remarks if text))


def _diagnostics(remarks: Iterable[str]) -> Iterator[str]:
    # splitlines() knows more line ends than "\n", and so do readers: none of them may begin a line
    # that is no diagnostic.
    for remark in remarks:
        for line in printable(remark).splitlines():
            yield f"# {line}".rstrip()


def _words(text: str) -> str:
    """A line of words without "#": kunit_parser.py takes the last one for the directive's."""
    return " ".join(one_line(text).replace("#", "\\x23").split())
