# SPDX-License-Identifier: GPL-2.0-only
"""What the reports have in common: the order of rows and columns, lines, and tables of rules."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.contract import Mode, rules


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


def rows(subjects: Iterable[str]) -> list[str]:
    """Each once: the contract's rules in its order, then what it does not know."""
    order = {id_: place for place, id_ in enumerate(rules())}
    return sorted(dict.fromkeys(subjects), key=lambda subject: order.get(subject, len(order)))


def columns(modes: Iterable[Mode | None]) -> list[Mode | None]:
    """Each once, in the order of Mode, then None for tests without one."""
    found = set(modes)
    known: list[Mode | None] = [mode for mode in Mode if mode in found]
    return [*known, None] if None in found else known


def heading(mode: Mode | None) -> str:
    """A column's."""
    return mode.short if mode else "any"


def meaning(mode: Mode | None) -> str:
    """What a column's heading stands for."""
    return f"{mode.value}: {mode.meaning}" if mode else "a test that is not run once a mode"


def title(subject: str) -> str:
    """The rule as a statement, or that it is none."""
    rule = rules().get(subject)
    return rule.title if rule else "(no rule of the contract)"
