# SPDX-License-Identifier: GPL-2.0-only
"""A series and its base on trial: what differs, whether it does so again, and who is to blame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lab.errors import LabError
from lab.kernel import Kernel
from lab.results.compare import Comparison, Pair, compare
from lab.results.record import RunRecord
from lab.trial.culprit import Culprit, first_bad
from lab.trial.finding import Confirmation, Finding, Step, splats_of, subject_of
from lab.trial.runs import AGAIN, MOST_AGAIN, Runs, Words, crash_of, failures

AFTER = "after"  # the folder of the run of the whole series
_NOTHING = Comparison((), (), (), (), ())


@dataclass(frozen=True)
class Trial:
    """What `runs` say of a series; `words` are the options of the run that decides."""

    runs: Runs
    words: Words

    @property
    def _total(self) -> int:
        return len(self.runs.series.patches)

    def first_look(self, rules: Sequence[str]) -> Comparison | None:
        """What these rules say of the whole series: early news, before all tests have run. None
        where its kernel does not boot."""
        words = self.words.of_rules(rules)
        before = self.runs.kept_of_base(words)
        with self.runs.progress.step(f"test first what {self.runs.series.name} touches") as step:
            after = self.runs.of_series(self._total, "first", words)
            step.result(f"{len(after.tests)} tests")
        return None if crash_of(after) else compare(before, after)

    def run(self, kernel: Kernel, *, each: bool = False) -> Finding:
        """Test the series, whose kernel is built already, and what it stands on."""
        runs = self.runs
        before = runs.kept_of_base(self.words)
        with runs.progress.step(f"test {runs.series.name}") as step:
            after = runs.of_series(self._total, AFTER, self.words)
            step.result(f"{len(after.tests)} tests")
        finding = Finding(runs.series, runs.base.kernel, kernel, _NOTHING, after)
        finding = replace(finding, warnings=kernel.provenance["warnings"])
        if crash := crash_of(after):
            boot = self._boot(str(after.machine["name"]))
            self._base_must_boot(boot)
            culprit = self._culprit(lambda count: self._does_not_boot(count, boot))
            finding = replace(finding, crash=crash, culprit=culprit, splats=tuple(splats_of(after)))
            return replace(finding, steps=self._each(before)) if each else finding
        known = splats_of(before)
        finding = replace(
            finding,
            comparison=compare(before, after),
            splats=tuple(splat for splat in splats_of(after) if splat not in known),
        )
        finding = self._confirmed(finding)
        if steady := self._steady(finding):
            finding = replace(finding, culprit=self._culprit(self._fails(steady)))
        if each:
            finding = replace(finding, steps=self._each(before))
        # Only now: no patch is to blame for what the base does not do either.
        owed = finding.comparison.owed(lambda test: test.suite not in runs.lab.suites)
        return replace(finding, comparison=owed)

    def _boot(self, machine: str) -> Words:
        """The options of a run that is there for the boot. Suites have machines of their own."""
        return Words((*self.words.platform, "--machine", machine), tests=("--rule", "OWN-1"))

    def _base_must_boot(self, boot: Words) -> None:
        """The control of a kernel that does not boot. Raises LabError."""
        runs = self.runs
        with runs.progress.step(f"boot {runs.base.kernel.name}, the base, to compare"):
            record = runs.of_base("control", boot)
        if crash_of(record) or not record.tests:
            raise LabError("the base does not boot either", hint=f"see {runs.folder / 'control'}")

    def _confirmed(self, finding: Finding) -> Finding:
        """What broke, run again with and without the series: a test that fails on the base now is
        no fault of the series."""
        bad = finding.bad[:MOST_AGAIN]
        if not bad:
            return finding
        words = self.words.of([pair.test for pair in bad]).repeated()
        try:
            with self.runs.progress.step("test again what broke"):
                after = self.runs.of_series(self._total, "again-after", words)
                before = self.runs.of_base("again-before", words)
        except LabError as error:  # what is known is not lost for it, but no patch is blamed
            self.runs.progress.say(f"what broke could not be tested again: {error}")
            return finding
        again = {
            pair.test.id: Confirmation(
                AGAIN, failures(before, pair.test), failures(after, pair.test)
            )
            for pair in bad
        }
        doubtful = [pair for pair in bad if again[pair.test.id].before]
        comparison = finding.comparison.doubted(doubtful)
        known = splats_of(before)
        splats = tuple(splat for splat in finding.splats if splat not in known)
        return replace(finding, comparison=comparison, confirmations=again, splats=splats)

    @staticmethod
    def _steady(finding: Finding) -> list[Pair]:
        """What failed each time: of what fails now and then no run of one patch says whose it is,
        and the last patch would be blamed."""
        again = finding.confirmations or {}
        asked = [pair for pair in finding.bad if pair.test.id in again]
        return [pair for pair in asked if again[pair.test.id].after == AGAIN]

    def _culprit(self, is_bad: Callable[[int], bool | None]) -> Culprit:
        """The first patch with which it is so. What does not build, or of whose run nothing can be
        said, cannot be judged."""

        def judged(count: int) -> bool | None:
            try:
                self.runs.base.build(self.runs.series.first(count))
                with self.runs.progress.step(f"test the first {count} patches"):
                    return is_bad(count)
            except LabError:
                return None

        first, last = first_bad(self._total, judged)
        return Culprit(first, last, subject_of(self.runs.series.patches[last - 1]))

    def _does_not_boot(self, count: int, boot: Words) -> bool:
        return bool(crash_of(self.runs.of_series(count, f"first-{count}", boot)))

    def _fails(self, steady: Sequence[Pair]) -> Callable[[int], bool | None]:
        """Whether any of these tests fails."""
        words = self.words.of([pair.test for pair in steady])
        known = {pair.test.id for pair in steady}

        def fails(count: int) -> bool | None:
            record = self.runs.of_series(count, f"first-{count}", words)
            asked = [test for test in record.tests if test.id in known]
            if any(test.exit_status == 1 for test in asked):
                return True
            lost = any(test.exit_status == 2 for test in asked)
            return None if lost or len(asked) < len(known) else False

        return fails

    def _each(self, before: RunRecord) -> tuple[Step, ...]:
        """Every patch but the last, of which all is known: does it build, boot and keep?"""
        return tuple(self._step(number, before) for number in range(1, self._total))

    def _step(self, number: int, before: RunRecord) -> Step:
        step = Step(number, subject_of(self.runs.series.patches[number - 1]))
        try:
            self.runs.base.build(self.runs.series.first(number))
            with self.runs.progress.step(f"test the first {number} patches") as shown:
                record = self.runs.of_series(number, f"each-{number}", self.words)
                shown.result(f"{len(record.tests)} tests")
            if crash_of(record):
                return replace(step, boots=False)
            comparison = compare(before, record)
            if bad := (comparison.broken + comparison.crashed)[:MOST_AGAIN]:
                words = self.words.of([pair.test for pair in bad]).repeated()
                again = self.runs.of_series(number, f"each-{number}-again", words)
                once = [pair for pair in bad if not failures(again, pair.test)]
                comparison = comparison.doubted(once)
        except LabError as error:
            return replace(step, error=str(error))
        return replace(step, comparison=comparison)
