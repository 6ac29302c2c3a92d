# SPDX-License-Identifier: GPL-2.0-only
"""Cuts the kernel's reports out of a log: a console, dmesg, a journal, a mail.

Where each line names the task or CPU that printed it (CONFIG_PRINTK_CALLER), a report is made of
its caller's lines, whatever others print in between. Without that, lines of two reports at a time
cannot be told apart: the first report then has what was printed until it ended.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from lab.splats import frames
from lab.splats.signatures import (
    FIRST,
    LINE,
    PANIC,
    RULE,
    STACK,
    STALLS,
    TRACE,
    Kind,
    Signature,
    recognise,
    unnamed,
)

_CLOCK = r"[\d:]{8}(?:[.,]\d+)?"
_DATE = rf"\d{{4}}-\d\d-\d\d[T ]{_CLOCK}(?:Z|[-+]\d\d:?\d\d)?"
_DAY = r"[A-Z][a-z]{2}"
# What syslog, journalctl -o short…, and logread write before the kernel's words.
_LOGGED = rf"(?:{_DAY} )?(?:{_DAY} [ \d]\d {_CLOCK}(?: \d{{4}})?|{_DATE}(?: [A-Z]{{3,5}})?)"
_SYSLOG = rf"(?:{_LOGGED}|\d{{9,}}\.\d{{6}}) (?:\S+ ){{0,2}}kernel: ?"
_KMSG = r"(?:[\w.+-]+,)?\d+,\d+,\d+,[-c+](?:,caller=(?P<kmsg>[TC]\d+))?(?:,\w+=[^;,]*)*;"
_SINCE = r"< *\d+\.\d+>"  # dmesg -d
_SECONDS = rf"\[ *(?P<seconds>\d+\.\d+)(?: {_SINCE})?\]"
_STAMP = (
    rf"{_SECONDS}|{_DATE}(?= )|\[{_DATE}\]|\[{_SINCE}\]|\[ *\+\d+\.\d{{6}}\]"
    rf"|\[{_DAY} {_DAY} [ \d]\d {_CLOCK} \d{{4}}(?: {_SINCE})?\]|\[{_DAY}[ \d]\d [\d:]{{5}}\]"
)
_PREFIX = (
    r"(?:>(?: |(?=>)|$))*"  # quoted in a mail
    r"(?:[^\[\n]{1,80}(?=\[ *\d+\.\d{6}[] ]))?"  # what a program printed without an end of line
    r"(?:[a-z\d]+ *:[a-z]+ *: (?=\[))?"  # dmesg -x
    rf"(?P<syslog>{_SYSLOG})?(?:<\d+>)?(?P<stamp>(?:(?:{_STAMP})(?: +(?=\[))?){{1,2}} ?|{_KMSG})?"
    r"(?:\[ *(?P<caller>[TC]\d+)\] ?)?(?:\S+ kernel: )?(?:<\d>)?"
)
_LINE = re.compile(_PREFIX)
_STAMPED = re.compile(rf"^(?:<\d+>)?(?:{_SYSLOG}|{_STAMP}|{_KMSG})", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_CUT_HERE = "------------[ cut here ]------------"
_RULE = re.compile(RULE)
# A line that is not of the first second after a boot.
_LATE = re.compile(r"^(?:<\d+>)?\[ *(?!0\.)\d+\.\d+\]", re.MULTILINE)
_ORDERLY = re.compile(r"(?:reboot|kexec(?:_core)?): |Rebooting in \d|sysrq: (?:Resett|Emergency)")
# What makes a line worth a look while no report is open.
_NOTABLE = re.compile(
    unnamed(f"{_PREFIX}[ \\t]*(?:{FIRST}|{re.escape(_CUT_HERE)}|{RULE[:-1]}|{_ORDERLY.pattern})")
)
_BACKTRACE = "NMI backtrace for cpu"

_LONGEST = 1000  # lines of one report
_GAP = 10.0  # seconds between two of its lines: what comes later is another story
_AFTER = 40  # lines of a caller between the end of its report and the panic that comes of it
_OPENING = 12  # lines between "cut here" and the first that says what it is
_DOUBTFUL = {TRACE: 12, RULE: 40}  # lines in a row that no report has, before its end is missed
_USUAL = 20  # the same for other ends, and until the call trace has come
_MIXED = 3  # and after it, where nobody knows whose a line is


@dataclass(frozen=True)
class Splat:
    """One report of the kernel's."""

    kind: Kind
    title: str
    """The kind in words and the function: the same in each run, and each build of a kernel."""
    headline: str
    """Its first line that says what it is, without prefix."""
    text: str
    """All of it, as it stood, but for colours, and lines of other callers in between."""
    first: int
    last: int
    """Numbers of its first and last line in the log, the log's first being 1."""

    @property
    def is_fatal(self) -> bool:
        """Whether the kernel panicked of it."""
        return "Kernel panic - not syncing: " in self.text


