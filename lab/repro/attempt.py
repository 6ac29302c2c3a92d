# SPDX-License-Identifier: GPL-2.0-only
"""One attempt: a program, once, in a guest; and what showed."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.agent.syscalls import Syscall
from lab.config import known
from lab.deadline import Deadline
from lab.errors import ConfigurationError, GuestLost, LabError
from lab.guest.hang import LOG
from lab.guest.vmcore import VMCORE
from lab.programs import run as running
from lab.programs.run import Ended, Enough, TimedOut
from lab.repro import faults, stress
from lab.repro.order import Order
from lab.repro.sign import Kind, Sign, hang_in, split
from lab.results.record import Written
from lab.splats import Kind as SplatKind
from lab.splats import find
from lab.testbed import Testbed

_EVIDENCE = ("console.log", running.OUTPUT, "qemu.log", "qemu.sh", LOG, VMCORE)
_LATER = 0.5  # seconds: what the kernel does in a work item, or when RCU lets it, has come by then
_SILENCE = 0.3  # seconds without a line, and a report is at its end
_REPORTING = 5.0  # seconds that one may take
_DYING = 5.0  # seconds from SIGKILL to the end of a process that the kernel does not hold
_ENDING = 60.0  # seconds in which what was killed, and is not held, has gone
_TOLD = 4  # processes
_DEAR = 10  # times what a look at the console took, until the next
_PF_KTHREAD = 0x0020_0000  # include/linux/sched.h


class CannotRun(ConfigurationError):
    """What is attempted says itself that it makes no sense here: KTAP's SKIP, not applicable."""


@dataclass(frozen=True)
class Attempt(Written):
    """One attempt; `number` counts from 1.

    `seconds` are those from the program's start to the first sign, or its end; `since` is the same
    moment, counted from the first attempt's beginning. `shown` is what counts, `others` what showed
    besides; `ended` is how the program did. `under` says what stress and fault injection were
    measured to do. `evidence` are paths relative to the run's folder, none where nothing was kept.
    `spent` is an attempt in which no allocation was left to fail. The guest may be `lost` by it.
    """

    number: int
    seconds: float
    shown: tuple[Sign, ...] = ()
    others: tuple[Sign, ...] = ()
    ended: str = ""
    under: str = ""
    evidence: tuple[str, ...] = ()
    since: float = 0.0
    spent: bool = False
    lost: bool = False

    @property
    def signs(self) -> tuple[Sign, ...]:
        """All that showed."""
        return self.shown + self.others


@dataclass(frozen=True)
class Tools:
    """What attempts are made with: the `program`, and what puts the guest under `stress` if that is
    asked for; `jobs` guests at once."""

    program: Path
    stress: Path | None = None
    jobs: int = 1


def attempt(
    order: Order, testbed: Testbed, tools: Tools, number: int, place: Callable[[Path], str]
) -> Attempt:
    """Make one in this guest; `place` names a path as the run does.

    Raises LabError where the lab failed: then it was none.
    """
    made = _Trial(order, testbed, tools, number).run()
    if not (made.signs or order.keep):
        return made
    folder = testbed.guest.folder
    found = [folder / name for name in _EVIDENCE if (folder / name).exists()]
    return replace(made, evidence=tuple(map(place, found)))


@dataclass(frozen=True)
class _Overdue:
    """A program that was ended when its time was up: `held` by the kernel, or the guest `lost`."""

    sign: Sign
    held: Sign | None = None
    lost: GuestLost | None = None

    @property
    def stays(self) -> bool:
        """Whether it will never end."""
        return bool(self.held or self.lost)


