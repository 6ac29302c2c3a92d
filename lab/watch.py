# SPDX-License-Identifier: GPL-2.0-only
"""One test under watch: what it raised, what the kernel said meanwhile, what it left behind."""

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from lab.agent.trace import Recording
from lab.deadline import Overrun, limit
from lab.errors import GuestLost, LabError
from lab.expected import Announced, told
from lab.results.evidence import keep
from lab.results.judge import Judgement, judge
from lab.results.record import TestRecord
from lab.results.verdict import Verdict
from lab.testbed import Testbed
from lab.vfio.trace import readable
from lab.worker import Worker

_SOMETIMES = ("output.log", "hang.log", "vmcore")  # of programs, of a guest that hung or crashed
_MOST = 1 << 20  # bytes of the console in a test's own folder
_KILLED = re.compile(r"Out of memory: Killed process .*")  # mm/oom_kill.c: __oom_kill_process()
_PATIENCE = 10.0  # seconds for the kernel's log
_OF_REPORTS = ("taint", "lockdep")  # what a report that was announced does to the kernel
_LOOKING = 60.0  # seconds for what the test has left behind


class Watch:
    """Lives as long as one test does; see `lab.plugin.verdicts`.

    `test` is its name; `machine` is the name of the one that it asks for, None where any will do.
    It is the `last` where the guest is not used any more.
    """

    def __init__(self, session: Worker, test: str, machine: str | None, *, last: bool) -> None:
        self._session = session
        self._test = test
        self._wanted = machine
        self._last = last
        before = session.cell.current if session.cell else None
        self._lost_before = before if before and not before.guest.alive else None
        self._testbed: Testbed | None = None
        self._console_start = 0
        self._announced: Announced | None = None  # as soon as it has a guest
        self._calls = Recording()
        self._ring = ""  # the kernel's own log
        self._judgements: list[Judgement] = []
        if used_before := self._look():
            used_before.trace.take()
        self.seconds = 0.0
        self.detail = ""
        self.found_afterwards = False

    def begin(self) -> None:
        """Its own code is about to run."""
        self._look()
        self._session.called()

    def see(self, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """A phase of it has ended."""
        self._look()
        self.seconds += call.duration
        if call.excinfo is None:
            return
        error = call.excinfo.value
        lost = self._lost()
        if isinstance(error, LabError | Overrun) and self._testbed and not lost:
            lost = self._testbed.guest.silent("during the test")
        self._judgements.append(self._explained(judge(error, lost)))
        self.detail = "\n\n".join(filter(None, (self.detail, report.longreprtext)))

    @property
    def so_far(self) -> Judgement:
        """What its own phases say, before the look at what they left behind."""
        judgements = self._judgements or [judge(None, None)]
        return max(judgements, key=lambda each: each.verdict.severity)

    def end(self, hold: Callable[[Testbed, str], None] | None = None) -> Judgement:
        """Its verdict. The guest is thrown away unless it is as it was; `hold` is told before what
        was found.

        A look that fails, whatever it raises, is this test's lab-error: the run goes on.
        """
        try:
            return self._end(hold)
        except Exception as error:
            self.found_afterwards = True
            self._session.discard_guest()
            self.detail = "\n\n".join(filter(None, (self.detail, traceback.format_exc())))
            worst = self.so_far
            words = [worst.message, f"the look after the test: {type(error).__name__}: {error}"]
            message = "; ".join(filter(None, words))
            return Judgement(Verdict.LAB_ERROR, message, worst.splats)

    def _end(self, hold: Callable[[Testbed, str], None] | None) -> Judgement:
        worst = self.so_far
        testbed = self._testbed
        if testbed:
            self._calls = testbed.trace.take()  # the look at what is left is not the test's
        if testbed and self._announced and worst.verdict is not Verdict.GUEST_LOST:
            found = self._afterwards(testbed, self._announced, worst)
            if worst.verdict is Verdict.LAB_ERROR:
                # whose fault it is stays; what is wrong with the guest may be why
                message = "; ".join(dict.fromkeys(filter(None, (worst.message, found.message))))
                found = replace(worst, message=message, splats=worst.splats + found.splats)
                self.found_afterwards = False  # pytest has counted it
            worst = found
        if worst.verdict is Verdict.GUEST_LOST and self._announced:
            worst = self._with_what_came_first(worst, self._announced)
        if testbed and worst.verdict.is_trouble:
            self._ring = _ring(testbed, worst)
            if hold:
                hold(testbed, worst.message)
        if testbed and (worst.verdict.is_trouble or (self._announced and self._announced.spoke)):
            self._session.discard_guest()  # the kernel that reported something is tainted
        return replace(worst, splats=self._session.with_lines(worst.splats))

    def evidence(self) -> tuple[str, ...]:
        """The guest's own words, as paths relative to the run's folder."""
        if not self._testbed:
            return ()
        folder = self._testbed.guest.folder
        names = ["console.log", "qemu.log", "qemu.sh"]
        names += [name for name in _SOMETIMES if (folder / name).exists()]
        return tuple(self._session.folder.relative(folder / name) for name in names)

    def keep(self, test: TestRecord, noted: Sequence[tuple[str, object]]) -> TestRecord:
        """The record; of a test with trouble all that is known is written down first.

        `noted` is what the test had to say by name, its seeds among it.
        """
        if not test.verdict.is_trouble:
            return test
        folder, testbed = self._session.folder, self._testbed
        seeds = [f"{name} {value}\n" for name, value in noted if "seed" in name]
        sources: dict[str, Callable[[], str]] = {
            "versions.txt": lambda: "\n".join([*folder.read_replay().account(), ""]),
            "seeds.txt": lambda: "".join(seeds),
        }
        if testbed:
            sources["calls.txt"] = lambda: self._readable_calls(testbed)
            sources["console.log"] = lambda: self._own_console(testbed)
            sources["dmesg.txt"] = lambda: self._ring
        record, troubles = keep(folder, test, sources, testbed.guest.folder if testbed else None)
        for trouble in troubles:
            self._session.add_trouble(trouble)
        return record

    def _readable_calls(self, testbed: Testbed) -> str:
        return readable(self._calls, testbed.made_ready, testbed.hands.pid)

    def _own_console(self, testbed: Testbed) -> str:
        """What came on it while the test ran, or the end of that."""
        console = testbed.guest.console
        start = max(self._console_start, console.size - _MOST)
        whole = self._session.folder.relative(console.path)
        head = f"(from byte {start} of {whole}"
        head += ", the end of it)" if start != self._console_start else ")"
        return f"{head}\n{console.text(start)}"

    @property
    def machine(self) -> str | None:
        """The name of the machine that it runs on, None while it has no guest."""
        return self._testbed.machine_name if self._testbed else None

    def announcements(self) -> Announced | None:
        """Where its test announces what it provokes, once it has a guest."""
        self._look()
        return self._announced

    def _look(self) -> Testbed | None:
        """The first guest that the test sees is its own, if it is of its machine."""
        current = self._session.cell.current if self._session.cell else None
        if current and self._wanted and current.machine_name != self._wanted:
            return None
        if current and current is self._lost_before:
            return None  # that is the run's, see `Worker.testbed`
        if self._testbed is None and current:
            self._testbed = current
            self._console_start = current.guest.heard
            self._announced = Announced(current)
        return self._testbed

    def _explained(self, judgement: Judgement) -> Judgement:
        """An agent that died says not why; the guest's kernel does, where it had no memory left."""
        if judgement.verdict is not Verdict.LAB_ERROR or not self._testbed:
            return judgement
        killed = _KILLED.search(self._testbed.guest.printed_since(self._console_start))
        why = f"; the guest says: {killed[0]}" if killed else ""
        return replace(judgement, message=judgement.message + why)

    def _lost(self) -> GuestLost | None:
        if self._testbed and not self._testbed.guest.alive:
            return self._testbed.guest.why_lost("during the test")
        return None

    def _with_what_came_first(self, worst: Judgement, announced: Announced) -> Judgement:
        """What a guest dies of is often what came of an earlier report: that one tells more."""
        if not self._testbed or self._testbed.guest.alive:
            return worst
        found, _ = announced.unexplained()
        texts = tuple(splat.text for splat in found)
        words = [f"the kernel reported: {s.title}" for s in found if s.title not in worst.message]
        others = tuple(text for text in worst.splats if text not in texts)
        return replace(worst, message="; ".join([*words, worst.message]), splats=texts + others)

    def _afterwards(self, testbed: Testbed, announced: Announced, so_far: Judgement) -> Judgement:
        """What the test did not see itself: what it has not announced, and what it left behind."""
        if not testbed.guest.alive:
            lost = testbed.guest.why_lost("right after the test")
            self.found_afterwards = True
            return Judgement(Verdict.GUEST_LOST, str(lost), (lost.splat,) if lost.splat else ())
        try:
            with limit(_LOOKING * testbed.stretch, "it"):
                found, faults = announced.unexplained()
                left = testbed.leftovers(excused=_OF_REPORTS if announced.spoke else ())
                ends = self._last or bool(left) or so_far.verdict.is_trouble or announced.spoke
                leaked = testbed.leaked(self._test, last=ends)
        except (LabError, Overrun) as error:
            self.found_afterwards = True
            return judge(testbed.guest.why_lost(f"the look after the test: {error}"), None)
        left += [testbed.leaks.tell(each) for each in leaked]
        texts = tuple(splat.text for splat in found) + tuple(each.text for each in leaked)
        if so_far.verdict is Verdict.BROKEN or not (found or faults or left):
            return Judgement(so_far.verdict, so_far.message, texts)
        self.found_afterwards = True
        words = [f"the kernel reported: {splat.title}" for splat in found]
        words += [f"not announced: {fault}" for fault in told(faults)]
        words += [f"left behind: {thing}" for thing in left]
        return Judgement(Verdict.BROKEN, "; ".join(words), texts)


def _ring(testbed: Testbed, worst: Judgement) -> str:
    """The kernel's log, from its ring buffer; nothing where nobody answers."""
    if worst.verdict is Verdict.GUEST_LOST or not testbed.guest.alive:
        return ""
    try:
        return testbed.guest.ssh.run("dmesg", timeout=_PATIENCE).output
    except GuestLost:
        return ""
