# SPDX-License-Identifier: GPL-2.0-only
"""One program in a guest: pushed, started, read to its end, and judged."""

import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.agent.process import Process
from lab.contract import Mode
from lab.deadline import Deadline
from lab.errors import GuestLost
from lab.guest import Guest
from lab.programs import ktap
from lab.vfio.device import CDEVS, Device

if TYPE_CHECKING:
    from lab.guest.ssh import Channel  # paramiko is loaded while the guest boots

PLACE = "/run/programs"  # in the guest
OUTPUT = "output.log"  # in the guest's folder: all that its programs printed
SKIP = 4  # kselftest.h: KSFT_SKIP
_LOOK = 0.5  # seconds between two questions whether it is enough


@dataclass(frozen=True)
class Ended:
    """A program that came to its end. `status` is 128 and the signal's number after a signal."""

    status: int
    output: str

    @property
    def report(self) -> ktap.Report | None:
        """Its KTAP, or None where it printed none."""
        return ktap.read(self.output)

    @property
    def how(self) -> str:
        """Its end in words."""
        number = self.status - 128
        if number in set(signal.Signals):
            return f"{signal.Signals(number).name} ended it"
        return f"it exited with status {self.status}"


class TimedOut(Exception):
    """A program that did not end in time, and still runs. `output` is what it printed so far."""

    def __init__(self, seconds: float, output: str) -> None:
        super().__init__(f"it did not end in {seconds:.0f} s")
        self.output = output


class Enough(Exception):
    """Whoever started a program has seen what it was to show; it still runs."""


def push(guest: Guest, hands: Process, program: Path) -> str:
    """Put a program into a guest that has it not; returns its path there. Raises GuestLost."""
    target = f"{PLACE}/{program.name}"
    if not hands.exists(target):
        guest.ssh.run("mkdir", "-p", PLACE)
        guest.ssh.push(program, target)
    return target


def run(
    guest: Guest,
    argv: Sequence[str],
    deadline: Deadline,
    *,
    environment: Mapping[str, str] | None = None,
    on_output: Callable[[bytes], object] | None = None,
    enough: Callable[[], bool] | None = None,
) -> Ended:
    """Run a program of the guest's to its end; its standard input is empty.

    `on_output` sees what it prints as it comes, standard error too; `enough` is asked now and then
    whether to wait on. Raises TimedOut, Enough, and GuestLost when the guest goes away meanwhile.
    """
    settings = [f"{name}={value}" for name, value in (environment or {}).items()]
    command = shlex.join(["env", *settings, *argv] if settings else argv)
    printed = bytearray()
    with (guest.folder / OUTPUT).open("ab") as log:
        log.write(f"$ {command}\n".encode())
        channel = guest.ssh.start(f"{command} </dev/null", merge=True)
        try:
            while data := _next(channel, deadline, enough):
                printed += data
                log.write(data)
                log.flush()
                if on_output:
                    on_output(data)
        except TimeoutError:
            raise TimedOut(deadline.seconds, printed.decode(errors="replace")) from None
        finally:
            channel.close()
    # The shell that stays after the program says the status; without one, nobody is there.
    if channel.status < 0:
        raise GuestLost(f"`{command}`: the connection ended before the program did")
    return Ended(channel.status, printed.decode(errors="replace"))


def _next(channel: "Channel", deadline: Deadline, enough: Callable[[], bool] | None) -> bytes:
    """What it prints next. Raises TimeoutError, and Enough."""
    while True:
        if enough and enough():
            raise Enough
        look = time.monotonic() + _LOOK if enough else deadline.moment
        try:
            return channel.recv(min(look, deadline.moment))
        except TimeoutError:
            if deadline.passed:
                raise


def environment(devices: Sequence[Device], mode: Mode | None, hands: Process) -> dict[str, str]:
    """What a program is told of the devices that it shall take, and of the mode.

    | variable       | what it holds                                           |
    |----------------|---------------------------------------------------------|
    | VFIO_LAB_BDF   | the address, as 0000:00:05.0                            |
    | VFIO_LAB_CDEV  | the cdev, as /dev/vfio/devices/vfio0, where there is one |
    | VFIO_LAB_GROUP | the group, as /dev/vfio/3, where there is one           |
    | VFIO_LAB_MODE  | the mode's name                                         |

    Several devices are separated by spaces, in the order in which they were named.
    """
    found = {"VFIO_LAB_BDF": [device.address for device in devices]}

    def have(name: str) -> bool:
        return all(hands.exists(f"{device.sysfs}/{name}") for device in devices)

    # Without an IOMMU a device is in no group, and no driver of VFIO's has it yet.
    if hands.exists(CDEVS) and have("vfio-dev"):
        found["VFIO_LAB_CDEV"] = [device.cdev_path(hands) for device in devices]
    groups = [device.group_path(hands) for device in devices] if have("iommu_group") else []
    if all(hands.exists(group) for group in groups):
        found["VFIO_LAB_GROUP"] = groups
    words = {name: " ".join(values) for name, values in found.items() if values}
    return words | ({"VFIO_LAB_MODE": mode.value} if mode else {})
