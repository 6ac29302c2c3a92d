# SPDX-License-Identifier: GPL-2.0-only
"""A run's report for a person: what was tested, what is broken and where to look."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.contract import rules
from lab.results.layout import (
    columns,
    heading,
    line,
    meaning,
    plain_table,
    rows,
    rule_table,
    shortened,
    title,
)
from lab.results.record import Cell, RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict, marked
from lab.text import printable

_BUILT = 60  # seconds; who waited longer waited for a build
_DETAIL = 12  # lines at the end of a traceback, where the failing call stands


def report(record: RunRecord, folder: Path, console: Console) -> None:
    """Write the report of a run that was left in `folder`."""
    programs = [test for test in record.tests if test.program]
    others = replace(record, tests=tuple(test for test in record.tests if not test.program))
    if others.tests:
        console.print(_table(others))
        _legend(others, console)
    if programs:
        console.print(_programs(programs))
    for trouble in record.every_trouble:
        line(console, Text.assemble(_mark(trouble.verdict), " the run"))
        _account(trouble, console)
    for test in record.tests:
        if test.verdict.is_trouble:
            _heading(test, record, console)
            _account(test, console)
    for verdict in (Verdict.KNOWN, Verdict.SKIPPED):
        _reasons(verdict, record.tests, console)
    for known in record.mended:
        words = f" recorded as known and kept after all: {printable(known)}"
        line(console, Text.assemble("\n", ("mended", "green"), words))
    _repetitions(record, console)
    _summary(record, folder, console)


def _table(record: RunRecord) -> Table:
    cells = record.cells()
    modes = columns(test.mode for test in record.tests)
    table = rule_table()
    for mode in modes:
        table.add_column(heading(mode).replace("-", "\n"), no_wrap=True)
    for subject in rows(test.subject for test in record.tests):
        row = [_cell(cells.get((subject, mode))) for mode in modes]
        table.add_row(Text(printable(subject)), shortened(title(subject)), *row)
    return table


def _programs(tests: Sequence[TestRecord]) -> Table:
    """The cases of programs: a row a program, and how many have each verdict that occurs."""
    verdicts = [verdict for verdict in Verdict if any(test.verdict is verdict for test in tests)]
    table = plain_table()
    table.add_column("program", no_wrap=True)
    for verdict in verdicts:
        table.add_column(verdict.mark.text, no_wrap=True, justify="right")
    table.add_column("seconds", no_wrap=True, justify="right")
    for program in dict.fromkeys(test.program for test in tests):
        own = [test for test in tests if test.program == program]
        counts = [sum(test.verdict is verdict for test in own) for verdict in verdicts]
        seconds = sum(test.duration for test in own)
        cells = [
            Text(str(count or ""), verdict.mark.style)
            for count, verdict in zip(counts, verdicts, strict=True)
        ]
        table.add_row(Text(printable(program or "")), *cells, f"{seconds:.1f}")
    return table


def _cell(cell: Cell | None) -> Text:
    if cell is None:
        return Text("")
    return Text(marked([test.verdict for test in cell.tests]), cell.verdict.mark.style)


def _mark(verdict: Verdict) -> tuple[str, str]:
    return (verdict.mark.text, verdict.mark.style)


def _legend(record: RunRecord, console: Console) -> None:
    console.print()
    for mode in columns(test.mode for test in record.tests):
        line(console, Text(f"{heading(mode):10} {meaning(mode)}", "dim"))
    if any(len(cell.tests) > 1 for cell in record.cells().values()):
        line(console, Text("A cell shows its worst verdict, and how many of its tests.", "dim"))


def _heading(test: TestRecord, record: RunRecord, console: Console) -> None:
    console.print()
    subject = Text(printable(test.subject), "bold")
    mode = f" {test.mode.value}" if test.mode else ""
    if test.machine and test.machine != record.machine.get("name"):
        mode += f" on {test.machine}"
    said = f": {title(test.subject)}" if test.rule in rules() else ""
    line(console, Text.assemble(_mark(test.verdict), " ", subject, mode, said))
    line(console, Text(f"  {printable(test.id)}"))


def _account(item: TestRecord | Trouble, console: Console) -> None:
    """What happened, the end of the traceback, the splats by their first lines, the evidence."""
    for words in printable(item.message).splitlines():
        line(console, Text(f"  {words}", "bold"))
    for words in printable(item.detail).splitlines()[-_DETAIL:]:
        line(console, Text(f"  | {words}", "dim"))
    for splat in item.splats:
        line(console, Text(f"  splat: {_first(splat)}"))
    own = f"{item.folder}/" if isinstance(item, TestRecord) and item.folder else None
    for path in item.evidence:
        if not own or not path.startswith(own):
            line(console, Text(f"  see {printable(path)}"))
    if own:
        names = [path.removeprefix(own) for path in item.evidence if path.startswith(own)]
        line(console, Text(f"  see {printable(own)}: {printable(', '.join(names))}"))


def _reasons(verdict: Verdict, tests: Sequence[TestRecord], console: Console) -> None:
    grouped: dict[str, list[TestRecord]] = {}
    for test in tests:
        if test.verdict is verdict:
            grouped.setdefault(_first(test.message) or "no reason was given", []).append(test)
    if grouped:
        console.print()
    for reason, group in grouped.items():
        subjects = ", ".join(dict.fromkeys(printable(test.subject) for test in group))
        rest = f" {len(group)}: {reason} ({subjects})"
        line(console, Text.assemble((verdict.value, verdict.mark.style), rest))


def _repetitions(record: RunRecord, console: Console) -> None:
    repeated = record.repeated()
    always = [total for passed, total in repeated.values() if passed == total]
    if repeated:
        console.print()
    if always:
        least = f"{min(always)}" if min(always) == max(always) else f"{min(always)} or more"
        line(console, Text(f"{len(always)} tests passed each time, {least} times in a row"))
    for id_, (passed, total) in repeated.items():
        if passed < total:
            line(console, Text(f"{printable(id_)} passed {passed} of {total} times", "bold red"))


def _summary(record: RunRecord, folder: Path, console: Console) -> None:
    console.print()
    if record.tests and not any(test.verdict.is_checked for test in record.tests):
        line(console, Text("Nothing was checked: no test came to a verdict on a rule.", "yellow"))
    counts = [
        Text(f"{count} {verdict.value}", verdict.mark.style)
        for verdict, count in record.counts().items()
    ]
    total = f"{len(record.tests)} tests" if len(record.tests) != 1 else "1 test"
    verdicts = Text.assemble(": ", Text(", ").join(counts)) if counts else ""
    line(console, Text.assemble(total, verdicts, f" in {_duration(record.seconds)}"))
    line(console, Text(printable(", ".join(_platform(record)))))
    if speed := _speed(record.figures):
        line(console, Text(speed))
    if repeats := record.figures.get("boots_repeated"):
        line(
            console, Text(f"boots repeated because TCG lost a CPU's timer: {repeats:.0f}", "yellow")
        )
    line(console, Text(f"report: {printable(str(folder))}"))


def _platform(record: RunRecord) -> Iterable[str]:
    kernel = record.kernel
    name = kernel.get("release") or kernel.get("name") or "unknown"
    yield f"kernel {name}"
    yield f"machine {record.machine.get('name', 'unknown')}"
    if others := [name for name in record.machines if name != record.machine.get("name")]:
        yield f"a few tests on {' and '.join(others)}"
    if version := record.qemu.get("version"):
        yield f"QEMU {version}"
    if record.accel:
        yield record.accel


def _speed(figures: Mapping[str, float]) -> str | None:
    """How long the user waited, beside what QEMU alone took of it in this run."""
    first, login = figures.get("first_call_seconds"), figures.get("login_seconds")
    if not first or not login or first > _BUILT:
        return None
    return (
        f"first test {first:.1f} s after the command; {login:.1f} s of them from QEMU's start "
        f"to a login (1 : {first / login:.2f})"
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _first(text: str) -> str:
    return next(iter(printable(text).strip().splitlines()), "")
