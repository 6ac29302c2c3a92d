# SPDX-License-Identifier: GPL-2.0-only
"""One process's part of a run: its guests, and what became of its tests."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import deviations, room
from lab.cache import Cache
from lab.cell import Cell, Choice, Parts, machine_of
from lab.config import Lab
from lab.contract import Mode
from lab.deviations import Deviation
from lab.errors import GuestLost, LabError
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.record import TestRecord, Trouble
from lab.results.verdict import Verdict
from lab.splats import Kind, find
from lab.splats.symbols import Symbols
from lab.tally import Tally
from lab.testbed import Testbed

FEW = 10  # tests: for fewer a guest that boots ahead costs more than it saves


@dataclass(frozen=True)
class Orders:
    """What a worker must know of the run whose part it is."""

    root: Path  # of the lab
    choice: Choice
    parts: Parts
    folder: Path
    born: float  # when the user's command was started, on CLOCK_BOOTTIME, in seconds
    workers: int  # how many share the tests


@dataclass(frozen=True)
class Prospect:
    """The tests that follow: how many in a row on which machine, and then on which. None as a name
    stands for the run's own machine, `then` is empty where nothing follows."""

    tests: int
    machine: str | None
    then: tuple[str | None, ...] = ()


class Worker:
    """Its guests live from `begin` to `end`."""

    def __init__(
        self, lab: Lab, choice: Choice, folder: RunFolder, progress: Progress, *, name: str = ""
    ) -> None:
        self.lab = lab
        self.choice = choice
        self.folder = folder
        self.progress = progress
        self.name = name
        self.tally = Tally()
        self.cell: Cell | None = None
        self.workers = 1  # how many share the tests
        self._deviations: tuple[Deviation, ...] = ()
        self._symbols: Symbols | None = None  # its kernel's, once they are wanted
        self._born = _birth_of_this_process()

    @classmethod
    def of(cls, orders: Orders, name: str) -> "Worker":
        """One of several. Raises ConfigurationError where the lab is not what it was any more."""
        lab = Lab.load(orders.root)
        worker = cls(lab, orders.choice, RunFolder(orders.folder), Progress(quiet=True), name=name)
        worker.workers = orders.workers
        worker._born = orders.born
        worker.read_deviations()
        worker.begin(orders.parts)
        return worker

    def orders(self, parts: Parts, workers: int) -> Orders:
        """For the workers that do what this process has begun."""
        return Orders(
            self.lab.root, self.choice, parts, self.folder.path.absolute(), self._born, workers
        )

    @property
    def machine_name(self) -> str:
        """The machine of the tests that ask for none."""
        return machine_of(self.lab, self.choice)

    def read_deviations(self) -> None:
        """Raises ConfigurationError where kernels/known.yaml is wrong."""
        self._deviations = deviations.read(self.lab)

    def begin(self, parts: Parts) -> None:
        """Guests can be booted from now on."""
        self.cell = Cell(
            self.lab,
            self.choice,
            Cache.of_user(),
            self.progress,
            self.folder,
            parts=parts,
            worker=self.name,
            unused=self.leave_unused,
        ).__enter__()

    def end(self) -> None:
        """All guests end; what went wrong with them is in the tally."""
        if self.cell:
            if current := self.cell.current:
                self._leave(current)
            self.cell.__exit__(None, None, None)
            for failure in self.cell.failures:
                self.tally.note(failure)

    def testbed(self, machine: str | None = None) -> Testbed:
        """The living guest on a machine, by default the run's own.

        A boot that fails is tried once more. Raises LabError.
        """
        assert self.cell is not None
        started = time.monotonic()
        before, wanted = self.cell.current, machine or self.machine_name
        if before and not (before.guest.alive and before.machine_name == wanted):
            self._leave(before)
        try:
            testbed = self.cell.testbed(machine)
        except GuestLost as lost:
            self.tally.note(lost)
            testbed = self.cell.testbed(machine)
        if testbed is not before:
            self._booted(testbed, time.monotonic() - started)
            self._hear(testbed, "while it booted")
        return testbed

    def leave_unused(self, testbed: Testbed) -> None:
        """It booted ahead, and no test has asked for it."""
        self._leave(testbed, "while it booted and waited")

    def _leave(self, testbed: Testbed, when: str = "after its last test") -> None:
        """No test will use it any more. One that is lost by now is lost to no test."""
        if testbed.guest.alive:
            self._hear(testbed, when)
        else:
            guest = testbed.guest
            self.tally.note(guest.why_lost(f"guest {guest.folder.name}: {when}"))

    def _hear(self, testbed: Testbed, when: str) -> None:
        """What the kernel reported while no test ran is the run's; so is DMA that was blocked."""
        guest = testbed.guest
        reports = [
            splat
            for splat in find(guest.hear(guest.heard), stamped=True)
            if splat.kind is not Kind.DMA_FAULT
        ]
        console = self.folder.relative(guest.console.path)
        for title, times in Counter(splat.title for splat in reports).items():
            first = next(splat for splat in reports if splat.title == title)
            words = f"guest {guest.folder.name}: {when} the kernel reported: {title}"
            words += f" ({times} times)" if times > 1 else ""
            self.tally.trouble.append(
                Trouble(words, Verdict.BROKEN, splats=(first.text,), evidence=(console,))
            )
        if blocked := guest.faults(guest.faults_heard):
            words = f"guest {guest.folder.name}: {when} the IOMMU blocked DMA: {len(blocked)}"
            log = self.folder.relative(guest.folder / "qemu.log")
            self.tally.trouble.append(Trouble(words, Verdict.BROKEN, evidence=(log,)))
        guest.faults_heard += len(blocked)

    def _booted(self, testbed: Testbed, waited: float) -> None:
        tally, guest = self.tally, testbed.guest
        if tally.repeats:
            tally.waited += waited
        tally.repeats[guest.folder.name] = guest.repeats
        tally.machines[testbed.machine_name] = testbed.machine.model_dump(mode="json")
        tally.detectors[testbed.machine_name] = testbed.detectors
        for why in testbed.unused.off.values():
            words = f"guest {guest.folder.name}: when it had booted {why}"
            tally.trouble.append(Trouble(words, Verdict.BROKEN))
        tally.accelerator = tally.accelerator or guest.accelerator.value
        for what, seconds in guest.seconds.items():
            tally.first_seconds.setdefault(what, seconds)

    def discard_guest(self) -> None:
        """Throw the guest away; see `prepare_for` for the next one."""
        assert self.cell is not None
        self.cell.discard()

    def prepare_for(self, prospect: Prospect | None) -> None:
        """Boot the guest that is needed next, while tests run; None: no test follows."""
        assert self.cell is not None
        current = self.cell.current
        wanted = None
        if prospect:
            own, then = prospect.machine or self.machine_name, prospect.then
            lives = current and current.machine_name == own and current.guest.alive
            if not lives or prospect.tests > FEW * self.workers:
                wanted = own
            elif then:
                wanted = then[0] or self.machine_name
        if wanted and current and not room.guests(self.lab.machine(wanted)):
            wanted = None  # it waits until the one that lives has ended
        self.cell.expect(wanted)

    def known(self, rule: str, mode: Mode | None, test: str, machine: str | None) -> str:
        """What is recorded of this test in words, empty where nothing is. `test` is its function's
        name."""
        release = self.cell.parts.kernel.release if self.cell else None
        for deviation in self._deviations:
            if deviation.covers(rule, mode, test, machine, release):
                return str(deviation)
        return ""

    def called(self) -> None:
        """The first test's own code begins: measure how long the user waited for it."""
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - self._born
        self.tally.first_seconds.setdefault("first_call", seconds)

    def with_lines(self, splats: Sequence[str]) -> tuple[str, ...]:
        """Reports with file and line behind each address; where these cannot be found, the last
        line says why."""
        return tuple(self._with_lines(splat) for splat in splats)

    def _with_lines(self, splat: str) -> str:
        kernel = self.cell.parts.kernel if self.cell else None
        if not Symbols.are_wanted(splat):
            return splat
        if not kernel or not kernel.vmlinux:
            return f"{splat}\n(no file and line: this kernel came without a vmlinux)"
        self._symbols = self._symbols or Symbols(kernel.vmlinux, kernel.symbols)
        lack = ""
        if self._symbols.lack(splat):
            lack = "\n(no file and line of modules: this kernel's were kept without symbols)"
        try:
            return self._symbols.decode(splat) + lack
        except LabError as error:
            return f"{splat}\n({error.message})"

    def add(self, test: TestRecord) -> None:
        """A test has its verdict."""
        self.tally.tests.append(test)

    def add_trouble(self, error: BaseException) -> None:
        """Something failed that is no test's."""
        self.tally.note(error)


def _birth_of_this_process() -> float:
    """On CLOCK_BOOTTIME, in seconds; the launcher is the same process (execv)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
