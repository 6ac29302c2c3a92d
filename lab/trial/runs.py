# SPDX-License-Identifier: GPL-2.0-only
"""The runs of a trial: of the base, whose results are kept, and of the series' first patches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.cache import Cache
from lab.child import record_of_run
from lab.config import Lab
from lab.digest import digest_of
from lab.errors import LabError
from lab.kernel.incremental import Base
from lab.kernel.series import Series
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

RECIPE = 3  # of what the base's results depend on
AGAIN = 2  # times that a test is run again which says something that matters
MOST_AGAIN = 20  # tests: of very many that fail the first ones will do


@dataclass(frozen=True)
class Words:
    """The options of the runs. `platform` is what all have in common, `tests` those that choose
    tests, `suites` those that say where tests are looked for."""

    platform: tuple[str, ...]
    suites: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()

    def of(self, wanted: Sequence[TestRecord]) -> "Words":
        """Those that choose just these tests, in whichever mode."""
        return replace(self, tests=words_for(wanted))

    def of_rules(self, rules: Sequence[str]) -> "Words":
        """Those that choose these rules' tests."""
        return replace(self, tests=tuple(word for rule in rules for word in ("--rule", rule)))

    def repeated(self) -> "Words":
        """The same, AGAIN times."""
        return replace(self, tests=(*self.tests, "--repeat", str(AGAIN)))

    def __iter__(self) -> Iterator[str]:
        return iter((*self.platform, *self.suites, *self.tests))


def words_for(wanted: Sequence[TestRecord]) -> tuple[str, ...]:
    """Options of `vfio-lab run` that choose just these tests, in whichever mode."""
    rules = sorted({test.rule for test in wanted if test.rule})
    names = sorted({_key(test) for test in wanted})
    modes = sorted({test.mode for test in wanted if test.mode})
    words = ["-k", " or ".join(names)]
    if all(test.rule for test in wanted):
        words += [word for rule in rules for word in ("--rule", rule)]
    if all(test.mode for test in wanted):
        words += [word for mode in modes for word in ("--mode", mode)]
    return tuple(words)


@dataclass(frozen=True)
class Runs:
    """Runs of a series and its base. `spec` names the base's kernel, `mail` is where runs read the
    series from, `tests` is a folder of tests that it brings. `platform` is what else decides a
    verdict: QEMU, the accelerator, the image; JSON can write it."""

    lab: Lab
    series: Series
    base: Base
    spec: str
    mail: Path
    platform: Mapping[str, Any]
    cache: Cache
    folder: Path
    progress: Progress
    tests: Path | None = None

    def of_base(self, name: str, words: Words) -> RunRecord:
        """A new one of the base. Raises LabError for a run of which nothing can be said."""
        return self._tested(self.folder / name, ["--kernel", self.spec, *words])

    def kept_of_base(self, words: Words) -> RunRecord:
        """What the base answers; known from an earlier time unless something has changed."""

        def maker(place: Path) -> Mapping[str, Any]:
            with self.progress.step(f"test {self.base.kernel.name}, the base") as step:
                record = self._tested(place / "run", ["--kernel", self.spec, *words])
                step.result(f"{len(record.tests)} tests")
            RunFolder(place / "run").write(self._steady(record, place / "again", words))
            return {"kernel": self.base.kernel.name, "tests": len(record.tests)}

        inputs = {
            "recipe": RECIPE,
            "kernel": self.base.kernel.key,
            "platform": dict(self.platform),
            "lab": digest_of(self.lab, *([self.tests] if self.tests else [])),
            "words": list(words),
        }
        entry = self.cache.make("results", inputs, maker)
        record = RunFolder(entry.path / "run").read()
        if record.status == 2:
            self.cache.remove(entry)  # what is not known this time may be the next
        return record

    def of_series(self, count: int, name: str, words: Words) -> RunRecord:
        """One of the first `count` patches. Raises LabError as `of_base` does."""
        kernel = ["--kernel", self.spec, "--series", str(self.mail)]
        if count < len(self.series.patches):
            kernel += ["--patches", str(count)]
        return self._tested(self.folder / name, [*kernel, *words])

    def _steady(self, record: RunRecord, out: Path, words: Words) -> RunRecord:
        """The same, but that a test which fails only now and then is none that fails: what is kept
        is compared with many a series."""
        bad = [test for test in record.tests if test.verdict is Verdict.BROKEN][:MOST_AGAIN]
        if not bad:
            return record
        with self.progress.step(f"test again what {self.base.kernel.name} breaks"):
            again = self._tested(out, ["--kernel", self.spec, *words.of(bad).repeated()])
        flaky = {test.id for test in bad if not failures(again, test)}
        said = f"failed in 1 run of {AGAIN + 1}"
        return replace(
            record,
            tests=tuple(
                replace(test, verdict=Verdict.KEPT, message=f"{said}: {test.message}")
                if test.id in flaky
                else test
                for test in record.tests
            ),
        )

    def _tested(self, out: Path, words: Sequence[str]) -> RunRecord:
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


def crash_of(record: RunRecord) -> str:
    """Why no guest of a run came up at all, empty where one did."""
    if record.figures.get("guests"):
        return ""
    lost = [each.message for each in record.trouble if each.verdict is Verdict.GUEST_LOST]
    return lost[0].removeprefix("boot: ") if lost else ""


def failures(record: RunRecord, test: TestRecord) -> int:
    """How often a test failed there. One that is missing, as no guest came up, has not failed."""
    return sum(each.exit_status == 1 for each in record.tests if each.id == test.id)


def _key(test: TestRecord) -> str:
    """What -k finds it by: a program's case by its own name, all others by the function's."""
    function, _, parameters = test.id.rpartition("::")[2].partition("[")
    return parameters.rstrip("]") if test.program else function
