# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab mutants`: break the kernel on purpose, and see which test notices.

A mutant is a mail in kernels/mutants whose patch breaks one rule, which its text names. The next
one is compiled while the tests of the one before run in a process of their own.

One that names a variant is hunted twice: on the kernel as it is, where its rule's tests must not
notice, and with the variant, where they must: it shows what the variant is for.
"""

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from subprocess import Popen
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.cache import Cache
from lab.cell import Choice
from lab.child import record_of, run_of
from lab.config import Lab, known
from lab.contract import rules
from lab.errors import BuildError, ConfigurationError, LabError
from lab.kernel import Kernel
from lab.kernel.incremental import Base
from lab.kernel.series import Series
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.layout import line
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict
from lab.text import printable

FOLDER = Path("kernels/mutants")
SUMMARY = "mutants.json"
SCHEMA = 2
_BREAKS = re.compile(r"^A mutant that breaks (?P<rule>\S+) of the contract\b", re.MULTILINE)
_VARIANT = re.compile(r"^Variant: (?P<name>\S+)$", re.MULTILINE)
_TRIES = 2  # a lost guest proves nothing
_UNPATCHED = "unpatched"


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    ELSEWHERE = "killed by another rule"
    WITHOUT = "killed without its variant"
    SURVIVED = "survived"
    TROUBLE = "trouble"

    @property
    def style(self) -> str:
        """How it looks on a terminal."""
        return {Fate.KILLED: "green", Fate.TROUBLE: "bold magenta"}.get(self, "bold red")


@dataclass(frozen=True)
class Mutant:
    """A series of one patch, and the rule that it breaks. `variant` are the fragments, joined by
    "+", of the kernel on which that shows; it is empty where it shows on any."""

    name: str
    rule: str
    series: Series
    variant: str = ""

    @classmethod
    def read(cls, file: Path) -> "Mutant":
        """Raises ConfigurationError for a mail that names no rule of the contract."""
        series = Series.read(file)
        found = _BREAKS.search(series.text)
        if not found:
            raise ConfigurationError(
                f"{file} does not say what it breaks",
                hint="expected a line `A mutant that breaks RULE of the contract, …` in its text",
            )
        variant = _VARIANT.search(series.text)
        named = variant["name"] if variant else ""
        try:
            return cls(file.stem, known("rule", found["rule"], rules()), series, named)
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: {error.message}", hint=error.hint) from None


@dataclass(frozen=True)
class Finding:
    """A mutant and what became of it.

    `killed_by` is the id of the first test that noticed, `message` what that test, or the lab, had
    to say. `seconds` are those of the run that it was found in, `folder` is that run's, relative to
    the whole's.
    """

    mutant: str
    rule: str
    fate: Fate
    killed_by: str = ""
    killed_by_rule: str = ""
    message: str = ""
    seconds: float = 0.0
    folder: str = ""


@dataclass
class Report:
    """What is known so far. `status`: 0 each is killed by its own rule, 1 one is not, 2 trouble.

    `unpatched` says of each kernel, by its name, what its tests took.
    """

    kernel: str
    machine: str
    findings: list[Finding] = field(default_factory=list)
    unpatched: dict[str, Any] = field(default_factory=dict)
    finished: bool = False

    @property
    def status(self) -> int:
        fates = {finding.fate for finding in self.findings}
        if Fate.TROUBLE in fates or not self.finished:
            return 2
        return 0 if fates <= {Fate.KILLED} else 1

    def to_json(self) -> dict[str, Any]:
        """The content of mutants.json."""
        return {"schema": SCHEMA, **asdict(self), "status": self.status}


def mutants_of(lab: Lab, names: Sequence[str]) -> list[Mutant]:
    """Those with these names, all where none is given. Raises ConfigurationError."""
    files = {file.stem: file for file in sorted((lab.root / FOLDER).glob("*.mbox"))}
    wanted = [known("mutant", name, files) for name in names] or list(files)
    if not wanted:
        raise ConfigurationError(f"{lab.root / FOLDER} holds no mutant (*.mbox)")
    return [Mutant.read(files[name]) for name in wanted]


def hunt(lab: Lab, choice: Choice, names: Sequence[str], *, out: Path | None, as_json: bool) -> int:
    """Build and test mutants, and report; returns the exit status."""
    mutants = mutants_of(lab, names)
    lab.machine(choice.machine or lab.run.machine)  # before minutes of work are done for it
    spec = choice.kernel or lab.run.kernel
    cache, progress = Cache.of_user(), Progress()
    base = Base.prepare(spec, lab, cache, progress)
    folder = RunFolder.create(out).path
    report = Report(base.kernel.name, choice.machine or lab.run.machine)
    try:
        _Hunt(lab, base, choice.machine, report, folder, progress).run(mutants)
        judged = {finding.mutant for finding in report.findings}
        left = [mutant for mutant in mutants if mutant.name not in judged]
        for variant in dict.fromkeys(mutant.variant for mutant in left):
            base = Base.prepare(f"{spec}+{variant}", lab, cache, progress)
            wanted = [mutant for mutant in left if mutant.variant == variant]
            _Hunt(lab, base, choice.machine, report, folder, progress, variant).run(wanted)
        report.finished = True
    finally:
        _write(report, folder)
        if as_json:
            print(json.dumps(report.to_json(), indent=1))
        else:
            _show(report, folder, Console())
    return report.status


@dataclass(frozen=True)
class _Hunt:
    lab: Lab
    base: Base
    machine: str | None  # None: that of the run, and for some tests the one that they ask for
    report: Report
    folder: Path
    progress: Progress
    variant: str = ""  # what `base` has, and the kernel that was asked for has not

    def run(self, mutants: Sequence[Mutant]) -> None:
        """Test the unpatched kernel, then each mutant; Ctrl-C ends what runs and passes on."""
        wanted = sorted({mutant.rule for mutant in mutants})
        self.progress.say(f"… test {self.base.kernel.name}, {_UNPATCHED}")
        with self._tests(self.base.kernel, place := self._place(_UNPATCHED), wanted) as first:
            kernel = self._built(mutants[0])
            self._must_be_green(self._record(first, place), place)
        for number, mutant in enumerate(mutants):
            coming = mutants[number + 1] if number + 1 < len(mutants) else None
            if kernel is None:
                kernel = self._built(coming) if coming else None
                continue
            place = self._place(f"{mutant.name}/own")
            with self._tests(kernel, place, [mutant.rule]) as tests:
                following = self._built(coming) if coming else None
                record = self._record(tests, place)
            finding = self._judged(mutant, kernel, place, record)
            self._note(finding if mutant.variant == self.variant else self._without(finding))
            kernel = following

    def _place(self, name: str) -> str:
        """The folder of a run, relative to the whole's."""
        return f"{self.variant}/{name}" if self.variant else name

    def _built(self, mutant: Mutant) -> Kernel | None:
        """The mutant's kernel, or None where its patch is at fault: that is noted."""
        try:
            return self.base.build(mutant.series, symbols=False)
        except (BuildError, ConfigurationError) as error:
            self._note(Finding(mutant.name, mutant.rule, Fate.TROUBLE, message=str(error)))
            return None

    def _judged(self, mutant: Mutant, kernel: Kernel, place: str, record: RunRecord) -> Finding:
        """Own rule first; where that did not notice, the others."""
        others = [rule for rule in rules() if rule != mutant.rule]
        for again in range(2, _TRIES + 1):
            if killer(record, [mutant.rule]) or record.status != 2:
                break
            place = self._place(f"{mutant.name}/own-{again}")
            record = self._tested(kernel, place, [mutant.rule])
        if test := killer(record, [mutant.rule]):
            return self._finding(mutant, Fate.KILLED, test, place, record)
        if record.status == 2:
            said = [trouble.message for trouble in record.every_trouble]
            said += [test.message for test in record.tests if test.verdict.is_trouble]
            return self._finding(mutant, Fate.TROUBLE, None, place, record, "; ".join(said))
        checked = [test for test in record.tests if test.verdict.is_checked]
        why = f"{len(checked)} tests of {mutant.rule} did not notice"
        if mutant.variant != self.variant:
            return self._finding(mutant, Fate.SURVIVED, None, place, record, why)
        place = self._place(f"{mutant.name}/rest")
        record = self._tested(kernel, place, others)
        if test := killer(record, others):
            return self._finding(mutant, Fate.ELSEWHERE, test, place, record)
        return self._finding(mutant, Fate.SURVIVED, None, place, record, why)

    def _finding(
        self,
        mutant: Mutant,
        fate: Fate,
        test: TestRecord | None,
        place: str,
        record: RunRecord,
        message: str = "",
    ) -> Finding:
        return Finding(
            mutant.name,
            mutant.rule,
            fate,
            killed_by=test.id if test else "",
            killed_by_rule=test.rule or "" if test else "",
            message=_first(test.message or "; ".join(test.splats)) if test else message,
            seconds=round(record.seconds, 1),
            folder=place,
        )

    def _tests(
        self, kernel: Kernel, place: str, wanted: Sequence[str]
    ) -> AbstractContextManager[Popen[str]]:
        """A run of these rules' tests, beside this process."""
        words = ["--kernel", str(kernel.bzimage), "--first"]
        words += [*(word for rule in wanted for word in ("--rule", rule))]
        words += ["--machine", self.machine] if self.machine else []
        return run_of(self.lab, self.folder / place, words)

    def _tested(self, kernel: Kernel, place: str, wanted: Sequence[str]) -> RunRecord:
        with self._tests(kernel, place, wanted) as process:
            return self._record(process, place)

    def _record(self, process: Popen[str], place: str) -> RunRecord:
        return record_of(process, self.folder / place)

    def _must_be_green(self, record: RunRecord, place: str) -> None:
        """Raises LabError: of a test that fails anyway nothing can be learned."""
        name = self.base.kernel.name
        checked = sum(test.verdict.is_checked for test in record.tests)
        self.report.unpatched[name] = {"tests": len(record.tests), "seconds": record.seconds}
        if record.status or not checked:
            broken = [test.id for test in record.tests if test.verdict.is_trouble]
            raise LabError(
                f"the unpatched {name} does not pass ({', '.join(broken) or 'nothing was tested'})",
                hint=f"mutants prove nothing until it does; see {self.folder / place}",
            )
        words = f"✓ {name}, {_UNPATCHED}: {checked} tests kept in {record.seconds:.1f} s"
        self.progress.say(words)

    def _without(self, finding: Finding) -> Finding | None:
        """Of a mutant that wants a variant, on a kernel that has it not: None where it went
        unnoticed, as it must, and is to be hunted with the variant."""
        if finding.fate is Fate.SURVIVED:
            self.progress.say(f"✓ {finding.mutant}: nothing shows on {self.base.kernel.name}")
            return None
        return replace(finding, fate=Fate.WITHOUT) if finding.killed_by else finding

    def _note(self, finding: Finding | None) -> None:
        if not finding:
            return
        self.report.findings.append(finding)
        _write(self.report, self.folder)
        mark = "✓" if finding.fate is Fate.KILLED else "✗"
        what = f"by {short(finding.killed_by)}" if finding.killed_by else finding.message
        words = f"{mark} {finding.mutant} ({finding.rule}): {finding.fate} {what}"
        self.progress.say(f"{printable(words)}, {finding.seconds:.1f} s")


