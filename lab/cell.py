# SPDX-License-Identifier: GPL-2.0-only
"""A cell: a kernel on a machine, made ready, with a living guest for whoever tests it.

What one pytest worker runs stands on one cell. One guest is in use at a time; it is replaced when
it dies, and when a test asks for another machine; the next one boots meanwhile. What guests leave
stays in the run's folder.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import image as images
from lab import kernel, living
from lab.agent import install
from lab.cache import Cache
from lab.config import Lab
from lab.deadline import Deadline
from lab.errors import ConfigurationError
from lab.guest import (
    COMMAND_LINE,
    AcceleratorMemory,
    Boot,
    Guest,
    Hypervisor,
    Loop,
    Qemu,
    check_machine,
    find_qemu,
)
from lab.kernel import Kernel
from lab.kernel.incremental import Base
from lab.kernel.series import Series
from lab.pool import Pool
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.testbed import Testbed
from lab.vfio import drift
from lab.vfio.device import Device

SEED = 5  # races are swept by it as well as by any: kernels/mutants/own5-unlocked never survived
_FOR_GDB = ("nokaslr",)  # for its breakpoints the kernel must be where its vmlinux says


@dataclass(frozen=True)
class Choice:
    """What was asked for; None stands for what lab.yaml's `run` says."""

    kernel: str | None = None
    series: Series | None = None  # put on that kernel
    machine: str | None = None
    suites_machine: str | None = None  # for where no machine was asked for
    image: str | None = None
    agent: Path | None = None  # a binary; None: the one that the lab compiles
    qemu: Path | None = None
    qemu_arguments: tuple[str, ...] = ()
    command_line: tuple[str, ...] = ()  # more words for the guest's kernel
    boot_timeout: float = 120.0  # seconds
    vmcore: bool = True  # whether the memory of a guest that its kernel lost is kept
    doors: bool = False  # whether other processes may enter its guests: `lab.living`
    update: bool = False  # look for newer packages
    seed: int = SEED  # of what is random in tests


def series_of(place: str | None, patches: int | None = None) -> Series | None:
    """The series in a file, of it the first `patches`; None where no file is named.

    Raises as `read_series` does.
    """
    if not place:
        if patches is not None:
            raise ConfigurationError(
                "--patches is about a series: it goes with --series", hint="add --series FILE"
            )
        return None
    from lab.kernel.mail import read_series  # noqa: PLC0415 (b4 takes 0.3 s, and most do without)

    series = read_series(place)
    return series.first(patches) if patches is not None else series


def prepare_kernel(lab: Lab, choice: Choice, cache: Cache, progress: Progress) -> Kernel:
    """The kernel of a choice, with its series on it, from the cache or built into it.

    Raises as `kernel.prepare` and `Base.build` do.
    """
    spec = choice.kernel or lab.run.kernel
    if choice.series:
        base = Base.prepare(spec, lab, cache, progress, update=choice.update)
        return base.build(choice.series)
    return kernel.prepare(spec, lab, cache, progress, update=choice.update)


@dataclass(frozen=True)
class Parts:
    """What a cell's guests are made of: made once, and then the same for every worker."""

    qemu: Qemu
    kernel: Kernel
    image: images.Image
    agent: Path

    @classmethod
    def make(cls, lab: Lab, choice: Choice, cache: Cache, progress: Progress) -> Self:
        """May build for minutes. Raises LabError."""
        qemu = find_qemu(choice.qemu, cache)
        # before a kernel is built for it
        check_machine(lab.machine(machine_of(lab, choice)), qemu)
        name = choice.image or lab.run.image
        images.check(name, lab)
        if choice.agent and not choice.agent.is_file():
            raise ConfigurationError(f"{choice.agent} is no file; expected the agent, compiled")
        made = prepare_kernel(lab, choice, cache, progress)
        drift.check(made, cache, progress)
        image = images.prepare(name, lab, cache, progress, update=choice.update)
        return cls(qemu, made, image, choice.agent or install.binary(cache))


def machine_of(lab: Lab, choice: Choice) -> str:
    """The name of the machine that a choice means."""
    return choice.machine or choice.suites_machine or lab.run.machine


