# SPDX-License-Identifier: GPL-2.0-only
"""A guest that is ready to be tested: booted, with the agent in it and drivers on its devices."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lab.agent import install
from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.agent.trace import Recording, Trace
from lab.condition import NAME, Condition, Leaks, Object
from lab.config import DeviceModel, Machine
from lab.deadline import Deadline
from lab.errors import GuestLost, LabError
from lab.guest import Boot, Guest, Hypervisor, boot
from lab.vfio.device import Device

Announce = Callable[[Guest, str, Mapping[str, Device]], AbstractContextManager[None]]

_UNFIT = "the guest is up, but its kernel refuses what the lab does before any test"
_HEARD = 30.0  # seconds that a console may be behind; 10 MB take 20


@dataclass(frozen=True)
class Testbed:
    """A booted guest with the agent in it, its devices with the drivers that the lab wants."""

    __test__ = False  # pytest takes a class of this name for a test

    guest: Guest
    hands: Process  # the lab's own process there; tests start theirs
    devices: Mapping[str, Device]
    unused: Condition  # what it is like while nobody uses it
    leaks: Leaks  # what nobody points to any more
    number: int
    machine_name: str
    machine: Machine
    stretch: float  # what its kernel makes deadlines longer by
    trace: Trace  # of what is asked of its processes from now on
    made_ready: Recording  # what the lab did before
    _stack: ExitStack

    @classmethod
    def boot(
        cls,
        order: Boot,
        hypervisor: Hypervisor,
        folder: Path,
        deadline: Deadline,
        *,
        agent: Path,
        number: int,
        machine_name: str,
        stretch: float,
        announce: Announce | None = None,
        paused: bool = False,
    ) -> Self:
        """A new guest, made ready: what it leaves lies in `folder`. What `announce` returns lasts
        as long as it does. One that is `paused` waits for `guest.resume()`. Raises what
        `guest.boot` and `Condition.of` raise."""
        machine = order.machine
        with ExitStack() as stack:
            guest = stack.enter_context(boot(order, hypervisor, folder, deadline))
            trace = Trace()
            try:
                install.push(guest, agent)
                own = install.start(guest, "the lab's own agent", trace, stretch=stretch)
                hands = stack.enter_context(own)
                devices = _with_drivers(guest, hands, machine)
                made_ready = trace.take()
                unused, leaks = Condition.of(hands, devices), Leaks(hands)
            except (LabError, RemoteError) as error:
                # The first probe of a device is where many a kernel goes.
                if lost := guest.silent("boot"):
                    raise lost from error
                if isinstance(error, RemoteError):  # the kernel's answer, but to no test
                    raise GuestLost(f"boot: {error.strerror}", hint=_UNFIT) from error
                raise
            trace.take()  # what was only looked at
            if announce:
                stack.enter_context(announce(guest, machine_name, devices))
            if paused:
                guest.pause()
            return cls(
                guest=guest,
                hands=hands,
                devices=devices,
                unused=unused,
                leaks=leaks,
                number=number,
                machine_name=machine_name,
                machine=machine,
                stretch=stretch,
                trace=trace,
                made_ready=made_ready,
                _stack=stack.pop_all(),
            )

    def start_process(self, name: str = "agent") -> Process:
        """A new process under test. Close it, or use it in a `with`."""
        return install.start(self.guest, name, self.trace, stretch=self.stretch)

    def leftovers(self, excused: Collection[str] = ()) -> list[str]:
        """What is not as it was when the guest was new; `excused` detectors are not asked.

        Raises GuestLost or AgentDied when nobody answers.
        """
        return self.unused.leftovers(self.hands, stretch=self.stretch, excused=excused)

    def hear_out(self) -> None:
        """Return once all that the kernel has said until now is in the guest's console.

        What one CPU says another may have to write, or a thread: a mark of our own comes after it.
        Raises GuestLost where that does not come, and AgentDied.
        """
        start, mark = self.guest.console.size, f"vfio-lab: heard {time.monotonic_ns()}"
        self.hands.write_text("/dev/kmsg", f"<1>{mark}\n")
        deadline = Deadline.after(_HEARD * self.stretch)
        if not self.guest.console.wait_until(
            lambda: mark in self.guest.console.text(start), deadline
        ):
            raise GuestLost(f"the console has been silent for {deadline.seconds:.0f} s")

    def printed_since(self, start: int) -> str:
        """What is on the console from byte `start` on, all of what the kernel has said by now.
        Raises as `hear_out` does."""
        self.hear_out()
        return self.guest.printed_since(start)

    def leaked(self, test: str, *, last: bool) -> list[Object]:
        """A test has ended, the `last` one in this guest: see `Leaks.after`, and for raises, too.

        What the kernel says of it on the console belongs to no test.
        """
        found = self.leaks.after(test, last=last)
        if self.leaks.there:
            self.hear_out()
        return found

    @property
    def detectors(self) -> tuple[str, ...]:
        """What is asked what a test has left behind: a kernel may lack what others have."""
        return (*self.unused.detectors, *([NAME] if self.leaks.there else []))

    def close(self) -> None:
        """End the guest."""
        with suppress(GuestLost):
            self.guest.resume()  # one that stands still hears of no end, and is waited for
        self._stack.close()


def _with_drivers(guest: Guest, hands: Process, machine: Machine) -> dict[str, Device]:
    """Its devices by their roles, but for buses, with the drivers that the lab wants."""
    places = {role: Device(role, guest.addresses[role]) for role in guest.devices}
    for role, device in places.items():
        if guest.devices[role].model is DeviceModel.PCI_BRIDGE:
            # its hot-plug controller's driver (shpchp) would own the group behind it
            device.set_driver(hands, None)
    devices = {
        role: device for role, device in places.items() if not guest.devices[role].model.is_bus
    }
    for role, device in devices.items():
        driver = guest.devices[role].model.driver
        if driver and machine.iommu:  # without one vfio-pci takes no device
            device.set_driver(hands, driver)
    return devices
