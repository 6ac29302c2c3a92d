# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab bisect`: the first kernel, patch or commit that shows it."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.bisect import line
from lab.bisect.commits import Commits
from lab.bisect.judge import Candidate, Judge
from lab.bisect.memory import Memory
from lab.cache import Cache
from lab.cell import Choice, machine_of
from lab.config import Lab
from lab.errors import ConfigurationError, LabError
from lab.kernel.series import Series
from lab.kernel.source import commit_of
from lab.progress import Progress
from lab.repro.order import Limits, Order
from lab.text import printable

FOUND, RANGE, FAILED = 0, 1, 2  # the exit status


@dataclass(frozen=True)
class Search:
    """Between what it is looked for: `good` and `bad` are kernels; or commits, where a `tree` is
    given; or there is a `series`, whose base is good and whose last patch is bad.

    `among` are kernels between them. For the others see `Judge`; `seconds` is for the measurement.
    """

    good: str | None = None
    bad: str | None = None
    among: tuple[str, ...] = ()
    tree: Path | None = None
    series: Series | None = None
    confidence: float = 0.99
    seconds: float = 600.0
    rate: float | None = None

    def check(self) -> None:
        """Raises ConfigurationError for what cannot go together."""
        if self.series and (self.good or self.bad or self.tree or self.among):
            raise ConfigurationError(
                "--series names both ends: its base is good, its last patch is bad",
                hint="leave --good, --bad, --git and --among out",
            )
        if not self.series and not (self.good and self.bad):
            raise ConfigurationError("expected --good and --bad, or --series FILE")


@dataclass(frozen=True)
class Answer:
    """What was found, in words; `single` where it is just one."""

    words: str
    single: bool
    log: Path | None = None  # git's


def bisect(
    lab: Lab, choice: Choice, order: Order, search: Search, *, anew: bool, as_json: bool
) -> int:
    """Look for it, and report; returns the exit status.

    0: it is known which it was; 1: it is one of several, as some cannot be judged; 2: nobody knows.
    Raises LabError. What was found out until an interruption is kept.
    """
    order.check()
    order.check_names(lab, machine_of(lab, choice))
    search.check()
    if order.faults and order.faults.nth == 0:
        raise ConfigurationError(
            "--fault-injection nth: expected one that all attempts have: nth=12"
        )
    order = replace(order, limits=Limits())
    progress = Progress()
    memory = Memory.of(_question(lab, choice, order, search), anew=anew)
    if memory.judged:
        progress.say(f"it goes on where it was: {len(memory.judged)} are known ({memory.folder})")
    judge = Judge(lab, order, memory, progress, search.confidence, search.seconds, search.rate)
    try:
        answer = _answer(lab, choice, search, judge, memory, progress)
    except KeyboardInterrupt:
        print(
            f"vfio-lab: interrupted; the same command goes on with what is in {memory.folder}",
            file=sys.stderr,
        )
        return FAILED
    except LabError:
        progress.say(f"the same command goes on with what is in {memory.folder}")
        raise
    memory.found = answer.words
    memory.write()
    if as_json:
        print(json.dumps({**memory.to_json(), "single": answer.single}, indent=1))
    else:
        _show(answer, memory)
    return FOUND if answer.single else RANGE


def _answer(
    lab: Lab, choice: Choice, search: Search, judge: Judge, memory: Memory, progress: Progress
) -> Answer:
    if search.tree:
        return _of_commits(choice, search, judge, memory, progress)
    if search.series:
        base = choice.kernel or lab.run.kernel
        row = line.of_series(choice, base, search.series)
        culprit = line.bisect(row, judge)
        return Answer(f"the first bad one: {_range(row, culprit.first, culprit.last)}",
                      culprit.is_known)  # fmt: skip
    assert search.good
    assert search.bad
    ends = (search.good, search.bad)
    row = line.of_kernels(lab, choice, ends, search.among, Cache.of_user())
    culprit = line.bisect(row, judge)
    good, bad = row[culprit.first - 1].title, row[culprit.last].title
    words = f"good: {good}; bad: {bad}"
    skipped = [each.title for each in row[culprit.first : culprit.last]]
    words += f"; between them cannot be judged: {', '.join(skipped)}" if skipped else ""
    return Answer(words, culprit.is_known)


def _range(row: Sequence[Candidate], first: int, last: int) -> str:
    titles = [each.title for each in row[first : last + 1]]
    return titles[0] if len(titles) == 1 else f"one of {'; '.join(titles)}"


def _of_commits(
    choice: Choice, search: Search, judge: Judge, memory: Memory, progress: Progress
) -> Answer:
    named, plus, fragments = (choice.kernel or "").partition("+")
    if named:
        raise ConfigurationError(
            f"--kernel {named}: the kernel is the tree's",
            hint="--kernel +FRAGMENT puts a fragment on it",
        )
    assert search.tree
    assert search.good
    assert search.bad
    commits = Commits.between(search.tree, search.good, search.bad, memory.folder / "git")
    judge.bad_end(commits.candidate(commits.bad, choice, plus + fragments))
    judge.good_end(commits.candidate(commits.good, choice, plus + fragments))
    while (commit := commits.current) is not None:
        progress.say(f"{commits.left()} commits are left")
        commits.mark(commit, judge.judge(commits.candidate(commit, choice, plus + fragments)))
    log = memory.folder / "git-bisect.log"
    log.write_text(commits.log)
    titles = [commits.title(commit) for commit in commits.possible]
    words = titles[0] if len(titles) == 1 else f"one of {'; '.join(titles)}"
    return Answer(f"the first bad commit: {words}", len(titles) == 1, log)


def _question(lab: Lab, choice: Choice, order: Order, search: Search) -> Mapping[str, Any]:
    """All that decides the answer."""
    what = Path(order.what)
    ends: list[str | None] = [search.good, search.bad]
    if search.tree and search.good and search.bad:
        ends = [commit_of(search.tree, end) for end in (search.good, search.bad)]
    return {
        "what": order.what if order.is_test else hashlib.sha256(what.read_bytes()).hexdigest(),
        "words": order.words(),
        "lab": str(lab.root),
        "kernel": choice.kernel or (None if search.tree else lab.run.kernel),
        "machine": choice.machine or lab.run.machine,
        "image": choice.image,
        "qemu": [str(choice.qemu), *choice.qemu_arguments],
        "ends": ends,
        "among": list(search.among),
        "tree": str(search.tree.absolute()) if search.tree else None,
        "series": dict(search.series.inputs) if search.series else None,
        "confidence": search.confidence,
        "rate": search.rate,
    }


def _show(answer: Answer, memory: Memory) -> None:
    print(f"\n{printable(answer.words)}")
    told = {"good": 0, "bad": 0, "skip": 0}
    for judged in memory.judged.values():
        told[judged.verdict.value] += 1
    counts = ", ".join(f"{count} {verdict}" for verdict, count in told.items() if count)
    print(f"  judged: {counts}")
    if answer.log:
        print(f"  git bisect replay {answer.log}")
    print(f"report: {memory.folder}")
