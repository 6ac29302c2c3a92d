# SPDX-License-Identifier: GPL-2.0-only
"""A reproduction for a person: how often, after how long, and what it looks like."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.text import Text

from lab.repro.attempt import Attempt
from lab.repro.rate import CONFIDENCE
from lab.repro.reproduction import Reproduction
from lab.results.layout import line
from lab.text import printable

_NUMBERS = 8  # attempts that are named
_REPORT = 60  # lines of a report


def show(found: Reproduction, folder: Path, console: Console) -> None:
    """Write it; its run was left in `folder`."""
    mark = {0: ("quiet", "green"), 1: ("SHOWN", "bold red"), 2: ("ERROR", "bold white on red")}
    line(console, Text.assemble("\n", mark[found.status], f" {printable(head(found))}"))
    if found.attempts:
        line(console, Text(f"  {rate(found)}"))
    _titles(found.groups(), "", console)
    _titles(found.besides(), "besides: " if found.expected else "", console)
    for failure in dict.fromkeys(found.failures):
        line(console, Text(f"  no attempt, as the lab failed: {printable(failure)}", "yellow"))
    if found.shown:
        _first(found.shown[0], console)
    line(console, Text(f"\nreport: {folder}"))


def head(found: Reproduction) -> str:
    """What came of it, in a line."""
    what = f"{found.expected}: " if found.expected else ""
    of = f"{len(found.shown)} of {len(found.attempts)}"
    words = f"{what}{of} on {found.kernel}, machine {found.machine}"
    if found.shown:
        first = found.shown[0]
        words += f", first after {seconds(first.since)}"
        words += f" (attempt {first.number}, {seconds(first.seconds)} into it)"
    if not found.finished:
        words += "; it did not finish"
    return words


def rate(found: Reproduction) -> str:
    """The rate with its interval, in a line."""
    low, high = found.interval
    guests = f", {found.jobs} guests at once" if found.jobs > 1 else ""
    return (
        f"rate {percent(found.rate)} ({percent(low)} to {percent(high)} with "
        f"{percent(CONFIDENCE)} confidence), {seconds(found.seconds)}{guests}"
    )


def percent(share: float) -> str:
    """3 %, 0.62 %: two digits that count."""
    return f"{float(f'{100 * share:.2g}'):g} %"


def seconds(number: float) -> str:
    """0.8 s, 12 s, 3 min 20 s."""
    if number < 9.95:
        return f"{number:.1f} s"
    whole = round(number)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _titles(groups: Mapping[str, Sequence[Attempt]], prefix: str, console: Console) -> None:
    for title, attempts in groups.items():
        numbers = ", ".join(str(attempt.number) for attempt in attempts[:_NUMBERS])
        numbers += ", …" if len(attempts) > _NUMBERS else ""
        words = f"  {prefix}{len(attempts):3}  {printable(title)} (attempt {numbers})"
        line(console, Text(words, "bold"))


def _first(attempt: Attempt, console: Console) -> None:
    sign = attempt.shown[0]
    lines = printable(sign.text or sign.headline).splitlines()
    if lines:
        line(console, Text(""))
    for words in lines[:_REPORT]:
        line(console, Text(f"  | {words}", "dim"))
    if len(lines) > _REPORT:
        line(console, Text(f"  | and {len(lines) - _REPORT} lines more", "dim"))
    if attempt.under:
        line(console, Text(f"  under: {printable(attempt.under)}"))
    folders = dict.fromkeys(str(PurePosixPath(path).parent) for path in attempt.evidence)
    for folder in folders:
        own = [Path(path).name for path in attempt.evidence if str(Path(path).parent) == folder]
        line(console, Text(f"  see {folder}/: {', '.join(own)}"))
