# SPDX-License-Identifier: GPL-2.0-only
"""One run from its first word to its report: the parts it stands on, and what became of it."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lab as package
from lab.cache import Cache
from lab.cell import Choice, Parts
from lab.config import Lab
from lab.errors import InfrastructureError
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.replay import DESCRIBE, PYTEST, Part, Replay, rebuilt
from lab.tally import Tally
from lab.worker import Prospect, Worker

_SPARE = 20  # times what the last write took, until the next


class Session(Worker):
    """A run. `prepare` may build for minutes; `close` writes the report.

    Its tests run in this process, or in several workers, whose tallies it adds up.
    """

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
        super().__init__(lab, choice, RunFolder.create(out), progress)
        self.parts: Parts | None = None
        self._started = time.time()
        self._ended: float | None = None
        self._selection = tuple(selection)
        self._words = tuple(words)
        self._command = command
        self._finished = False
        self._heard: dict[str, Tally] = {}  # of workers, by their names
        self._next_write = 0.0
        self.closed = False

    def prepare(self, *, guests: bool = True) -> Parts:
        """Make kernel, image and agent, and start the first guest. Raises LabError.

        Without `guests` none is started: they are the workers'.
        """
        self.read_deviations()
        cache = Cache.of_user()
        self.parts = Parts.make(self.lab, self.choice, cache, self.progress)
        if guests:
            self.begin(self.parts)
            self.prepare_for(Prospect(1, None))
        if self.choice.series:
            self.folder.write_series(self.choice.series.content)
        self.folder.write_replay(self._replay(self.parts, cache))
        return self.parts

    def add(self, test: TestRecord) -> None:
        """A test has its verdict; that of one with trouble is on disk when this returns.

        All results are written each time, which the more tests there are takes the longer: others
        are written as soon as that takes no more than a twentieth of the run.
        """
        super().add(test)
        if time.monotonic() < self._next_write and not test.verdict.is_trouble:
            return
        started = time.monotonic()
        self.write()
        now = time.monotonic()
        self._next_write = now + _SPARE * (now - started)

    def hear(self, worker: str, tally: Tally) -> None:
        """What a worker has seen until now, in place of what it said before."""
        self._heard[worker] = tally

    def close(self, *, finished: bool) -> RunRecord:
        """End the guests and write the report; once.

        Who interrupts that is not made to wait for the guests, which end with this process at the
        latest; the report is written nevertheless.
        """
        self._finished = finished
        self.closed = True
        try:
            self.end()
        except KeyboardInterrupt:
            self._finished = False
        self._ended = time.time()
        self.write()
        return self.record()

    def write(self) -> None:
        """Write what is known so far, so that nothing is lost whatever happens next.

        What hinders it, as a full disk, costs no verdict: it is told, the run goes on, and the
        next time all is written.
        """
        try:
            self.folder.write(self.record())
        except InfrastructureError as error:
            if str(error) not in [trouble.message for trouble in self.tally.trouble]:
                self.progress.say(str(error))
                self.add_trouble(error)

    def record(self) -> RunRecord:
        """The run as it stands."""
        tally = Tally(tests=self.tally.tests)
        for each in (self.tally, *self._heard.values()):
            tally.add(each)
        record = RunRecord(
            version=version("vfio-lab"),
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            seconds=round((self._ended or time.time()) - self._started, 3),
            accel=tally.accelerator,
            selection=self._selection,
            seed=self.choice.seed,
            host={
                "name": platform.node(),
                "kernel": platform.release(),
                "cpus": len(os.sched_getaffinity(0)),
                "python": platform.python_version(),
            },
            machines=dict(tally.machines),
            detectors=dict(tally.detectors),
            figures=tally.figures,
            tests=tuple(tally.tests),
            trouble=tuple(tally.trouble),
            finished=self._finished,
        )
        return self._with_parts(record, self.parts) if self.parts else record

    def _replay(self, parts: Parts, cache: Cache) -> Replay:
        kernel, image, series = parts.kernel, parts.image, self.choice.series
        named = kernel.provenance.get("name", kernel.name)
        built = f", build id {kernel.build_id}" if kernel.build_id else ""
        return Replay(
            version=version("vfio-lab"),
            commit=commit_of(self.lab.root),
            lab=self.lab.root,
            package=Path(package.__file__).parents[1],
            python=Path(sys.executable),
            cache=cache.root.absolute(),
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
                "the agent",
                parts.agent.absolute(),
                parts.agent.parent.name,
                "vfio-lab run makes it",
            ),
            qemu=parts.qemu.path,
            qemu_version=parts.qemu.description.removeprefix("QEMU emulator version "),
            machine=self.choice.machine,
            qemu_arguments=self.choice.qemu_arguments,
            boot_timeout=self.choice.boot_timeout,
            seed=self.choice.seed,
            command=self._command,
            words=self._words,
        )

    def _with_parts(self, record: RunRecord, parts: Parts) -> RunRecord:
        machine = self.lab.machine(self.machine_name)
        return replace(
            record,
            kernel=_without_paths(asdict(parts.kernel)),
            image=_without_paths(asdict(parts.image)),
            machine={"name": self.machine_name, **machine.model_dump(mode="json")},
            qemu={
                "path": str(parts.qemu.path),
                "version": parts.qemu.description.removeprefix("QEMU emulator version "),
            },
        )


def _without_paths(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if not isinstance(value, Path)}


def commit_of(root: Path) -> str | None:
    """What git calls the lab's tree; None where it is none."""
    argv = ["git", "-C", str(root), *DESCRIBE]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
