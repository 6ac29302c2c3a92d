# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab history`: when a rule, a test or a splat last did what, and on what."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from lab.config import Lab, known
from lab.history.questions import Moment, Sighting, Standing, Summary, seen, standings, summaries
from lab.history.store import History
from lab.history.subject import subject_of
from lab.repro.rate import CONFIDENCE
from lab.repro.show import percent
from lab.results.layout import line, plain_table
from lab.results.verdict import Verdict
from lab.text import printable

_NIGHTS = 20  # that are shown where nothing is asked for


def show_history(
    lab: Lab, word: str | None, kernel: str | None, machine: str | None, *, as_json: bool
) -> None:
    """Print what is known of a rule, a test or a splat, or how the last nights went.

    Raises ConfigurationError for a word, a kernel or a machine that the history does not have, and
    as `History.opened` does.
    """
    console = Console()
    with History.opened(lab.nightly.history if lab.nightly else None) as history:
        for what, name in (("kernel", kernel), ("machine", machine)):
            if name is not None:
                known(what, name, {getattr(cell, what): None for cell in history.cells()})
        if word is None:
            nights = summaries(history, _NIGHTS, kernel=kernel, machine=machine)
            if as_json:
                _print_json({"nights": [night.to_json() for night in nights]})
            else:
                _show_nights(console, nights)
            return
        subject = subject_of(history, word)
        if subject.is_splat:
            sightings = seen(history, subject.name, kernel=kernel, machine=machine)
            if as_json:
                found = [sighting.to_json() for sighting in sightings]
                _print_json({"splat": subject.name, "sightings": found})
            else:
                _show_sightings(console, subject.name, sightings)
            return
        stands = standings(history, subject.tests, kernel=kernel, machine=machine)
        if as_json:
            _print_json({"subject": subject.name, "standings": [_plain(each) for each in stands]})
        else:
            _show_standings(console, subject.name, stands)


# For a person


def _show_nights(console: Console, nights: Sequence[Summary]) -> None:
    if not nights:
        line(console, Text("no night has been run: see `vfio-lab nightly`"))
        return
    shown = [verdict for verdict in Verdict if any(night.counts.get(verdict) for night in nights)]
    table = plain_table()
    table.add_column("night", no_wrap=True)
    for heading in ("cells", "hours", *shown):
        table.add_column(f"  {heading}", justify="right", no_wrap=True)
    for night in nights:
        counts = (night.counts.get(verdict, 0) for verdict in shown)
        cells = [
            Text(str(count or ""), verdict.mark.style if verdict.is_trouble else "")
            for verdict, count in zip(shown, counts, strict=True)
        ]
        table.add_row(night.night, str(night.cells), f"{night.seconds / 3600:.1f}", *cells)
    console.print(table)


def _show_standings(console: Console, name: str, stands: Sequence[Standing]) -> None:
    line(console, Text(printable(name), "bold"))
    for cell, group in groupby(stands, lambda standing: standing.cell):
        line(console, Text(f"\n{printable(str(cell))}"))
        found = list(group)
        quiet = [standing for standing in found if standing.passed and not standing.failed]
        silent = [standing for standing in found if not standing.passed and not standing.failed]
        for standing in found:
            if standing.failed or standing in quiet[: len(quiet) == 1]:
                style = "bold red" if standing.first_bad else ""
                line(console, Text(f"  {printable(_last(standing.test))}", style))
                for words in _told(standing):
                    line(console, Text(f"    {printable(words)}"))
        if len(quiet) > 1:
            newest = max(quiet, key=lambda standing: _night(standing.last_good))
            runs = sum(standing.passed for standing in quiet)
            words = f"{len(quiet)} tests never failed, in {runs} runs; the last passed in "
            line(console, Text(f"  {printable(words + _when(newest.last_good))}"))
        if silent:
            line(console, Text(f"  {len(silent)} tests were never seen to pass or to fail"))


def _told(standing: Standing) -> Iterator[str]:
    if standing.first_bad:
        yield f"first bad    {_when(standing.first_bad)}"
        yield f"last good    {_when(standing.last_good)}"
    else:
        yield f"last passed  {_when(standing.last_good)}"
    if standing.last_bad:
        yield f"last failed  {_when(standing.last_bad)}"
    if standing.runs:
        low, high = standing.interval
        yield (
            f"flakes       {standing.flaked} of {standing.runs} runs on bits that pass, "
            f"{percent(standing.flaked / standing.runs)} ({percent(low)} to {percent(high)} with "
            f"{percent(CONFIDENCE)} confidence)"
        )


def _show_sightings(console: Console, title: str, sightings: Sequence[Sighting]) -> None:
    line(console, Text(printable(title), "bold"))
    for sighting in sightings:
        line(console, Text(f"\n{printable(str(sighting.cell))}"))
        line(console, Text(f"  in {sighting.nights} {_plural('night', sighting.nights)}"))
        line(console, Text(f"  first seen  {printable(_when(sighting.first))}"))
        line(console, Text(f"  last seen   {printable(_when(sighting.last))}"))
        for test in sighting.tests:
            line(console, Text(f"  {printable(_last(test))}"))


def _when(moment: Moment | None) -> str:
    if not moment:
        return "never"
    kernel = ", ".join(filter(None, (moment.release, moment.source, moment.kernel_key[:12])))
    return f"{moment.night} on {kernel}" if kernel else moment.night


def _night(moment: Moment | None) -> str:
    return moment.night if moment else ""


def _last(test: str) -> str:
    return test.rpartition("::")[2]


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


# For a program


def _plain(standing: Standing) -> dict[str, Any]:
    return standing.to_json() | {"runs": standing.runs, "interval": list(standing.interval)}


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=1))