@dataclass(frozen=True)
class _Line:
    number: int
    raw: str
    caller: str  # "T71", "C1", or empty
    seconds: float
    body: str


@dataclass
class _Report:
    """One that is being read; of its lines some stand before the headline."""

    signature: Signature
    match: re.Match[str]
    headline: int
    lines: list[_Line]

    @classmethod
    def of(cls, signature: Signature, line: _Line, before: Sequence[_Line] = ()) -> Self:
        match = re.match(signature.first, line.body)
        assert match  # it was found by that
        return cls(signature, match, line.number, [*before, line])

    def splat(self) -> Splat:
        lines = sorted(self.lines, key=lambda line: line.number)
        while not lines[-1].body.strip():
            lines.pop()
        bodies = [line.body for line in lines if line.number >= self.headline]
        return Splat(
            self.signature.kind,
            frames.title(self.signature, self.match, bodies),
            bodies[0].strip(),
            "\n".join(line.raw for line in lines),
            lines[0].number,
            lines[-1].number,
        )


class _Cut:
    """The part of a report that one caller prints."""

    def __init__(self, report: _Report, ends: str) -> None:
        self.report = report
        self.traced = False  # a call trace has begun
        self._ends = ends  # as in `Signature`
        self._ended = False
        self._nested = 0  # warnings inside, each with an end of its own
        self._doubtful: list[_Line] = []
        self.seconds = report.lines[-1].seconds

    @property
    def remains(self) -> list[_Line]:
        """Lines that were thought to be its own, and are not."""
        return list(self._doubtful)

    def ends_with(self, line: _Line) -> bool:
        """Whether this line is known as its last."""
        return bool(self._ends) and not self._ended and re.match(self._ends, line.body) is not None

    def panics(self, line: _Line) -> None:
        """Its caller panics: that belongs to it."""
        self._ends, self._ended, self._nested = PANIC, False, 0
        self.takes(line, surely=True)

    def is_over(self, kind: Kind) -> bool:
        """Whether another report that its caller begins is a new one, and no part of it."""
        if self._ended or self.report.signature.kind is Kind.DMA_FAULT:
            return True
        if not self.traced or self._ends == PANIC:
            return False
        return (
            self._ends != TRACE
            or kind in STALLS
            or self.report.signature.kind not in (Kind.FAULT, Kind.BUG, Kind.STACK)
        )

    def nests(self, signature: Signature) -> None:
        """A report inside it has begun."""
        if self.traced and signature.ends == TRACE and signature.kind is Kind.WARNING:
            self._nested += 1

    def takes(self, line: _Line, *, surely: bool = False) -> bool:
        """Whether its caller's next line belongs to it, as far as one can tell yet."""
        if len(self.report.lines) >= _LONGEST:
            return False
        self.seconds = line.seconds
        if self._ended:
            surely = frames.is_register(line.body)
            if not surely:
                return False
        elif self.ends_with(line):
            surely = True
            self._ended = not self._nested
            self._nested = max(0, self._nested - 1)
        blank = not line.body.strip()
        if surely or (not (blank and self._doubtful) and frames.belongs(line.body)):
            self.traced = self.traced or frames.begins_trace(line.body)
            self.report.lines += [*self._doubtful, line]
            self._doubtful.clear()
            return True
        self._doubtful.append(line)
        return len(self._doubtful) <= self._patience(line)

    def _patience(self, line: _Line) -> int:
        if self._ends or not self.traced:
            return _DOUBTFUL.get(self._ends, _USUAL)
        return 0 if line.caller else _MIXED


@dataclass
class _Aftermath:
    """What a caller prints once its report has ended."""

    report: _Report
    seconds: float
    lines: list[_Line]


