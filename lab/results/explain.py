# SPDX-License-Identifier: GPL-2.0-only
"""The contract for a person: one rule in full, or all of them by title."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from lab.contract import ALWAYS, Flow, Mode, Rule
from lab.results.layout import line, rule_table, shortened


def explain(rule: Rule, tests: Sequence[str], console: Console) -> None:
    """Write one rule; `tests` are the node ids of the tests that cite it."""
    line(console, Text.assemble((rule.id, "bold"), f"  {rule.title}"))
    line(console, Text(rule.section, "dim"))
    _part(console, "procedure", [("", rule.procedure)])
    _part(console, "expected", [*rule.expected.items(), ("always", ALWAYS)])
    _part(console, "modes", [(mode.value, mode.meaning) for mode in rule.modes])
    versions = [(rule.since, "the kernel has it from here on")] if rule.since else []
    _part(console, "by version", [*versions, *rule.changed.items()])
    _part(console, "source (Linux 6.12)", [("", source) for source in rule.source])
    _part(console, "tests", [("", test) for test in tests] or [("", "none cites this rule")])


def listing(rules: Iterable[Rule], tests: Mapping[str, Sequence[str]], console: Console) -> None:
    """Write the rules as a table; `tests` are the node ids that cite a rule, by its id."""
    table = rule_table()
    table.add_column("modes", no_wrap=True)
    table.add_column("tests", no_wrap=True, justify="right")
    section = None
    for rule in rules:
        if rule.section != section:
            section = rule.section
            table.add_row("", Text(section, "bold"), "", "")
        count = len(tests.get(rule.id, ()))
        table.add_row(rule.id, shortened(rule.title), _modes(rule), str(count) if count else "")
    console.print(table)


def _modes(rule: Rule) -> str:
    flow = next((flow.value for flow in Flow if flow.modes == rule.modes), None)
    return flow or f"{len(rule.modes)} of {len(Mode)}"


def _part(console: Console, heading: str, rows: Sequence[tuple[str, str]]) -> None:
    if not rows:
        return
    console.print()
    line(console, Text(heading, "bold"))
    width = max(len(name) for name, _ in rows)
    indent = "  " + " " * (width + 2 if width else 0)
    for name, text in rows:
        # A path or a node id stays whole: one that is cut cannot be copied.
        folded = textwrap.wrap(
            text,
            max(console.width - len(indent), 20),
            break_long_words=False,
            break_on_hyphens=False,
        )
        first = f"  {name:{width}}  " if width else "  "
        for index, words in enumerate(folded):
            line(console, Text((indent if index else first) + words))
