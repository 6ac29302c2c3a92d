# SPDX-License-Identifier: GPL-2.0-only
"""The morning's mail: what is new, in ten lines, and where to look."""

import platform
import shlex
import statistics
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import localtime
from functools import cached_property
from pathlib import Path

from lab.cache import key_of
from lab.config.nightly import Mail
from lab.errors import LabError
from lab.history.model import CellRun, Change, News
from lab.nightly.post import send
from lab.page.place import lasted, moment
from lab.results.replay import SCRIPT
from lab.text import one_line, printable

FILE = "mail.txt"
_WIDTH = 76  # columns: quoted twice, a line still fits
_LINES = 10  # of news
_COLUMN = max(len(change) for change in Change) + 2


@dataclass(frozen=True)
class _Item:
    """What is told at once: a thing that broke in four modes is one thing."""

    news: tuple[News, ...]

    @property
    def change(self) -> Change:
        return self.news[0].change

    @property
    def name(self) -> str:
        first = self.news[0]
        function = first.test.rpartition("::")[2].partition("[")[0]
        return one_line(f"{first.rule or ''} {function or first.message}".strip())

    @property
    def lines(self) -> list[str]:
        """One, a second for where it was seen, and one for the commit that it came with."""
        found = next((one_line(each.bisected) for each in self.news if each.bisected), "")
        bisected = [f"  {'':{_COLUMN}}{_cut(found, _WIDTH - 2 - _COLUMN)}"] if found else []
        return [*self._what, *bisected]

    @property
    def _what(self) -> list[str]:
        what = f"  {self.change:{_COLUMN}}{self.name}"
        where = one_line(str(self.news[0].cell))
        more = f" and {len(self.news) - 1} more" if len(self.news) > 1 else ""
        if len(what) + 2 + len(where) + len(more) <= _WIDTH:
            return [f"{what}, {where}{more}"]
        room = _WIDTH - 2 - _COLUMN - len(more)
        return [_cut(what, _WIDTH), f"  {'':{_COLUMN}}{_cut(where, room)}{more}"]


