# SPDX-License-Identifier: GPL-2.0-only
"""A cell: a kernel on a machine, made ready, with a living guest for whoever tests it.

What one pytest invocation runs stands on one cell. One guest lives at a time; it is replaced when
it dies, and when a test asks for another machine. What guests leave stays in the run's folder.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import image, kernel
from lab.agent import install
from lab.agent.process import Process
from lab.cache import Cache
from lab.condition import Condition
from lab.config import DeviceModel, Lab, Machine
from lab.deadline import Deadline
from lab.guest import (
    COMMAND_LINE,
    AcceleratorMemory,
    Boot,
    Guest,
    Hypervisor,
    Loop,
    boot,
    check_machine,
    find_qemu,
)
from lab.kernel import Kernel
from lab.kernel.incremental import Base
from lab.kernel.series import Series
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.vfio import drift
from lab.vfio.device import Device


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
    update: bool = False  # look for newer packages


@dataclass(frozen=True)
class Testbed:
    """A booted guest with the agent in it, its devices with the drivers that the lab wants."""

    __test__ = False  # pytest takes a class of this name for a test

    guest: Guest
    hands: Process  # the lab's own process there; tests start theirs
    devices: Mapping[str, Device]
    unused: Condition  # what it is like while nobody uses it
    number: int
    machine_name: str
    machine: Machine
    _stack: ExitStack

    def start_process(self, name: str = "agent") -> Process:
        """A new process under test. Close it, or use it in a `with`."""
        return install.start(self.guest, name)

    def leftovers(self) -> list[str]:
        """What is not as it was when the guest was new.

        Raises GuestLost or AgentDied when nobody answers.
        """
        return self.unused.leftovers(self.hands, self.devices)

    def close(self) -> None:
        """End the guest."""
        self._stack.close()


def series_of(place: str | None, patches: int | None = None) -> Series | None:
    """The series in a file, of it the first `patches`; None where no file is named.

    Raises as `read_series` does.
    """
    if not place:
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


class Cell:
    """Prepared in `__init__`, which may build for minutes; guests live inside the `with`."""

    def __init__(
        self, lab: Lab, choice: Choice, cache: Cache, progress: Progress, folder: RunFolder
    ) -> None:
        self.lab = lab
        self.cache = cache
        self.choice = choice
        self.folder = folder
        self.machine_name = choice.machine or choice.suites_machine or lab.run.machine
        self.machine = lab.machine(self.machine_name)
        self.qemu = find_qemu(choice.qemu, cache)
        check_machine(self.machine, self.qemu)  # before a kernel is built for it
        self.kernel = prepare_kernel(lab, choice, cache, progress)
        drift.check(self.kernel, cache, progress)
        name = choice.image or lab.run.image
        self.image = image.prepare(name, lab, cache, progress, update=choice.update)
        self.agent = choice.agent or install.binary(cache)
        self._loop = Loop()
        self._hypervisor = Hypervisor(self.qemu, AcceleratorMemory(cache, self.qemu), self._loop)
        self._worker = ThreadPoolExecutor(1, "boot")
        self._coming: Future[Testbed] | None = None
        self._testbed: Testbed | None = None
        self._booted = 0
        self._on = self.machine_name  # what the next guest is booted on

    def __enter__(self) -> Self:
        self._loop.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A boot that is under way ends because its QEMU does.
        self._loop.end_children()
        self._worker.shutdown()
        self.discard()
        self._loop.__exit__(kind, error, trace)

    def boot_ahead(self) -> None:
        """Start a guest now, so that nobody waits for it later."""
        if not self._coming and not self._testbed:
            self._coming = self._worker.submit(self._boot, self._on)

    def testbed(self, machine: str | None = None) -> Testbed:
        """The living guest on a machine of lab.yaml, by default the cell's own.

        Boots one when there is none, or one of another machine. Raises what `boot` raises.
        """
        wanted = machine or self.machine_name
        if self._on != wanted or (self._testbed and not self._testbed.guest.alive):
            self.discard()
            self._on = wanted
        if not self._testbed:
            self.boot_ahead()
            assert self._coming is not None
            wait([self._coming])  # who is interrupted here leaves it to `discard`
            coming, self._coming = self._coming, None
            self._testbed = coming.result()
        return self._testbed

    def discard(self) -> None:
        """Throw the guest away: the next one who asks gets a new one."""
        if self._coming and not self._coming.cancelled() and not self._coming.exception():
            self._testbed = self._coming.result()
        self._coming = None
        if self._testbed:
            self._testbed.close()
            self._testbed = None

    @property
    def current(self) -> Testbed | None:
        """The guest that is in use, dead or alive."""
        return self._testbed

    def _boot(self, machine_name: str) -> Testbed:
        self._booted += 1
        number = self._booted
        machine = self.lab.machine(machine_name)
        order = Boot(
            machine,
            self.kernel.bzimage,
            self.image.initramfs,
            (*COMMAND_LINE, *self.choice.command_line),
            self.choice.qemu_arguments,
            self.kernel.modules,
        )
        deadline = Deadline.after(self.choice.boot_timeout)
        with ExitStack() as stack:
            folder = self.folder.guest(number)
            guest = stack.enter_context(boot(order, self._hypervisor, folder, deadline))
            install.push(guest, self.agent)
            hands = stack.enter_context(install.start(guest, "the lab's own agent"))
            places = {role: Device(role, guest.addresses[role]) for role in guest.devices}
            for role, device in places.items():
                if guest.devices[role].model is DeviceModel.PCI_BRIDGE:
                    # its hot-plug controller's driver (shpchp) would own the group behind it
                    device.set_driver(hands, None)
            devices = {
                role: device
                for role, device in places.items()
                if not guest.devices[role].model.is_bus
            }
            for role, device in devices.items():
                driver = guest.devices[role].model.driver
                if driver and machine.iommu:  # without one vfio-pci takes no device
                    device.set_driver(hands, driver)
            unused = Condition.of(hands, devices)
            end = stack.pop_all()
            return Testbed(guest, hands, devices, unused, number, machine_name, machine, end)