class Cell:
    """Its parts are made in `__init__` unless they are given; guests live inside the `with`.

    `worker` is the name of the one of several processes that the guests belong to. `unused` is
    called, on another thread, with each guest that nobody has asked for, before it ends.
    """

    def __init__(
        self,
        lab: Lab,
        choice: Choice,
        cache: Cache,
        progress: Progress,
        folder: RunFolder,
        *,
        parts: Parts | None = None,
        worker: str = "",
        unused: Callable[[Testbed], None] = lambda _: None,
    ) -> None:
        self.lab = lab
        self.cache = cache
        self.choice = choice
        self.folder = folder
        self.machine_name = machine_of(lab, choice)
        self.machine = lab.machine(self.machine_name)
        self.parts = parts or Parts.make(lab, choice, cache, progress)
        self.variant = lab.variant(self.parts.kernel.fragments)
        self.failures: list[BaseException] = []
        """What went wrong with guests that nobody had asked for, or at their end; complete once the
        cell has ended."""
        self._loop = Loop()
        memory = AcceleratorMemory(cache, self.parts.qemu)
        self._hypervisor = Hypervisor(self.parts.qemu, memory, self._loop)
        self._pool = Pool(self._boot, Testbed.close, unused)
        self._testbed: Testbed | None = None
        self._worker = worker
        self._booted = 0
        self._counting = threading.Lock()

    def __enter__(self) -> Self:
        self._loop.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()
        # A boot that is under way ends because its QEMU does.
        self.failures += self._pool.close(self._loop.end_children)
        self._loop.__exit__(kind, error, trace)

    def expect(self, machine: str | None) -> None:
        """A guest of this machine will be asked for next: boot it now. None: no guest will be."""
        self._pool.expect(machine)

    def testbed(self, machine: str | None = None) -> Testbed:
        """The living guest on a machine of lab.yaml, by default the cell's own.

        Where there is none, or one of another machine, it is the one that was expected, or a new
        one. Raises what `boot` raises.
        """
        wanted = machine or self.machine_name
        if self._testbed:
            if self._testbed.machine_name == wanted and self._testbed.guest.alive:
                return self._testbed
            self.discard()
        self._testbed = self._pool.take(wanted)
        if not self._testbed.guest.alive:
            raise self._testbed.guest.why_lost("while it waited for a test")
        self._testbed.guest.resume()
        return self._testbed

    def discard(self) -> None:
        """Throw the guest in use away: the next one who asks gets a new one."""
        if self._testbed:
            self._pool.give_back(self._testbed)
            self._testbed = None

    def cut(self) -> None:
        """End all guests at once, from any thread: who waits for one is told, and none boots."""
        self._loop.end_children()

    @property
    def current(self) -> Testbed | None:
        """The guest that is in use, dead or alive."""
        return self._testbed

    def _boot(self, machine_name: str) -> Testbed:
        with self._counting:
            self._booted += 1
            number = self._booted
        machine = self.lab.machine(machine_name).fit_for(self.variant)
        order = Boot(
            machine,
            self.parts.kernel.bzimage,
            self.parts.image.initramfs,
            (*COMMAND_LINE, *(_FOR_GDB if self.choice.doors else ()), *self.choice.command_line),
            self.choice.qemu_arguments,
            self.parts.kernel.modules,
            self.parts.kernel.vmlinux,
            self.choice.vmcore,
            self.choice.doors,
        )
        stretch = self.variant.slower
        deadline = Deadline.after(self.choice.boot_timeout * stretch)
        return Testbed.boot(
            order,
            self._hypervisor,
            self.folder.guest(number, self._worker),
            deadline,
            agent=self.parts.agent,
            number=number,
            machine_name=machine_name,
            stretch=stretch,
            announce=self._announce if self.choice.doors else None,
            paused=not self.choice.doors,  # through which somebody may have come in already
        )

    def _announce(
        self, guest: Guest, machine_name: str, devices: Mapping[str, Device]
    ) -> AbstractContextManager[None]:
        born = living.born(guest.pid)
        if born is None:
            raise guest.why_lost("boot")
        there = living.Living(
            pid=guest.pid,
            born=born,
            folder=guest.folder.absolute(),
            port=guest.admission.port,
            host_key=guest.admission.host_public.hex(),
            machine=machine_name,
            release=self.parts.kernel.release or self.parts.kernel.name,
            bzimage=self.parts.kernel.bzimage.absolute(),
            stretch=self.variant.slower,
            devices={role: device.address for role, device in devices.items()},
        )
        return living.announced(there)
