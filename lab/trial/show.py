# SPDX-License-Identifier: GPL-2.0-only
"""A finding for a person."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lab.results.compare import Pair
from lab.results.layout import line
from lab.text import printable
from lab.trial.finding import Finding

_STYLES = {
    "broken": "bold red",
    "crashed": "bold red",
    "mended": "green",
    "undecided": "bold magenta",
}
_GOOD, _BAD = "green", "bold red"
_SPEEDS = {"same": "", "faster": _GOOD, "slower": "bold yellow"}


def show(finding: Finding, folder: Path, console: Console) -> None:
    """What is broken comes first, the count of all tests last."""
    for text in _lines(finding):
        line(console, text)
    line(console, Text(f"report: {printable(str(folder))}"))


def _lines(finding: Finding) -> Iterator[Text]:
    if finding.crash:
        yield Text.assemble(("does not boot", _BAD), f" {_first(finding.crash)}")
    for kind, style in _STYLES.items():
        for pair in getattr(finding.comparison, kind):
            yield from _pair(pair, kind, style, finding)
    yield from _besides(finding)
    total = len(finding.series.patches)
    if finding.culprit:
        bad = f"first broken by {printable(str(finding.culprit))} ({total} in all)"
        yield Text(bad, "bold")
    for step in finding.steps:
        mark = ("✗", _BAD) if step.status else ("✓", _GOOD)
        words = f" patch {step.number} of {total}, {printable(step.subject)}: "
        yield Text.assemble(mark, words, _first(str(step)))
    if not finding.crash:
        yield Text(_counts(finding))


def _besides(finding: Finding) -> Iterator[Text]:
    """What no test stands for."""
    for splat in finding.splats:
        yield Text.assemble(("new splat", _BAD), f" {printable(splat)}")
    if finding.warnings is None:
        yield Text("what the compiler warns of that is new is not known: the base's log is gone")
    for warning in finding.warnings or ():
        place = f"{warning['file']}:{warning['line']}"
        words = f" {printable(place)}: {printable(warning['text'])}"
        yield Text.assemble(("new warning", "bold yellow"), words)
    if finding.speed is None:
        yield Text("what is slower or faster is not known: it could not be measured")
    for change in finding.speed or ():
        yield Text(str(change), _SPEEDS[change.verdict])


def _pair(pair: Pair, kind: str, style: str, finding: Finding) -> Iterator[Text]:
    test = pair.test
    yield Text.assemble((kind, style), f" {test.subject} {printable(test.id)}")
    if kind != "mended" and test.message:
        yield Text(f"  {_first(test.message)}")
    if again := (finding.confirmations or {}).get(test.id):
        yield Text(f"  {again}")


def _counts(finding: Finding) -> str:
    kinds = [*_STYLES, "unchanged"]
    counts = {kind: len(getattr(finding.comparison, kind)) for kind in kinds}
    always = ("broken", "unchanged")
    return ", ".join(f"{n} {kind}" for kind, n in counts.items() if n or kind in always)


def _first(text: str) -> str:
    return printable(next(iter(text.strip().splitlines()), ""))