def killer(record: RunRecord, wanted: Sequence[str]) -> TestRecord | None:
    """The first test of these rules that the kernel failed: it broke the rule, or crashed.

    A guest that was lost without a splat is the lab's trouble and kills nobody.
    """
    for test in record.tests:
        crashed = test.verdict is Verdict.GUEST_LOST and test.splats
        if test.rule in wanted and (test.verdict is Verdict.BROKEN or crashed):
            return test
    return None


def short(test: str) -> str:
    """A test's id without its folder."""
    return test.rpartition("/")[2]


def _write(report: Report, folder: Path) -> None:
    whole = folder / f".{SUMMARY}"
    whole.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    whole.replace(folder / SUMMARY)


def _show(report: Report, folder: Path, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for heading in ("mutant", "rule", ""):
        table.add_column(heading, no_wrap=True)
    table.add_column("by", overflow="fold")
    table.add_column("s", justify="right", no_wrap=True)
    for finding in report.findings:
        by = short(finding.killed_by) or _first(finding.message)
        fate = Text(finding.fate, finding.fate.style)
        if finding.fate is Fate.ELSEWHERE:
            by = f"{finding.killed_by_rule} {by}"
        seconds = f"{finding.seconds:.1f}"
        table.add_row(finding.mutant, finding.rule, fate, Text(printable(by)), seconds)
    if report.findings:
        console.print(table)
    killed = sum(finding.fate is Fate.KILLED for finding in report.findings)
    line(console, Text(f"{killed} of {len(report.findings)} killed by their own rule"))
    line(console, Text(f"report: {printable(str(folder / SUMMARY))}"))


def _first(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
