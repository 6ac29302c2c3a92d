# SPDX-License-Identifier: GPL-2.0-only
"""What came of a series: the content of series.json."""

import email
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab.kernel import Kernel
from lab.kernel.series import Series
from lab.results.compare import Comparison, Pair
from lab.results.record import RunRecord, Trouble
from lab.results.verdict import Verdict
from lab.splats import find
from lab.trial.culprit import Culprit
from lab.trial.speed import Change

SCHEMA = 2
_FAULTS = {1: Verdict.BROKEN, 2: Verdict.LAB_ERROR}  # by exit status


@dataclass(frozen=True)
class Confirmation:
    """A test that broke was run again: how often it failed, on the base and with the series."""

    runs: int
    before: int
    after: int

    def __str__(self) -> str:
        return f"again: {self.after} of {self.runs} failed, {self.before} on the base"


@dataclass(frozen=True)
class Step:
    """The first `number` patches, built, booted and tested. `error` is why they were not."""

    number: int
    subject: str
    error: str = ""
    boots: bool = True
    comparison: Comparison | None = None

    @property
    def status(self) -> int:
        """As a command's: 2 is what does not build."""
        if self.error:
            return 2
        return 1 if not self.boots or not self.comparison else self.comparison.status

    def __str__(self) -> str:
        if self.error:
            return self.error
        if not self.boots or not self.comparison:
            return "does not boot"
        broken = self.comparison.broken + self.comparison.crashed
        rules = dict.fromkeys(pair.test.subject for pair in broken)
        if rules:
            return f"breaks {', '.join(rules)}"
        undecided = len(self.comparison.undecided)
        return f"{undecided} tests undecided" if undecided else "good"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "patch": self.number,
            "subject": self.subject,
            "said": str(self),
            "status": self.status,
        }


@dataclass(frozen=True)
class Finding:
    """The verdict on a series.

    `crash` is why its kernel does not boot, empty where it does; then nothing is compared.
    `confirmations` are by the test's id; `splats` are the titles of the kernel's reports that the
    base did not bring; `warnings` the compiler's own that are new, None where nobody
    knows, as `speed` is where it could not be measured.
    """

    series: Series
    base: Kernel
    kernel: Kernel
    comparison: Comparison
    after: RunRecord
    crash: str = ""
    confirmations: Mapping[str, Confirmation] | None = None
    culprit: Culprit | None = None
    steps: tuple[Step, ...] = ()
    splats: tuple[str, ...] = ()
    warnings: Sequence[Mapping[str, Any]] | None = ()
    speed: tuple[Change, ...] | None = ()

    @property
    def bad(self) -> tuple[Pair, ...]:
        """What the series breaks, the first first."""
        return self.comparison.broken + self.comparison.crashed

    @property
    def status(self) -> int:
        """0: nothing is broken that the base keeps; 1: something is; 2: nobody knows, or a patch
        of --each does not build."""
        found = [self.comparison.status, *(step.status for step in self.steps)]
        if self.crash or self.splats:
            found.append(1)
        return max(found)

    def for_ci(self) -> RunRecord:
        """The run of the patched kernel as JUnit shall show it: what the base breaks, too, is known
        there, what is undecided is an error, and what belongs to no test is trouble of its own."""
        shown = {
            Verdict.KNOWN: f"{self.base.name}, the base, breaks it, too",
            Verdict.LAB_ERROR: "it came to no verdict",
        }
        verdicts = {pair.test.id: Verdict.LAB_ERROR for pair in self.comparison.undecided}
        bad = [pair for pair in self.comparison.unchanged if pair.test.verdict.is_trouble]
        verdicts |= {pair.test.id: Verdict.KNOWN for pair in bad}
        tests = [
            replace(test, verdict=verdict, message=f"{shown[verdict]}\n{test.message}")
            if (verdict := verdicts.get(test.id))
            else test
            for test in self.after.tests
        ]
        trouble = [
            Trouble(f"patch {step.number}, {step.subject}: {step}", _FAULTS[step.status])
            for step in self.steps
            if step.status
        ]
        trouble += [Trouble(f"new splat: {splat}", Verdict.BROKEN) for splat in self.splats]
        return replace(self.after, tests=tuple(tests), trouble=(*self.after.trouble, *trouble))

    def to_json(self) -> dict[str, Any]:
        """The content of series.json."""
        blamed = self.culprit
        kinds = ("broken", "crashed", "mended", "undecided")
        return {
            "schema": SCHEMA,
            "series": {
                "file": self.series.file,
                "patches": [subject_of(patch) for patch in self.series.patches],
                "files": list(self.series.files),
                "base_commit": self.series.base_commit,
            },
            "base": _bits(self.base),
            "kernel": _bits(self.kernel),
            "crash": self.crash,
            **{kind: [self._plain(p) for p in getattr(self.comparison, kind)] for kind in kinds},
            "unchanged": len(self.comparison.unchanged),
            "splats": list(self.splats),
            "warnings": self.warnings,
            "speed": None if self.speed is None else [each.to_json() for each in self.speed],
            "culprit": [blamed.last, blamed.subject] if blamed and blamed.is_known else None,
            "suspects": [self.culprit.first, self.culprit.last] if self.culprit else None,
            "steps": [step.to_json() for step in self.steps],
            "status": self.status,
        }

    def _plain(self, pair: Pair) -> dict[str, Any]:
        again = (self.confirmations or {}).get(pair.test.id)
        return {
            "id": pair.test.id,
            "rule": pair.test.rule,
            "mode": pair.test.mode,
            "before": pair.before.verdict if pair.before else None,
            "after": pair.after.verdict if pair.after else None,
            "message": pair.after.message if pair.after else "",
            "again": [again.before, again.after, again.runs] if again else None,
        }


def subject_of(patch: bytes) -> str:
    """The subject of a patch, which is a mail."""
    return str(email.message_from_bytes(patch.partition(b"\n")[2])["Subject"])


def splats_of(record: RunRecord) -> list[str]:
    """The titles of the kernel's own reports in a run, each once, in order."""
    texts = [text for test in record.tests for text in test.splats]
    texts += [text for trouble in record.trouble for text in trouble.splats]
    return list(dict.fromkeys(splat.title for text in texts for splat in find(text)))


def _bits(kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "release": kernel.release,
        "build_id": kernel.build_id,
        "key": kernel.key,
    }
