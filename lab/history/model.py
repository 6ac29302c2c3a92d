# SPDX-License-Identifier: GPL-2.0-only
"""What history is made of: cells, their runs, and what is new about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lab.contract import Mode
from lab.results.record import Written
from lab.results.verdict import Verdict


@dataclass(frozen=True, order=True)
class CellKey(Written):
    """A cell by its names: what stays the same from night to night.

    `kernel` is the word that asks for it (`v6.12+kasan`, `~/linux@next`), whatever bits that means
    tonight; `series` is the name of a patch series on it, empty where there is none.
    """

    kernel: str
    machine: str
    suite: str
    series: str = ""

    @property
    def platform(self) -> str:
        """The kernel with its series, on its machine."""
        patched = f" with {self.series}" if self.series else ""
        return f"{self.kernel}{patched} on {self.machine}"

    def __str__(self) -> str:
        return f"{self.platform}: {self.suite}"

    @property
    def base(self) -> "CellKey | None":
        """The cell of the kernel that the series stands on; None for one without a series."""
        return CellKey(self.kernel, self.machine, self.suite) if self.series else None


@dataclass(frozen=True)
class CellRun(Written):
    """One run of a cell in a night, as history has it.

    `night` is a night's name, which is the time of its start and sorts by it: `20261128T210000Z`.
    `attempt` is 0 for the run of the whole cell; 1 and up ran what had failed once more, on the
    same bits. `folder` is the run's, relative to the folder of all nights. `started` is ISO 8601
    in UTC; `seconds` is how long it took; `status` its exit status. `source` says in a few words
    what `kernel_key`, the hash of all that made it, was built of: a package's version, a commit.
    `figures` are the run's own, the unit in the name.
    """

    night: str
    cell: CellKey
    attempt: int
    folder: str
    started: str
    seconds: float
    status: int
    release: str = ""
    kernel_key: str = ""
    source: str = ""
    qemu: str = ""
    accel: str = ""
    host: str = ""
    lab: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def bits(self) -> tuple[str, ...]:
        """What decides a verdict: a test that says two things on the same bits is flaky. Empty
        where nobody knows what the kernel was made of."""
        return (self.kernel_key, self.qemu, self.lab) if self.kernel_key else ()


@dataclass(frozen=True)
class Row(Written):
    """What a run of a cell said of one test, or of itself: then `test` is empty.

    The fields are those of `lab.results.record.TestRecord`, but that `splats` are titles, each
    once, and `evidence` is the test's folder, relative to the folder of all nights, empty where it
    has none.
    """

    night: str
    cell: CellKey
    attempt: int
    test: str
    rule: str | None
    mode: Mode | None
    verdict: Verdict
    duration: float
    message: str = ""
    splats: tuple[str, ...] = ()
    evidence: str = ""
    subject: str = ""

    @property
    def failed(self) -> bool:
        """Whether the kernel is to blame: a broken rule, or a crash."""
        return self.verdict.exit_status(splat=bool(self.splats)) == 1


@dataclass(frozen=True)
class Point(Written):
    """A cell in one night as a plot of many shows it: the run of the whole cell.

    `seconds` and `figures` as in its CellRun; `counts` is how many tests had each verdict, those
    left out that none had.
    """

    night: str
    started: str
    seconds: float
    release: str = ""
    kernel_key: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[Verdict, int] = field(default_factory=dict)


class Change(StrEnum):
    """How a night differs from the ones before it, what matters most first."""

    BROKEN = "newly broken"
    SPLAT = "new splat"
    FLAKY = "flaky"
    LOST = "not tested"  # the lab failed where there was a verdict before
    GONE = "not run any more"
    MENDED = "newly mended"
    STILL = "still broken"

    @property
    def is_alarm(self) -> bool:
        """Whether somebody has to look at it this morning."""
        return self in (Change.BROKEN, Change.SPLAT, Change.FLAKY, Change.LOST, Change.GONE)


@dataclass(frozen=True)
class News(Written):
    """One thing that is to be told about a night.

    `test` is pytest's node id, empty where it is not about a single test (a rule that is not run
    any more, trouble of a run); `rule` and `mode` as in its record; `message` says in a line what
    happened. `since` is the first night in an unbroken row in which it was so, and `nights` how
    many that are, this one counted; `before` is the verdict that it had until then, on
    `before_night` and the kernel `before_key`, where there was one. `base` is tonight's verdict of
    the same test on the kernel without the series, or without the variant's fragments. `splats` are
    titles. `passed` of `runs` runs of it on tonight's bits passed: neither 0 nor all is flaky.
    `evidence` is the test's folder, relative to the folder of all nights; empty where it has none.
    """

    change: Change
    cell: CellKey
    test: str = ""
    rule: str | None = None
    mode: Mode | None = None
    verdict: Verdict | None = None
    message: str = ""
    since: str = ""
    nights: int = 1
    before: Verdict | None = None
    before_night: str = ""
    before_key: str = ""
    base: Verdict | None = None
    splats: tuple[str, ...] = ()
    passed: int = 0
    runs: int = 1
    evidence: str = ""
    bisected: str = ""

    @property
    def subject(self) -> str:
        """What it is about, in a few words."""
        mode = f" in {self.mode}" if self.mode else ""
        return f"{self.rule or ''} {self.test.rpartition('::')[2] or self.message}".strip() + mode
