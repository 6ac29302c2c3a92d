# SPDX-License-Identifier: GPL-2.0-only
"""What the reports on a terminal have in common: lines, and tables with a row a rule."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def line(console: Console, text: Text) -> None:
    """Write one line; it is not wrapped, so that a log can be searched for what stands in it."""
    console.print(text, soft_wrap=True)


def plain_table() -> Table:
    """A table as all reports have it."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, show_edge=False)


def rule_table() -> Table:
    """A table that begins with a rule's id and its `shortened` title.

    The title's column alone may wrap: then rich narrows it first, and no other is cut.
    """
    table = plain_table()
    table.add_column("rule", no_wrap=True)
    table.add_column("")
    return table


def shortened(title: str) -> Text:
    """A title for a table's cell: cut, not wrapped, where there is no room."""
    return Text(title, no_wrap=True, overflow="ellipsis")
