# SPDX-License-Identifier: GPL-2.0-only
"""A night on a terminal: what is planned, and what came of it."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.history.model import Change, News
from lab.nightly.morning import Morning, counts
from lab.nightly.night import Night, Planned, State
from lab.results.layout import line, plain_table, shortened
from lab.text import one_line, printable

_MOST = 10  # news that a person reads in a terminal; all are on the page
_STYLES = {
    Change.BROKEN: "bold red",
    Change.SPLAT: "bold red",
    Change.FLAKY: "yellow",
    Change.LOST: "magenta",
    Change.GONE: "magenta",
    Change.MENDED: "green",
}


def show_plan(planned: Sequence[Planned], console: Console) -> None:
    """The matrix in its order."""
    table = _table("cell", "changed", "expected")
    for each in planned:
        expected = f"{each.seconds:.0f} s" if each.seconds is not None else "unknown"
        table.add_row(shortened(str(each.cell)), "yes" if each.changed else "no", expected)
    console.print(table)
    known = [each.seconds for each in planned if each.seconds is not None]
    told = f"{sum(known):.0f} s of what is known" if known else "how long they take is not known"
    line(console, Text(f"{len(planned)} cells, {told}"))


def show(morning: Morning, console: Console) -> None:
    """Each cell, what is new, and where the rest is."""
    night = morning.night
    table = _table("cell", "", "")
    for planned in night.cells:
        why = shortened(one_line(planned.why))
        table.add_row(shortened(str(planned.cell)), planned.state.value, why)
    console.print(table)
    for each in morning.news[:_MOST]:
        mark = Text(f"{each.change.value}: ", style=_STYLES.get(each.change, "dim"))
        line(console, mark + Text(printable(_words(each))))
    if len(morning.news) > _MOST:
        line(console, Text(f"and {len(morning.news) - _MOST} more"))
    for trouble in night.trouble:
        line(console, Text(f"trouble: {printable(trouble)}", style="magenta"))
    told = ", ".join(f"{count} {kind}" for kind, count in counts(morning.news).items())
    line(console, Text(f"\n{summary(night)}; {told or 'nothing is new'}"))
    line(console, Text(f"page: {morning.page}"))


def summary(night: Night) -> str:
    """How many cells came to what."""
    states = [each.state for each in night.cells]
    found = ", ".join(f"{states.count(s)} {s.value}" for s in State if s in states)
    return f"{len(states)} cells: {found or 'none'}, in {night.spent:.0f} s"


def _words(news: News) -> str:
    since = f", since {news.since}, {news.nights} nights" if news.nights > 1 else ""
    rate = f", {news.passed} of {news.runs} passed" if news.change is Change.FLAKY else ""
    base = f" (on its base: {news.base.value})" if news.base else ""
    found = f"; {news.bisected}" if news.bisected else ""
    return f"{news.cell}: {news.subject}{since}{rate}{base}{found}"


def _table(*headings: str) -> Table:
    table = plain_table()
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    table.padding = (0, 1)
    return table
