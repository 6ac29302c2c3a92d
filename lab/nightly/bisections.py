# SPDX-License-Identifier: GPL-2.0-only
"""What broke on a branch that moves: which commit was it? In the time that the night has left."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lab.config import Lab
from lab.deadline import Deadline
from lab.errors import LabError
from lab.history.model import CellKey, Change, News
from lab.history.store import History
from lab.nightly.night import Night
from lab.proc import CommandError, run
from lab.progress import Progress, Step

LOG = "bisect.log"
_LEAST = 60.0  # seconds: for less none is begun
_COMMIT = re.compile(r" at ([0-9a-f]{12,40})$")  # as `lab.kernel.origin` says it


@dataclass(frozen=True)
class Bisection:
    """A test that a tree broke between two commits."""

    news: News
    tree: str
    good: str
    bad: str

    def argv(self, lab: Lab) -> list[str]:
        """The command that finds the commit."""
        _, plus, fragments = self.news.cell.kernel.partition("+")
        words = [sys.executable, "-P", "-m", "lab", "bisect", "--lab", str(lab.root), "--json"]
        words += ["--git", self.tree, "--good", self.good, "--bad", self.bad]
        words += ["--machine", self.news.cell.machine]
        words += ["--kernel", plus + fragments] if fragments else []
        return [*words, self.news.test]


def bisected(
    lab: Lab, night: Night, history: History, news: Sequence[News], progress: Progress
) -> tuple[News, ...]:
    """The same news; of what broke on a branch the first bad commit, or why nobody knows it."""
    deadline = Deadline.after(night.budget - night.spent)
    told: dict[News, str] = {}
    for each in _queue(night, history, news):
        if deadline.left < _LEAST:
            told[each.news] = f"no time was left to look between {each.good} and {each.bad}"
            continue
        with progress.step(f"bisect {each.news.subject}: {each.good} to {each.bad}") as step:
            told[each.news] = _answer(lab, night, each, deadline, step)
            step.result(told[each.news])
    return tuple(replace(each, bisected=told[each]) if each in told else each for each in news)


def _queue(night: Night, history: History, news: Sequence[News]) -> Iterator[Bisection]:
    """One test of each cell: the others that broke with it most likely broke by the same."""
    done: set[CellKey] = set()
    for each in news:
        if each.change is not Change.BROKEN or not each.test or each.cell in done:
            continue
        if found := _between(night, history, each):
            done.add(each.cell)
            yield found


def _between(night: Night, history: History, news: News) -> Bisection | None:
    """Where to look; None for what is on no branch, or was never seen to pass there."""
    source = _source_of(night, news.cell)
    good = next(
        (
            found[1]
            for run in (history.runs(news.before_night) if news.before_night else ())
            if run.cell == news.cell and run.attempt == 0 and (found := _COMMIT.search(run.source))
        ),
        None,
    )
    if not good or "git" not in source or source["commit"].startswith(good):
        return None
    return Bisection(news, source["git"], good, source["commit"])


def _source_of(night: Night, cell: CellKey) -> Mapping[str, str]:
    if cell.series:
        return {}
    for order, record in night.records():
        if order.cell == cell and order.attempt == 0:
            source: Mapping[str, str] = record.kernel.get("provenance", {}).get("source", {})
            return source
    return {}


def _answer(lab: Lab, night: Night, each: Bisection, deadline: Deadline, step: Step) -> str:
    log = night.folder / LOG
    try:
        lines = run(each.argv(lab), log=log, on_line=step.note, seconds=deadline.left)
    except CommandError as error:
        lines = list(error.lines)
        if "{" not in lines:
            return f"the bisection failed: {lines[-1] if lines else f'status {error.status}'}"
    except LabError as error:
        return f"the bisection failed: {error.message}"
    # what it says of its progress stands before its answer
    found: str = json.loads("\n".join(lines[lines.index("{") :]))["found"]
    return found
