# SPDX-License-Identifier: GPL-2.0-only
"""The runs of a trial: of the base, of the whole series, and of its first patches."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lab as package
from lab import deviations
from lab.cache import Cache
from lab.config import Lab
from lab.errors import LabError
from lab.kernel import Kernel
from lab.kernel.incremental import Base
from lab.kernel.series import Series
from lab.progress import Progress
from lab.results.compare import Comparison, Pair, compare
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict
from lab.trial.child import record_of_run
from lab.trial.culprit import Culprit, first_bad
from lab.trial.finding import Confirmation, Finding, Step, splats_of, subject_of

RECIPE = 2  # of what the base's results depend on
AFTER, BEFORE = "after", "before"
_AGAIN, _MOST_AGAIN = 2, 20  # times that what broke is run again, and of how many tests
_NOTHING = Comparison((), (), (), (), ())


@dataclass(frozen=True)
class Words:
    """The options of the runs. `platform` is what all have in common, `tests` those that choose
    tests, `suites` those that say where tests are looked for."""

    platform: tuple[str, ...]
    suites: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()

    def of(self, wanted: Sequence[TestRecord]) -> "Words":
        """Those that choose just these tests, in whichever mode."""
        rules = sorted({test.rule for test in wanted if test.rule})
        names = sorted({_key(test) for test in wanted})
        modes = sorted({test.mode for test in wanted if test.mode})
        words = ["-k", " or ".join(names)]
        if all(test.rule for test in wanted):
            words += [word for rule in rules for word in ("--rule", rule)]
        if all(test.mode for test in wanted):
            words += [word for mode in modes for word in ("--mode", mode)]
        return replace(self, tests=tuple(words))

    def __iter__(self) -> Any:
        return iter((*self.platform, *self.suites, *self.tests))


@dataclass(frozen=True)
class Trial:
    """A series and its base. `spec` names the base's kernel, `mail` is where runs read the series
    from, `qemu` says which QEMU it is, `tests` is a folder of tests that it brings."""

    lab: Lab
    series: Series
    base: Base
    spec: str
    mail: Path
    words: Words
    qemu: str
    cache: Cache
    folder: Path
    progress: Progress
    tests: Path | None = None

    def run(self, kernel: Kernel, *, each: bool = False) -> Finding:
        """Test the series, whose kernel is built already, and what it stands on."""
        before = self.before(self.words)
        with self.progress.step(f"test {self.series.name}") as step:
            after = self._patched(len(self.series.patches), AFTER, self.words)
            step.result(f"{len(after.tests)} tests")
        finding = Finding(self.series, self.base.kernel, kernel, _NOTHING, after)
        finding = replace(finding, warnings=kernel.provenance["warnings"])
        if crash := crash_of(after):
            boot = self._boot(str(after.machine["name"]))
            self._base_must_boot(boot)
            culprit = self._culprit(lambda count: self._does_not_boot(count, boot))
            return replace(finding, crash=crash, culprit=culprit, splats=tuple(splats_of(after)))
        known = splats_of(before)
        finding = replace(
            finding,
            comparison=compare(before, after),
            splats=tuple(splat for splat in splats_of(after) if splat not in known),
        )
        finding = self._confirmed(finding)
        bad = finding.comparison.broken + finding.comparison.crashed
        if bad and any(again.after for again in (finding.confirmations or {}).values()):
            # else no patch would show it, and the last one would be blamed
            finding = replace(finding, culprit=self._culprit(self._fails(bad, finding)))
        if each:
            finding = replace(finding, steps=self._each(before))
        # Only now: no patch is to blame for what the base does not do either.
        owed = finding.comparison.owed(lambda test: test.suite not in self.lab.suites)
        return replace(finding, comparison=owed)

    def before(self, words: Words) -> RunRecord:
        """What the base keeps; known from an earlier time unless something has changed."""

        def maker(place: Path) -> Mapping[str, Any]:
            with self.progress.step(f"test {self.base.kernel.name}, the base") as step:
                record = self._tested(place / "run", ["--kernel", self.spec, *words])
                step.result(f"{len(record.tests)} tests")
            return {"kernel": self.base.kernel.name, "tests": len(record.tests)}

        inputs = {
            "recipe": RECIPE,
            "kernel": self.base.kernel.key,
            "qemu": self.qemu,
            "lab": _digest(self.lab, self.tests),
            "words": list(words),
        }
        entry = self.cache.make("results", inputs, maker)
        record = RunFolder(entry.path / "run").read()
        if record.status == 2:
            self.cache.remove(entry)  # what is not known this time may be the next
        return record

    def first_look(self, rules: Sequence[str]) -> Comparison | None:
        """What these rules say of the whole series: early news, before all tests have run. None
        where its kernel does not boot."""
        tests = tuple(word for rule in rules for word in ("--rule", rule))
        words = replace(self.words, tests=tests)
        before = self.before(words)
        with self.progress.step(f"test first what {self.series.name} touches") as step:
            after = self._patched(len(self.series.patches), "first", words)
            step.result(f"{len(after.tests)} tests")
        return None if crash_of(after) else compare(before, after)

    def _patched(self, count: int, name: str, words: Words) -> RunRecord:
        """A run of the first `count` patches."""
        kernel = ["--kernel", self.spec, "--series", str(self.mail)]
        if count < len(self.series.patches):
            kernel += ["--patches", str(count)]
        return self._tested(self.folder / name, [*kernel, *words])

    def _tested(self, out: Path, words: Sequence[str]) -> RunRecord:
        """Raises LabError for a run of which nothing can be said."""
        record = record_of_run(self.lab, out, words)
        trouble = [each.message for each in record.every_trouble if each.exit_status == 2]
        if trouble and not crash_of(record):
            raise LabError("\n".join(trouble), hint=f"see {out}")
        kernel = record.kernel.get("provenance", {}).get("base", record.kernel)
        if kernel.get("key", self.base.kernel.key) != self.base.kernel.key:
            raise LabError(
                f"{self.spec} has become another kernel in the meantime",
                hint="name a commit, TREE@COMMIT, where a tree is worked in",
            )
        return record

    def _boot(self, machine: str) -> Words:
        """The options of a run that is there for the boot. Suites have machines of their own."""
        return Words((*self.words.platform, "--machine", machine), tests=("--rule", "OWN-1"))

    def _base_must_boot(self, boot: Words) -> None:
        """The control of a kernel that does not boot. Raises LabError."""
        words = ["--kernel", self.spec, *boot]
        with self.progress.step(f"boot {self.base.kernel.name}, the base, to compare"):
            record = record_of_run(self.lab, self.folder / "control", words)
        if crash_of(record) or not record.tests:
            raise LabError("the base does not boot either", hint=f"see {self.folder / 'control'}")

    def _confirmed(self, finding: Finding) -> Finding:
        """What broke, run again with and without the series: a test that fails on the base now is
        no fault of the series. Of very many the first ones will do."""
        bad = (finding.comparison.broken + finding.comparison.crashed)[:_MOST_AGAIN]
        if not bad:
            return finding
        words = self.words.of([pair.test for pair in bad])
        repeated = replace(words, tests=(*words.tests, "--repeat", str(_AGAIN)))
        try:
            with self.progress.step("test again what broke"):
                after = self._patched(len(self.series.patches), "again-after", repeated)
                words_of_base = ["--kernel", self.spec, *repeated]
                before = self._tested(self.folder / "again-before", words_of_base)
        except LabError as error:  # what is known is not lost for it, but no patch is blamed
            self.progress.say(f"what broke could not be tested again: {error}")
            return finding
        again = {
            pair.test.id: Confirmation(_AGAIN, _failures(before, pair), _failures(after, pair))
            for pair in bad
        }
        doubtful = [pair for pair in bad if again[pair.test.id].before]
        comparison = replace(
            finding.comparison,
            broken=tuple(p for p in finding.comparison.broken if p not in doubtful),
            crashed=tuple(p for p in finding.comparison.crashed if p not in doubtful),
            undecided=(*finding.comparison.undecided, *doubtful),
        )
        known = splats_of(before)
        splats = tuple(splat for splat in finding.splats if splat not in known)
        return replace(finding, comparison=comparison, confirmations=again, splats=splats)

    def _culprit(self, is_bad: Callable[[int], bool | None]) -> Culprit:
        """The first patch with which it is so. What does not build, or of whose run nothing can be
        said, cannot be judged."""

        def judged(count: int) -> bool | None:
            try:
                self.base.build(self.series.first(count))
                with self.progress.step(f"test the first {count} patches"):
                    return is_bad(count)
            except LabError:
                return None

        first, last = first_bad(len(self.series.patches), judged)
        return Culprit(first, last, subject_of(self.series.patches[last - 1]))

    def _does_not_boot(self, count: int, boot: Words) -> bool:
        return bool(crash_of(self._patched(count, f"first-{count}", boot)))

    def _fails(self, bad: Sequence[Pair], finding: Finding) -> Callable[[int], bool | None]:
        """Whether any of these tests fails; those that failed each time, where there are any."""
        again = finding.confirmations or {}
        asked = [pair for pair in bad if pair.test.id in again]
        steady = [pair for pair in asked if again[pair.test.id].after == _AGAIN] or asked
        words = self.words.of([pair.test for pair in steady])
        known = {pair.test.id for pair in steady}

        def fails(count: int) -> bool | None:
            record = self._patched(count, f"first-{count}", words)
            asked = [test for test in record.tests if test.id in known]
            if any(test.exit_status == 1 for test in asked):
                return True
            lost = any(test.exit_status == 2 for test in asked)
            return None if lost or len(asked) < len(known) else False

        return fails

    def _each(self, before: RunRecord) -> tuple[Step, ...]:
        """Every patch but the last, of which all is known: does it build, boot and keep?"""
        return tuple(self._step(n, before) for n in range(1, len(self.series.patches)))

    def _step(self, number: int, before: RunRecord) -> Step:
        step = Step(number, subject_of(self.series.patches[number - 1]))
        try:
            self.base.build(self.series.first(number))
            with self.progress.step(f"test the first {number} patches") as shown:
                record = self._patched(number, f"each-{number}", self.words)
                shown.result(f"{len(record.tests)} tests")
        except LabError as error:
            return replace(step, error=str(error))
        if crash_of(record):
            return replace(step, boots=False)
        return replace(step, comparison=compare(before, record))


def _key(test: TestRecord) -> str:
    """What -k finds it by: a program's case by its own name, all others by the function's."""
    function, _, parameters = test.id.rpartition("::")[2].partition("[")
    return parameters.rstrip("]") if test.program else function


def crash_of(record: RunRecord) -> str:
    """Why no guest of a run came up at all, empty where one did."""
    if record.figures.get("guests"):
        return ""
    lost = [each.message for each in record.trouble if each.verdict is Verdict.GUEST_LOST]
    return lost[0].removeprefix("boot: ") if lost else ""


def _failures(record: RunRecord, pair: Pair) -> int:
    """How often a test failed there. One that is missing, as no guest came up, has not passed."""
    found = [test for test in record.tests if test.id == pair.test.id]
    return sum(test.exit_status == 1 for test in found)


def _digest(lab: Lab, tests: Path | None) -> str:
    """Of everything of the lab's own, and of the tests beside it, that decides a test's verdict."""
    digest = hashlib.sha256()
    for file in (lab.root / "lab.yaml", lab.root / deviations.FILE):
        digest.update(file.read_bytes() if file.exists() else b"")
    folders = [Path(package.__file__).parent, lab.root / "tests", lab.root / "images"]
    for folder in [*folders, tests] if tests else folders:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
