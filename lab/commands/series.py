# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab series`: what a patch series breaks, and what it mends."""

import email
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

import lab as package
from lab import deviations
from lab.cache import Cache
from lab.cell import Choice
from lab.commands.child import record_of_run
from lab.commands.runner import Selection
from lab.config import Lab
from lab.contract import rules
from lab.errors import ConfigurationError, LabError
from lab.guest import find_qemu
from lab.kernel import Kernel
from lab.kernel.incremental import Base
from lab.kernel.mail import read_series
from lab.kernel.series import Series
from lab.progress import Progress
from lab.results.compare import Comparison, Pair, compare
from lab.results.folder import RunFolder
from lab.results.layout import line
from lab.results.record import RunRecord
from lab.results.text import printable

RECIPE = 1  # of what the base's results depend on
SCHEMA = 1
SUMMARY = "series.json"
_BEFORE, _AFTER = "before", "after"


@dataclass(frozen=True)
class Order:
    """What is to be tried. `place` is as `read_series` takes it; `quick`: only the rules whose
    code the series touches."""

    place: str
    selection: Selection
    quick: bool = False


@dataclass(frozen=True)
class Finding:
    """What came of it. `culprit` is the number of the first patch that breaks what is broken, from
    1, and its subject; None where nothing is."""

    series: Series
    comparison: Comparison
    culprit: tuple[int, str] | None

    def to_json(self) -> dict[str, Any]:
        """The content of series.json."""
        pairs = {
            kind: [_plain(pair) for pair in getattr(self.comparison, kind)]
            for kind in ("broken", "crashed", "mended", "undecided")
        }
        return {
            "schema": SCHEMA,
            "series": {
                "file": self.series.file,
                "patches": [_subject(patch) for patch in self.series.patches],
                "files": list(self.series.files),
                "base_commit": self.series.base_commit,
            },
            **pairs,
            "unchanged": len(self.comparison.unchanged),
            "culprit": self.culprit,
            "status": self.comparison.status,
        }


def try_series(lab: Lab, choice: Choice, order: Order, *, out: Path | None, as_json: bool) -> int:
    """Build it, test it and its base, and report; returns the exit status.

    0: nothing is broken that the base keeps; 1: something is; 2: the lab or the series failed.
    """
    progress = Progress()
    series = read_series(order.place)
    what = f"{len(series.patches)} patches" if len(series.patches) > 1 else "1 patch"
    subject = series.letter.subject if series.letter else series.name
    progress.say(printable(f"{what}: {subject}"))
    if series.base_commit:
        progress.say(f"made for commit {series.base_commit[:12]}, tried on what lab.yaml names")
    cache = Cache.of_user()
    base = Base.prepare(choice.kernel or lab.run.kernel, lab, cache, progress, update=choice.update)
    folder = RunFolder.create(out).path
    trial = _Trial(lab, choice, base, cache, folder, progress, _words(choice, order, series))
    finding = trial.run(series)
    (folder / SUMMARY).write_text(json.dumps(finding.to_json(), indent=1) + "\n")
    if as_json:
        print(json.dumps(finding.to_json(), indent=1))
    else:
        _show(finding, folder, Console())
    return finding.comparison.status


@dataclass(frozen=True)
class _Trial:
    lab: Lab
    choice: Choice
    base: Base
    cache: Cache
    folder: Path
    progress: Progress
    words: tuple[str, ...]

    def run(self, series: Series) -> Finding:
        kernel = self.base.build(series)
        before = self._before()
        with self.progress.step(f"test {series.name}") as step:
            after = self._tested(kernel, self.folder / _AFTER)
            step.result(f"{len(after.tests)} tests")
        comparison = compare(before, after)
        bad = comparison.broken + comparison.crashed
        culprit = self._culprit(series, bad) if bad and len(series.patches) > 1 else None
        if bad and len(series.patches) == 1:
            culprit = (1, _subject(series.patches[0]))
        return Finding(series, comparison, culprit)

    def _before(self) -> RunRecord:
        """What the base keeps; known from an earlier time unless something has changed."""

        def maker(place: Path) -> Mapping[str, Any]:
            with self.progress.step(f"test {self.base.kernel.name}, the base") as step:
                record = self._tested(self.base.kernel, place / "run")
                step.result(f"{len(record.tests)} tests")
            return {"kernel": self.base.kernel.name, "tests": len(record.tests)}

        inputs = {
            "recipe": RECIPE,
            "kernel": self.base.kernel.key,
            "qemu": find_qemu(self.choice.qemu, self.cache).description,
            "lab": _digest(self.lab),
            "words": list(self.words),
        }
        return RunFolder(self.cache.make("results", inputs, maker).path / "run").read()

    def _tested(self, kernel: Kernel, out: Path) -> RunRecord:
        """Raises LabError for a run of which nothing can be said."""
        record = record_of_run(self.lab, kernel, out, self.words)
        trouble = [each.message for each in record.every_trouble if each.exit_status == 2]
        if trouble:
            raise LabError("\n".join(trouble), hint=f"see {out}")
        return record

    def _culprit(self, series: Series, bad: Sequence[Pair]) -> tuple[int, str]:
        """The first patch after which one of these tests fails, by bisection."""
        known = {pair.test.id for pair in bad}
        wanted = sorted({pair.test.rule for pair in bad if pair.test.rule})
        words = [word for rule in wanted for word in ("--rule", rule)] + _platform(self.choice)
        if not all(pair.test.rule for pair in bad):
            words = list(self.words)
        good, broken = 0, len(series.patches)
        while broken - good > 1:
            middle = (good + broken) // 2
            kernel = self.base.build(series.first(middle))
            with self.progress.step(f"test the first {middle} patches"):
                place = self.folder / f"first-{middle}"
                record = record_of_run(self.lab, kernel, place, words)
            asked = [test for test in record.tests if test.id in known]
            if lost := [test.message for test in asked if test.exit_status == 2]:
                raise LabError("\n".join(lost), hint=f"no patch can be blamed; see {place}")
            if not asked:
                raise LabError("none of the broken tests ran again", hint=f"see {place}")
            fails = any(test.exit_status == 1 for test in asked)
            good, broken = (good, middle) if fails else (middle, broken)
        return broken, _subject(series.patches[broken - 1])


