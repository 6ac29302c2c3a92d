# SPDX-License-Identifier: GPL-2.0-only
"""A run, what it ran on, and every verdict of it: the content of results.json.

Scripts read that file. A field may be added under the same `schema`; it changes when one goes
or means something else. A reader passes over fields that it does not know.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from lab.contract import Mode
from lab.errors import ConfigurationError
from lab.files import replace
from lab.results.verdict import Verdict, worst

SCHEMA = 1


class Written:
    """A record that is written as JSON and read again, the same."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in results.json."""
        plain: dict[str, Any] = self._adapter().dump_python(self, mode="json")
        return plain

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises ConfigurationError for what no record can be."""
        try:
            read: Self = cls._adapter().validate_python(content)
        except ValidationError as invalid:
            first = invalid.errors()[0]
            place = ".".join(str(step) for step in first["loc"])
            raise ConfigurationError(f"results: {place}: {first['msg']}") from None
        return read

    def save(self, file: Path) -> None:
        """Write it to a file: a reader sees the old one or the new one. Raises OSError."""
        replace(file, json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    @cache
    def _adapter(cls) -> TypeAdapter[Any]:
        # kept, for to make one takes as long as to write hundreds of records
        return TypeAdapter(cls)


@dataclass(frozen=True)
class TestRecord(Written):
    """What became of one test.

    `id` is pytest's node id; `rule` the contract's rule it cites, None where it cites none;
    `program` the name of the C program that it is a case of, if it is one; `mode` None where the
    test is not run once a mode. `duration` is in seconds and includes a boot that the test had to
    wait for. `message` says in a line or a few what happened, and for a skip what is missing;
    `detail` is the traceback. `splats` are the kernel's own reports on the console; `evidence` are
    paths relative to the run's folder, and `folder` is the test's own there, where it has one.
    `machine` is the machine of lab.yaml that it ran on, None where it had no guest. `known` says
    which deviation is recorded for it in kernels/known.yaml, whether it showed or not.
    """

    __test__ = False  # pytest takes a class of this name for a test

    id: str
    suite: str
    verdict: Verdict
    duration: float
    rule: str | None = None
    mode: Mode | None = None
    message: str = ""
    detail: str = ""
    splats: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    machine: str | None = None
    program: str | None = None
    known: str = ""
    folder: str | None = None

    @property
    def subject(self) -> str:
        """What it tests, the name of its row: the rule, the program, or else its suite."""
        return self.rule or self.program or self.suite

    @property
    def exit_status(self) -> int:
        """What this test adds to the run's exit status."""
        return self.verdict.exit_status(splat=bool(self.splats))


@dataclass(frozen=True)
class Trouble(Written):
    """What went wrong with the run and belongs to no test.

    `verdict` is lab-error, or guest-lost where a guest was lost outside a test, or broken where the
    kernel reported something while no test ran.
    """

    message: str
    verdict: Verdict = Verdict.LAB_ERROR
    detail: str = ""
    splats: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """What it adds to the run's exit status."""
        return self.verdict.exit_status(splat=bool(self.splats))


@dataclass(frozen=True)
class Cell:
    """The tests of one subject in one mode; never empty."""

    tests: tuple[TestRecord, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of its tests."""
        return worst(test.verdict for test in self.tests)


@dataclass(frozen=True)
class RunRecord(Written):
    """One run: what was asked for, what it ran on, and what came of it.

    `version` is the lab's; `started` is ISO 8601 in UTC, `2025-11-22T12:59:00Z`; `seconds` is how
    long the run took. `kernel`, `image`, `machine`, `qemu` and `host` say with hashes and versions
    what was tested and where; their values are whatever JSON can write. Of them the reports read
    `kernel["release"]`, `machine["name"]`, `qemu["version"]` and `host["name"]`, where they are
    there. `machine` is what was asked for; `machines` are all that guests were booted on, by name,
    as some tests need one of their own; `detectors` are, by the same names, what looked for things
    that tests leave behind: a kernel may lack what others can be asked. `accel` is `kvm` or `tcg`;
    `selection` is what the user asked for, in the words of the command line; `seed` decided what
    was random in it. `figures` are measured numbers, the unit in the name: `boot_seconds`.
    `finished` is false while the run is under way, and stays so when it was interrupted.
    """

    version: str
    started: str
    seconds: float
    accel: str = ""
    selection: tuple[str, ...] = ()
    seed: int | None = None
    kernel: Mapping[str, Any] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    machines: Mapping[str, Any] = field(default_factory=dict)
    detectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    qemu: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    tests: tuple[TestRecord, ...] = ()
    trouble: tuple[Trouble, ...] = ()
    finished: bool = True
    schema: int = SCHEMA

    @property
    def every_trouble(self) -> tuple[Trouble, ...]:
        """`trouble`, and what the record itself shows: no test, or no end."""
        found = list(self.trouble)
        if not self.finished:
            found.append(Trouble("the run did not finish; its verdicts are those until then"))
        elif not self.tests and not self.trouble:
            found.append(Trouble("no test was selected"))
        return tuple(found)

    @property
    def status(self) -> int:
        """The exit status: 0, 1 or 2; the greatest that any test or trouble asks for."""
        tests = [test.exit_status for test in self.tests]
        return max(tests + [trouble.exit_status for trouble in self.every_trouble], default=0)

    def cells(self) -> dict[tuple[str, Mode | None], Cell]:
        """The table: (subject, mode) to its tests, in the order in which they first occur."""
        grouped: dict[tuple[str, Mode | None], list[TestRecord]] = {}
        for test in self.tests:
            grouped.setdefault((test.subject, test.mode), []).append(test)
        return {place: Cell(tuple(tests)) for place, tests in grouped.items()}

    def counts(self) -> dict[Verdict, int]:
        """How many tests have each verdict that occurs, the worst first."""
        verdicts = [test.verdict for test in self.tests]
        return {v: verdicts.count(v) for v in reversed(Verdict) if v in verdicts}

    @property
    def mended(self) -> tuple[str, ...]:
        """The recorded deviations that did not show, though tests came to a verdict on them."""
        shown: dict[str, bool] = {}
        for test in self.tests:
            if test.known and test.verdict.is_checked:
                kept = test.verdict is Verdict.KEPT
                shown[test.known] = shown.get(test.known, False) or not kept
        return tuple(known for known, was_shown in shown.items() if not was_shown)

    def repeated(self) -> dict[str, tuple[int, int]]:
        """Of each test that ran several times: how often it passed, and how often it ran."""
        verdicts: dict[tuple[str, Mode | None], list[Verdict]] = {}
        for test in self.tests:
            verdicts.setdefault((test.id, test.mode), []).append(test.verdict)
        return {
            id_: (sum(not verdict.is_trouble for verdict in found), len(found))
            for (id_, _), found in verdicts.items()
            if len(found) > 1
        }

    def to_json(self) -> dict[str, Any]:
        """The content of results.json. `status` and `mended` are in it for scripts; nobody reads
        them back."""
        return {**super().to_json(), "mended": list(self.mended), "status": self.status}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises ConfigurationError, also for another schema."""
        if content.get("schema") != SCHEMA:
            raise ConfigurationError(
                f"results: schema {content.get('schema')} is not known; this lab reads {SCHEMA}",
                hint="read it with the version of the lab that wrote it"
                + (f": {content['version']}" if "version" in content else ""),
            )
        return super().from_json(content)