class _Reader:
    def __init__(self, *, stamped: bool) -> None:
        self._stamped = stamped
        self._reports: list[_Report] = []
        self._cuts: dict[str, _Cut] = {}  # by caller, as the others
        self._aftermaths: dict[str, _Aftermath] = {}
        self._openings: dict[str, list[_Line]] = {}
        self._stall: _Cut | None = None  # that the other CPUs' backtraces belong to
        self._booted = False
        self._running = False  # a kernel that is not new has printed something
        self._indent = ""  # by which a mail has moved the report to the right

    def read(self, log: str) -> list[Splat]:
        lines = log.split("\n")
        self._running = bool(_LATE.search(log, 0, max(0, log.find("Linux version "))))
        for number, printed in enumerate(lines, 1):
            raw = _COLOUR.sub("", printed) if "\x1b" in printed else printed
            if self._cuts or self._aftermaths or self._openings or _NOTABLE.match(raw):
                self._read(number, raw.rstrip("\r"))
        return sorted((r.splat() for r in self._reports), key=lambda splat: splat.first)

    def _read(self, number: int, raw: str) -> None:
        prefix = _LINE.match(raw)
        assert prefix  # it matches nothing, too
        if self._stamped and not prefix["stamp"] and not prefix["syslog"]:
            return  # a program's
        seconds = float(prefix["seconds"] or 0)
        caller = prefix["caller"] or prefix["kmsg"] or ""
        body = raw[prefix.end() :]
        line = _Line(number, raw, caller, seconds, body if self._stamped else self._flush(body))
        signature = recognise(line.body)
        if signature and signature.kind is Kind.REBOOT:
            # who writes a journal ends before the kernel says that it reboots
            self._booted = self._booted and not prefix["syslog"]
            self._boot(signature, line)
            return
        if _ORDERLY.match(line.body):
            self._booted = self._running = False
        self._forget(line.seconds)
        cut = self._cuts.get(line.caller)
        if signature and signature.ends == LINE and not (cut and cut.ends_with(line)):
            self._reports.append(_Report.of(signature, line))
            return
        if cut and self._goes_on(cut, signature, line):
            return
        if signature:
            self._begin(signature, line)
        elif line.body.startswith(_BACKTRACE) and self._stall:
            self._stall.report.lines.append(line)
            self._cuts[line.caller] = _Cut(self._stall.report, STACK)
        else:
            self._between(line)

    def _flush(self, body: str) -> str:
        """A line of a report that a mail has indented, without that."""
        text = body.lstrip(" \t")
        if recognise(text) or text.startswith(_CUT_HERE) or _RULE.match(text):
            self._indent = body[: len(body) - len(text)]
        return body.removeprefix(self._indent)

    def _goes_on(self, cut: _Cut, signature: Signature | None, line: _Line) -> bool:
        """Whether the caller's open report takes the line; it is closed if not."""
        if signature and signature.ends == PANIC:
            cut.panics(line)
            return True
        if signature and (cut.ends_with(line) or not cut.is_over(signature.kind)):
            cut.nests(signature)
            return cut.takes(line, surely=True)
        starts = signature or (line.body.startswith(_CUT_HERE) and cut.is_over(Kind.WARNING))
        if not starts and cut.takes(line):
            return True
        del self._cuts[line.caller]
        self._aftermaths[line.caller] = _Aftermath(cut.report, cut.seconds, cut.remains)
        return False

    def _begin(self, signature: Signature, line: _Line) -> None:
        aftermath = self._aftermaths.pop(line.caller, None)
        before = self._openings.pop(line.caller, [])
        if signature.ends == PANIC and aftermath:
            aftermath.report.lines += aftermath.lines
            cut = _Cut(aftermath.report, PANIC)
            cut.panics(line)
        else:
            report = _Report.of(signature, line, before)
            self._reports.append(report)
            cut = _Cut(report, signature.ends)
        self._cuts[line.caller] = cut
        if signature.kind in STALLS:
            self._stall = cut

    def _between(self, line: _Line) -> None:
        """A line that is in no report, but may lead to one."""
        if aftermath := self._aftermaths.get(line.caller):
            aftermath.lines.append(line)
            if len(aftermath.lines) > _AFTER:
                del self._aftermaths[line.caller]
        if line.body.startswith(_CUT_HERE) or _RULE.match(line.body):
            self._openings[line.caller] = [line]
        elif opening := self._openings.get(line.caller):
            opening.append(line)
            rule = not opening[0].body.startswith(_CUT_HERE)
            if len(opening) > (2 if rule else _OPENING):
                del self._openings[line.caller]

    def _forget(self, now: float) -> None:
        """What was printed too long ago to have to do with what comes."""
        since = now - _GAP
        self._cuts = {who: cut for who, cut in self._cuts.items() if cut.seconds >= since}
        self._aftermaths = {
            w: past for w, past in self._aftermaths.items() if past.seconds >= since
        }
        self._openings = {w: had for w, had in self._openings.items() if had[0].seconds >= since}
        if self._stall and self._stall.seconds < since:
            self._stall = None

    def _boot(self, signature: Signature, line: _Line) -> None:
        self._cuts.clear()
        self._aftermaths.clear()
        self._openings.clear()
        if self._booted or self._running:
            self._reports.append(_Report.of(signature, line))
        self._booted = True


def find(log: str, *, stamped: bool | None = None) -> list[Splat]:
    """The reports in a log, in the order of their first lines.

    `stamped`: a line without a time is a program's, not the kernel's. By default this is so where
    any line has a time.
    """
    if stamped is None:
        stamped = _STAMPED.search(log) is not None
    return _Reader(stamped=stamped).read(log)