def _words(choice: Choice, order: Order, series: Series) -> tuple[str, ...]:
    """The options of the runs."""
    wanted = order.selection.rules
    if order.quick and not wanted:
        wanted = tuple(concerned(series.files))
        if not wanted:
            raise ConfigurationError(
                f"no rule of the contract stands in {', '.join(series.files)}",
                hint="leave --quick out",
            )
    words = [word for suite in order.selection.suites for word in ("--suite", suite)]
    words += [word for rule in wanted for word in ("--rule", rule)]
    words += [word for mode in order.selection.modes for word in ("--mode", mode)]
    words += ["-k", order.selection.keyword] if order.selection.keyword else []
    return (*words, *_platform(choice))


def _platform(choice: Choice) -> list[str]:
    words = ["--machine", choice.machine] if choice.machine else []
    words += ["--image", choice.image] if choice.image else []
    words += ["--qemu", str(choice.qemu)] if choice.qemu else []
    return [*words, "--boot-timeout", str(choice.boot_timeout)]


def concerned(files: Iterable[str]) -> list[str]:
    """The rules that the kernel keeps in one of these files, in the contract's order."""
    touched = set(files)
    return [
        id_
        for id_, rule in rules().items()
        if touched & {source.partition(":")[0] for source in rule.source}
    ]


def _digest(lab: Lab) -> str:
    """Of everything of the lab's own that decides a test's verdict."""
    digest = hashlib.sha256()
    for file in (lab.root / "lab.yaml", lab.root / deviations.FILE):
        digest.update(file.read_bytes() if file.exists() else b"")
    for folder in (Path(package.__file__).parent, lab.root / "tests", lab.root / "images"):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _subject(patch: bytes) -> str:
    return str(email.message_from_bytes(patch.partition(b"\n")[2])["Subject"])


def _plain(pair: Pair) -> dict[str, Any]:
    return {
        "id": pair.test.id,
        "rule": pair.test.rule,
        "mode": pair.test.mode,
        "before": pair.before.verdict if pair.before else None,
        "after": pair.after.verdict if pair.after else None,
        "message": pair.after.message if pair.after else "",
    }


def _show(finding: Finding, folder: Path, console: Console) -> None:
    comparison = finding.comparison
    for kind, style in (
        ("broken", "bold red"),
        ("crashed", "bold red"),
        ("mended", "green"),
        ("undecided", "bold magenta"),
    ):
        for pair in getattr(comparison, kind):
            test = pair.test
            line(console, Text.assemble((kind, style), f" {test.subject} {printable(test.id)}"))
            if kind != "mended" and test.message:
                line(console, Text(f"  {printable(test.message).splitlines()[0]}"))
    if finding.culprit:
        number, subject = finding.culprit
        total = len(finding.series.patches)
        words = f"first broken by patch {number} of {total}: {printable(subject)}"
        line(console, Text(words, "bold"))
    counts = [
        f"{len(getattr(comparison, kind))} {kind}"
        for kind in ("broken", "crashed", "mended", "undecided", "unchanged")
        if getattr(comparison, kind) or kind in ("broken", "unchanged")
    ]
    line(console, Text(", ".join(counts)))
    line(console, Text(f"report: {printable(str(folder))}"))
