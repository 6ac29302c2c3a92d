# SPDX-License-Identifier: GPL-2.0-only
"""What became of a guest that is lost: its last words, where it hangs, its memory.

| what happened                                  | whose fault, and what is kept                  |
|------------------------------------------------|------------------------------------------------|
| the console holds a report (panic, BUG, ...)   | the kernel's: the report, its memory           |
| the kernel hangs in the same place twice       | the kernel's: its backtraces, its memory       |
| user space has all CPUs, or all of them idle   | nobody's that is known: backtraces             |
| TCG left an interrupt in service               | QEMU's                                         |
| QEMU died, stopped the guest, does not answer  | the lab's                                      |
| it never came up, and left no report           | nobody's that is known: where its CPUs are     |
"""

import contextlib
from dataclasses import dataclass

from lab.deadline import Deadline
from lab.errors import GuestLost, InfrastructureError
from lab.guest import apic, hang, vmcore
from lab.guest.argv import Boot
from lab.guest.hang import Hang
from lab.guest.launch import Running
from lab.splats import Kind, find

_HEARD = 1.0  # seconds from a broken connection to a word of the guest's end
_DYING = 5.0  # seconds from the first sign of a guest's death to its end


@dataclass(frozen=True)
class Finding:
    """What was found out about a lost guest, once."""

    what: str
    lines: str  # the last ones of its console
    splat: str | None
    kept: str

    def error(self, last_act: str) -> GuestLost:
        """For a guest that failed to do `last_act`."""
        return GuestLost(
            f"{last_act}: {self.what}; the last lines of its console:\n{self.lines}",
            hint=self.kept,
            splat=self.splat,
        )


@dataclass(frozen=True)
class Inquest:
    """Into the loss of one guest."""

    running: Running
    order: Boot
    emulated: bool  # by TCG, which loses interrupts

    def find_out(self, *, connected: bool) -> Finding:
        """Why a guest that answered once is lost, and keep what tells more.

        `connected` says whether the connection to it is there. That it broke is often the first
        that is heard of a guest's end.
        """
        running = self.running
        if not connected:
            deadline = Deadline.after(_HEARD)
            running.console.wait_until(lambda: running.sign_of_death is not None, deadline)
        if sign := self._end():
            return self._ended(sign)
        what = "the guest does not answer" if connected else "SSH's connection broke"
        said, lines = running.console.text(), running.console.tail()
        hung = hang.ask(running, self.order.symbols, Deadline.after(hang.ASKING))
        if stuck := self.stuck_interrupt():
            hung = Hang(stuck)
        return self._finding(f"{what}: {hung.words}", said, lines, hung)

    def boot_failed(self, what: str) -> Finding:
        """Why it did not come up. A kernel that hangs is no report: it may only be slow."""
        running = self.running
        if sign := self._end():
            return self._ended(sign)
        said, lines = running.console.text(), running.console.tail()
        if lines:  # it is the kernel that has the CPUs, not the firmware
            hung = hang.ask(running, self.order.symbols, Deadline.after(hang.ASKING))
            what = f"{what}: {hung.words}"
        return self._finding(what, said, lines)

    def stuck_interrupt(self) -> str | None:
        """What keeps an emulated CPU from taking interrupts, in words, or None."""
        if not self.emulated:
            return None
        with contextlib.suppress(GuestLost, InfrastructureError):
            cpus = len(self.running.monitor.execute("query-cpus-fast", timeout=hang.QMP))
            return apic.stuck_interrupt(self.running.monitor, cpus)
        return None

    def _end(self) -> str | None:
        """Its end in words, once it has printed what it had to; None where it lives on."""
        running = self.running
        if running.sign_of_death:
            deadline = Deadline.after(_DYING)
            running.console.wait_until(lambda: running.over, deadline)
            if running.console.ended:
                running.monitor.drain(deadline)
        return running.sign_of_death

    def _ended(self, sign: str) -> Finding:
        self.running.settle()
        return self._finding(sign, self.running.console.text(), self.running.console.tail())

    def _finding(self, what: str, said: str, lines: str, hung: Hang | None = None) -> Finding:
        """`said` and `lines` are what its console held before anybody asked it."""
        console = self.running.console
        splat = hung.report if hung else None
        reports = [each for each in find(said, stamped=True) if each.kind is not Kind.DMA_FAULT]
        if reports:
            # A test may have provoked others before.
            report = next((each for each in reports if each.is_fatal), reports[-1])
            what, splat = f"{what}: {report.title}", report.text
        kept = [f"all of it is in {console.path}"]
        if (console.path.parent / hang.LOG).exists():
            kept.append(f"its backtraces are in {hang.LOG}")
        if splat and self.order.vmcore and not console.ended:
            kept.append(vmcore.dump(self.running, Deadline.after(vmcore.DUMPING)))
        return Finding(what, lines or "    (it printed nothing)", splat, "; ".join(kept))