@dataclass(frozen=True)
class Mailing:
    """What a mail is made of.

    `nights` is the folder of all nights, `night` the one that it is about, `before` the one whose
    mail it follows, empty where there is none. `link` is what stands before a page's name, as
    lab.yaml has it. `trouble` are lines of what hindered the night.
    """

    nights: Path
    night: str
    news: Sequence[News]
    runs: Sequence[CellRun]
    before: str = ""
    link: str = ""
    trouble: Sequence[str] = ()

    @property
    def has_news(self) -> bool:
        """Whether anything is not as it was the night before."""
        return any(each.change is not Change.STILL for each in self.news) or bool(self.trouble)

    @property
    def subject(self) -> str:
        """`vfio-lab: 2 newly broken, 1 flaky (28 Nov 2026, 12 cells)`."""
        counts = Counter(item.change for item in self._items)
        said = ", ".join(f"{counts[change]} {change}" for change in Change if change in counts)
        date = moment(self.night, "%d %b %Y")
        return f"vfio-lab: {said or 'nothing new'} ({date}, {_cells(len(self._whole))})"

    @property
    def text(self) -> str:
        """What it says. Commands alone are not wrapped: they would be others."""
        blocks = (self._head(), self._new(), self._again(), self._figures())
        paragraphs = ["\n".join(lines) for block in blocks if (lines := list(block))]
        return printable("\n\n".join(paragraphs)) + "\n"

    def message(self, mail: Mail | None) -> EmailMessage:
        """The mail with its headers. The nights of a host are one thread."""
        letter = EmailMessage()
        letter["Subject"] = self.subject
        if mail:
            letter["From"] = mail.sender if "@" in mail.sender else f"{mail.sender}@{_host()}"
            letter["To"] = ", ".join(mail.to)
        letter["Date"] = localtime()
        letter["Message-ID"] = _identity(self.night)
        if self.before:
            letter["In-Reply-To"] = letter["References"] = _identity(self.before)
        letter["Auto-Submitted"] = "auto-generated"  # nobody's absence answers it
        text = self.text
        letter.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
        return letter

    @cached_property
    def _items(self) -> Sequence[_Item]:
        grouped: dict[tuple[object, ...], list[News]] = {}
        for each in self.news:
            name = each.test.partition("[")[0] or each.message
            grouped.setdefault((each.change, each.rule, name, each.splats), []).append(each)
        return [_Item(tuple(found)) for found in grouped.values()]

    @property
    def _whole(self) -> Sequence[CellRun]:
        return [run for run in self.runs if run.attempt == 0]

    def _head(self) -> Iterator[str]:
        statuses = Counter(run.status for run in self._whole)
        words = {0: "without trouble", 1: "where the kernel fails", 2: "where the lab failed"}
        told = [f"{statuses[status]} {said}" for status, said in words.items() if statuses[status]]
        yield f"The night of {moment(self.night)}, on {_host()}"
        yield from _wrapped(
            f"{_cells(len(self._whole))}: {', '.join(told) or 'nothing was tested'}"
        )
        for trouble in self.trouble:
            yield from _wrapped(trouble, "  ")

    def _new(self) -> Iterator[str]:
        yield "New:" if self._items else "Nothing is new."
        room = _LINES
        for number, item in enumerate(self._items):
            left = len(self._items) - number
            if len(item.lines) + (left > 1) > room:  # one is needed to say that there is more
                yield f"  and {left} more"
                break
            yield from item.lines
            room -= len(item.lines)
        if self.link:
            yield f"All of it: {self.link.rstrip('/')}/{self.night}/index.html"

    def _again(self) -> Iterator[str]:
        found = [
            (item.name, script) for item in self._items[:_LINES] if (script := self._script(item))
        ]
        if found:
            yield "Once more:"
        for name, script in found:
            yield f"  # {_cut(name, _WIDTH - 4)}"
            yield f"  {shlex.quote(str(script))}"

    def _script(self, item: _Item) -> Path | None:
        places = (self.nights / each.evidence / SCRIPT for each in item.news if each.evidence)
        found = item.change.is_alarm and next((file for file in places if file.is_file()), None)
        return found or None

    def _figures(self) -> Iterator[str]:
        kernels = dict.fromkeys(
            f"{run.cell.kernel} {run.release}: {run.source}" for run in self._whole
        )
        figures: dict[str, list[float]] = {}
        for run in self._whole:
            for name, value in run.figures.items():
                figures.setdefault(name, []).append(value)
        if self.runs:
            yield "Figures:"
            seconds = sum(run.seconds for run in self.runs)
            again = len(self.runs) - len(self._whole)
            yield from _wrapped(
                f"runs: {len(self.runs)}, {again} of them once more, {lasted(seconds)}"
            )
        for name, values in figures.items():
            if name.endswith("_seconds"):
                shown = name.removesuffix("_seconds").replace("_", " ")
                yield from _wrapped(f"{shown}: {statistics.median(values):.1f} s, the median")
        for kernel in kernels:
            yield from _wrapped(f"kernel {kernel}")


def deliver(mailing: Mailing, mail: Mail | None) -> str:
    """Write the night's mail.txt, and send the same if `mail` says so.

    Returns why that could not be, empty where it could: no verdict depends on it.
    """
    try:
        letter = mailing.message(mail)
        (mailing.nights / mailing.night / FILE).write_bytes(bytes(letter))
        if mail and (mail.when == "always" or mailing.has_news):
            send(letter, mail.via)
    except (LabError, OSError) as error:
        return f"the mail was not sent: {error}"
    return ""


def _identity(night: str) -> str:
    # no longer than a line: folded, it would be encoded, and join no thread
    return f"<{night}.{key_of({'host': _host()})[:12]}@vfio-lab.invalid>"


def _host() -> str:
    return platform.node() or "localhost"


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        one_line(text), _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  "
    )