class _Trial:
    """What is known while it runs."""

    def __init__(self, order: Order, testbed: Testbed, tools: Tools, number: int) -> None:
        self._order = order
        self._testbed = testbed
        self._guest = testbed.guest
        self._tools = tools
        self._number = number
        self._faults = order.faults.of_attempt(number) if order.faults else None
        self._start = self._guest.console.size
        self._looked = self._start
        self._next_look = 0.0
        self._seen: tuple[Sign, ...] = ()
        self._began = time.monotonic()
        self._seconds: float | None = None  # to the first sign that counts
        self._overdue: _Overdue | None = None

    def run(self) -> Attempt:
        """See `attempt`."""
        hands = self._testbed.hands
        devices = [
            self._testbed.devices[known("device", role, self._testbed.devices)]
            for role in self._order.devices
        ]
        environment = running.environment(devices, self._order.mode, hands)
        target = running.push(self._guest, hands, self._tools.program)
        with ExitStack() as stack:
            strain = stack.enter_context(
                stress.under(
                    self._order, self._testbed, self._tools.stress, self._number, self._tools.jobs
                )
            )
            argv = [target, *self._order.arguments]
            if self._faults:
                argv = [*stack.enter_context(faults.under(self._faults, hands)), *argv]
            before = _processes(hands)
            self._start = self._looked = self._guest.console.size
            self._began = time.monotonic()
            signs, ended = self._watch(argv, environment, before)
            seconds = self._seconds or time.monotonic() - self._began
            since = self._began + seconds
            lost = not self._guest.alive
            told = "" if lost else strain.measured()
        printed = self._guest.printed_since(self._start)
        injected = faults.injected(printed) if self._faults else ()
        if self._faults:
            told = "; ".join(filter(None, (told, faults.told(self._faults, injected))))
        shown, others = split(self._judged(signs), self._order.expected)
        return Attempt(
            number=self._number,
            seconds=round(seconds, 3),
            shown=shown,
            others=tuple(sign for sign in others if sign.kind is not Kind.UNENDED),
            ended=ended,
            under=told,
            since=since,
            spent=bool(self._faults) and not injected and not lost,
            lost=lost,
        )

    def _watch(
        self, argv: Sequence[str], environment: Mapping[str, str], before: Sequence[str]
    ) -> tuple[tuple[Sign, ...], str]:
        """The signs, and how the program ended in words."""
        try:
            ended = self._run(argv, environment, before)
        except LabError as error:
            if not (self._overdue and self._guest.alive):
                self._note_moment()
                return self._lost(self._guest.why_lost(error.message))
            ended = None  # what was killed has taken its shell along
        if self._overdue and self._overdue.lost:
            return self._lost(self._overdue.lost)
        if not self._guest.alive:
            return self._lost(self._guest.why_lost("it went on to lose the guest"))
        signs = self._reports()
        if self._overdue:
            held = (self._overdue.held,) if self._overdue.held else ()
            return (*signs, *held, self._overdue.sign), self._overdue.sign.title
        if ended:
            return (*signs, *self._of_status(ended)), ended.how
        return signs, "it was not waited for"

    def _run(
        self, argv: Sequence[str], environment: Mapping[str, str], before: Sequence[str]
    ) -> Ended | None:
        """How it ended, if it did; what does not in time is killed. Raises LabError."""
        deadline = Deadline.after(self._order.timeout * self._testbed.stretch)

        def enough() -> bool:
            if split(self._look(), self._order.expected)[0]:
                self._note_moment()
                return True
            if deadline.passed and not self._overdue:
                self._overdue = self._end_it(before, deadline)
            return self._overdue is not None and self._overdue.stays

        place = f"{running.PLACE}/{self._number}"
        shell = ["sh", "-c", f'mkdir -p {place} && cd {place} && exec "$@"', "repro"]
        try:
            ended = running.run(
                self._guest,
                [*shell, *argv],
                Deadline.after(deadline.seconds + _ENDING * self._testbed.stretch),
                environment=environment,
                enough=enough,
            )
        except Enough:
            self._hear_report()
            return None
        except TimedOut:  # whoever holds its output was there before
            return None
        self._later()
        return ended

    def _note_moment(self) -> None:
        """The first sign that counts is here."""
        self._seconds = self._seconds or time.monotonic() - self._began

    def _end_it(self, before: Sequence[str], deadline: Deadline) -> "_Overdue":
        """It did not end: is that the program's doing, the kernel's, or the guest's?"""
        sign = Sign(Kind.UNENDED, f"it did not end in {deadline.seconds:g} s")
        if lost := self._guest.silent(sign.title):
            return _Overdue(sign, lost=lost)
        hands, expected = self._testbed.hands, self._order.expected
        try:
            if expected and expected.fits(sign):
                living = list(_living(hands, before))[:_TOLD]
                told = [self._guest.whereabouts(int(number)) for number in living]
                sign = replace(sign, text="\n".join(filter(None, told)))
            stuck = _kill(hands, before, _DYING * self._testbed.stretch)
            held = [self._held(number, name) for number, name in list(stuck.items())[:1]]
            return _Overdue(sign, held=held[0] if held else None)
        except LabError as error:
            return _Overdue(sign, lost=self._guest.why_lost(f"{sign.title}: {error.message}"))

    def _later(self) -> None:
        """Give the kernel the time to say what it has to. Raises LabError where it is gone."""
        time.sleep(_LATER * self._testbed.stretch)
        if self._guest.alive:
            self._testbed.hear_out()

    def _of_status(self, ended: Ended) -> tuple[Sign, ...]:
        report = ended.report
        if report and report.skipped is not None:
            raise CannotRun(
                f"{self._tools.program.name} cannot run here: {report.skipped or ended.how}"
            )
        if ended.status == self._order.status:
            return ()
        return (Sign(Kind.STATUS, ended.how, _last_line(ended.output)),)

    def _held(self, number: str, name: str) -> Sign:
        where = self._guest.whereabouts(int(number))
        return Sign(Kind.HANG, hang_in(where), f"SIGKILL does not end {name} (pid {number})", where)

    def _lost(self, lost: GuestLost) -> tuple[tuple[Sign, ...], str]:
        """Raises it where that was not the kernel's doing."""
        if not lost.splat:
            raise lost
        sign = Sign.of_lost(lost.splat)
        others = [each for each in self._reports() if each.title != sign.title]
        return (sign, *others), "the guest was lost"

    def _look(self) -> tuple[Sign, ...]:
        """What has been reported so far; a long console is read the more seldom the longer."""
        now = time.monotonic()
        if self._guest.console.size != self._looked and now >= self._next_look:
            self._looked = self._guest.console.size
            self._seen = self._found(self._guest.console.text(self._start))
            self._next_look = time.monotonic() + _DEAR * (time.monotonic() - now)
        return self._seen

    def _hear_report(self) -> None:
        """What began to come has come."""
        deadline = Deadline.after(_REPORTING * self._testbed.stretch)
        self._guest.console.wait_for_silence(_SILENCE, deadline)

    def _reports(self) -> tuple[Sign, ...]:
        return self._found(self._guest.printed_since(self._start))

    def _found(self, text: str) -> tuple[Sign, ...]:
        # A program has no way to announce the DMA that it lets the IOMMU block; where memory is
        # made scarce, that it is says nothing. Either counts where it is expected.
        passed_over = {SplatKind.DMA_FAULT}
        if self._order.stress or self._faults:
            passed_over |= {SplatKind.OOM, SplatKind.PAGE_ALLOCATION}
        return tuple(
            Sign.of_splat(splat)
            for splat in find(text, stamped=True)
            if splat.kind not in passed_over or self._fits(splat.title)
        )

    def _fits(self, title: str) -> bool:
        expected = self._order.expected
        return expected is not None and expected.fits(Sign(Kind.REPORT, title))

    def _judged(self, signs: Sequence[Sign]) -> list[Sign]:
        """Who gets no memory exits with a status of its own: that counts where it is expected."""
        if not self._faults or self._order.expected:
            return list(signs)
        return [sign for sign in signs if sign.kind is not Kind.STATUS]


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _processes(hands: Process) -> list[str]:
    return [name for name in hands.listdir("/proc") if name.isdigit()]


def _living(hands: Process, before: Sequence[str]) -> dict[str, str]:
    """The processes of users that were not there `before`, by number: their names."""
    found = {}
    for number in _processes(hands):
        if number in before:
            continue
        try:
            text = hands.read_text(f"/proc/{number}/stat")
        except RemoteError:
            continue  # it has just gone
        name = text[text.index("(") + 1 : text.rindex(")")]
        words = text[text.rindex(")") + 1 :].split()  # from the third on, proc_pid_stat(5)
        if words[0] not in "ZX" and name != stress.NAME and not int(words[6]) & _PF_KTHREAD:
            found[number] = name
    return found


def _kill(hands: Process, before: Sequence[str], seconds: float) -> dict[str, str]:
    """End all that a program has started, and return those that do not end."""
    deadline = Deadline.after(seconds)
    while living := _living(hands, before):
        for number in living:
            try:
                hands.syscall(Syscall.KILL, int(number), 9)
            except RemoteError:
                continue  # it has just gone
        if deadline.passed:
            break
        time.sleep(0.1)
    return living
