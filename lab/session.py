# SPDX-License-Identifier: GPL-2.0-only
"""One run from its first word to its report: the cell it stands on, and what became of it."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import lab as package
from lab import deviations
from lab.cache import Cache
from lab.cell import Cell, Choice, Testbed
from lab.config import Lab, Machine
from lab.contract import Mode
from lab.deviations import Deviation
from lab.errors import GuestLost, LabError
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.replay import DESCRIBE, PYTEST, Part, Replay, rebuilt
from lab.results.verdict import Verdict

_LONG_WRITE = 0.1  # seconds


class Session:
    """A run. `prepare` may build for minutes; `close` writes the report."""

    def __init__(
        self,
        lab: Lab,
        choice: Choice,
        progress: Progress,
        *,
        out: Path | None = None,
        selection: Sequence[str] = (),
        words: Sequence[str] = (),
        command: tuple[str, ...] = PYTEST,
    ) -> None:
        """`selection` is what was asked for, as it was. `words` say the same to `command`, see
        `Replay`: with them the run is repeated."""
        self.lab = lab
        self.choice = choice
        self.progress = progress
        self.folder = RunFolder.create(out)
        self.cell: Cell | None = None
        self._started = time.time()
        self._ended: float | None = None
        self._tests: list[TestRecord] = []
        self._trouble: list[Trouble] = []
        self._figures: dict[str, float] = {}
        self._repeats: dict[int, int] = {}  # by the guest's number
        self._selection = tuple(selection)
        self._words = tuple(words)
        self._command = command
        self._accelerator = ""
        self._machines: dict[str, Machine] = {}
        self._deviations: tuple[Deviation, ...] = ()
        self._finished = False
        self._next_write = 0.0
        self.closed = False

    def prepare(self) -> None:
        """Make kernel, image and agent, and start the first guest. Raises LabError."""
        self._deviations = deviations.read(self.lab)
        cell = Cell(self.lab, self.choice, Cache.of_user(), self.progress, self.folder)
        self.cell = cell.__enter__()
        self.cell.boot_ahead()
        if self.choice.series:
            self.folder.write_series(self.choice.series.content)
        self.folder.write_replay(self._replay(cell))

    def testbed(self, machine: str | None = None) -> Testbed:
        """The living guest on a machine, by default the cell's own.

        A boot that fails is tried once more. Raises LabError.
        """
        assert self.cell is not None
        try:
            testbed = self.cell.testbed(machine)
        except GuestLost as lost:
            self.add_trouble(lost)
            testbed = self.cell.testbed(machine)
        self._machines[testbed.machine_name] = testbed.machine
        if not self._accelerator:
            self._accelerator = testbed.guest.accelerator.value
            for name, seconds in testbed.guest.seconds.items():
                self._figures[f"{name}_seconds"] = round(seconds, 3)
        self._repeats[testbed.number] = testbed.guest.repeats
        self._figures["guests"] = len(self._repeats)
        self._figures["boots_repeated"] = sum(self._repeats.values())
        return testbed

    def known(self, rule: str, mode: Mode | None, test: str, machine: str | None) -> str:
        """What is recorded of this test in words, empty where nothing is. `test` is its function's
        name."""
        release = self.cell.kernel.release if self.cell else None
        for deviation in self._deviations:
            if deviation.covers(rule, mode, test, machine, release):
                return str(deviation)
        return ""

    def called(self) -> None:
        """The first test's own code begins: measure how long the user waited for it."""
        self._figures.setdefault("first_call_seconds", round(_age_of_this_process(), 3))

    def add(self, test: TestRecord) -> None:
        """A test has its verdict; the results are on disk when this returns.

        Of thousands of tests it takes so long to write them all that it is done now and then.
        """
        self._tests.append(test)
        if time.monotonic() < self._next_write and not test.verdict.is_trouble:
            return
        started = time.monotonic()
        self.write()
        seconds = time.monotonic() - started
        self._next_write = started + (20 * seconds if seconds > _LONG_WRITE else 0)

    def add_trouble(self, error: BaseException) -> None:
        """Something failed that is no test's."""
        splat = error.splat if isinstance(error, GuestLost) else None
        verdict = Verdict.GUEST_LOST if isinstance(error, GuestLost) else Verdict.LAB_ERROR
        message = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        self._trouble.append(Trouble(message, verdict, splats=(splat,) if splat else ()))

    def discard_guest(self) -> None:
        """Throw the guest away, and start the next one."""
        assert self.cell is not None
        self.cell.discard()
        self.cell.boot_ahead()

    def close(self, *, finished: bool) -> RunRecord:
        """End the guest and write the report; once."""
        self._finished = finished
        self.closed = True
        try:
            if self.cell:
                self.cell.__exit__(None, None, None)
        except LabError as error:
            self.add_trouble(error)
        self._ended = time.time()
        self.write()
        return self.record()

    def write(self) -> None:
        """Write what is known so far, so that nothing is lost whatever happens next."""
        self.folder.write(self.record())

    def record(self) -> RunRecord:
        """The run as it stands."""
        record = RunRecord(
            version=version("vfio-lab"),
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            seconds=round((self._ended or time.time()) - self._started, 3),
            accel=self._accelerator,
            selection=self._selection,
            host={
                "name": platform.node(),
                "kernel": platform.release(),
                "cpus": len(os.sched_getaffinity(0)),
                "python": platform.python_version(),
            },
            machines={name: each.model_dump(mode="json") for name, each in self._machines.items()},
            figures=self._figures,
            tests=tuple(self._tests),
            trouble=tuple(self._trouble),
            finished=self._finished,
        )
        return self._with_cell(record, self.cell) if self.cell else record

    def _replay(self, cell: Cell) -> Replay:
        kernel, image, series = cell.kernel, cell.image, self.choice.series
        named = kernel.provenance.get("name", kernel.name)
        built = f", build id {kernel.build_id}" if kernel.build_id else ""
        return Replay(
            version=version("vfio-lab"),
            commit=commit_of(self.lab.root),
            lab=self.lab.root,
            package=Path(package.__file__).parents[1],
            python=Path(sys.executable),
            cache=cell.cache.root.absolute(),
            kernel=Part(
                f"{named}, {kernel.release or 'of an unknown release'}, key {kernel.key}{built}",
                kernel.bzimage.absolute(),
                kernel.key,
                rebuilt(kernel.provenance, kernel.key, Path(series.file) if series else None),
                kernel.provenance.get("sha256"),
            ),
            image=Part(
                f"{image.provenance.get('name', image.name)}, key {image.key}",
                image.initramfs.absolute(),
                image.key,
                f"make it again: vfio-lab run --image {image.name}",
                image.provenance.get("sha256"),
            ),
            agent=Part(
                "the agent", cell.agent.absolute(), cell.agent.parent.name, "vfio-lab run makes it"
            ),
            qemu=cell.qemu.path,
            qemu_version=cell.qemu.description.removeprefix("QEMU emulator version "),
            machine=self.choice.machine,
            qemu_arguments=self.choice.qemu_arguments,
            boot_timeout=self.choice.boot_timeout,
            command=self._command,
            words=self._words,
        )

    @staticmethod
    def _with_cell(record: RunRecord, cell: Cell) -> RunRecord:
        kernel = {k: v for k, v in asdict(cell.kernel).items() if not isinstance(v, Path)}
        image = {k: v for k, v in asdict(cell.image).items() if not isinstance(v, Path)}
        return replace(
            record,
            kernel=kernel,
            image=image,
            machine={"name": cell.machine_name, **cell.machine.model_dump(mode="json")},
            qemu={
                "path": str(cell.qemu.path),
                "version": cell.qemu.description.removeprefix("QEMU emulator version "),
            },
        )


def commit_of(root: Path) -> str | None:
    """What git calls the lab's tree; None where it is none."""
    argv = ["git", "-C", str(root), *DESCRIBE]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _age_of_this_process() -> float:
    """Seconds since this process was started; the launcher is the same process (execv)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
