# SPDX-License-Identifier: GPL-2.0-only
"""A driver for QEMU's edu, the device whose DMA the tests watch.

Source: QEMU's docs/specs/edu.rst and hw/misc/edu.c. A transfer takes 100 ms: a timer of the
device starts it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, IntFlag

from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.contract import Mode
from lab.deadline import Deadline
from lab.errors import InfrastructureError
from lab.vfio.device import Device
from lab.vfio.files import DeviceFile
from lab.vfio.modes import open_device
from lab.vfio.uapi import PciRegion

BUFFER = 0x40000  # where the device sees its own buffer
BUFFER_SIZE = 4096
IDENTITY = 0x010000ED

_POLL = 0.01  # seconds between two looks at a transfer
_TRANSFER = 10.0  # seconds within which the timer has surely fired, on the slowest host


class Register(IntEnum):
    """Offsets in BAR 0. Those from 0x80 take 4 and 8 bytes, those below only 4."""

    IDENTITY = 0x00
    LIVENESS = 0x04
    INTERRUPT_STATUS = 0x24
    INTERRUPT_RAISE = 0x60
    INTERRUPT_ACKNOWLEDGE = 0x64
    SOURCE = 0x80
    DESTINATION = 0x88
    COUNT = 0x90
    COMMAND = 0x98


class Command(IntFlag):
    """Bits of the DMA engine's command register."""

    RUN = 1
    TO_MEMORY = 2


class Edu:
    """An edu whose BAR 0 is mapped."""

    def __init__(self, registers: Mapping) -> None:
        self._registers = registers
        identity = registers.load(Register.IDENTITY, 4)
        if identity != IDENTITY:
            raise InfrastructureError(f"this is no edu: it calls itself {identity:#x}")

    def inverted(self, value: int) -> int:
        """The liveness check: the device gives back every bit of `value` inverted."""
        self._registers.store(Register.LIVENESS, 4, value)
        return self._registers.load(Register.LIVENESS, 4)

    def raise_interrupt(self, bits: int = 1) -> None:
        """Set bits of the interrupt status; the line stays up while any is set."""
        self._registers.store(Register.INTERRUPT_RAISE, 4, bits)

    def acknowledge(self, bits: int = 1) -> None:
        """Clear bits of the interrupt status."""
        self._registers.store(Register.INTERRUPT_ACKNOWLEDGE, 4, bits)

    def copy_in(self, iova: int, count: int, offset: int = 0) -> None:
        """Let the device read `count` bytes at `iova` into its buffer, and wait for the end."""
        self.start(iova, BUFFER + offset, count, Command.RUN)
        self.wait()

    def copy_out(self, iova: int, count: int, offset: int = 0) -> None:
        """Let the device write `count` bytes of its buffer to `iova`, and wait for the end."""
        self.start(BUFFER + offset, iova, count, Command.RUN | Command.TO_MEMORY)
        self.wait()

    def start(self, source: int, destination: int, count: int, command: Command) -> None:
        """Start a transfer. `count` is in bytes, at most BUFFER_SIZE - 1: QEMU 7.2 aborts on a
        full buffer."""
        self._registers.store(Register.SOURCE, 8, source)
        self._registers.store(Register.DESTINATION, 8, destination)
        self._registers.store(Register.COUNT, 8, count)
        self._registers.store(Register.COMMAND, 8, command)

    def address_of(self, register: Register) -> int:
        """Where the process has it, for programs that touch it themselves."""
        return self._registers.address + register

    @property
    def busy(self) -> bool:
        """Whether a transfer is under way."""
        return bool(self._registers.load(Register.COMMAND, 8) & Command.RUN)

    def wait(self) -> None:
        """Wait for the transfer's end, whether its bytes got through or not."""
        deadline = Deadline.after(_TRANSFER)
        while self.busy:
            if deadline.passed:
                raise InfrastructureError(f"edu's transfer did not end in {_TRANSFER:.0f} s")
            time.sleep(_POLL)


@contextmanager
def edu_of(device: DeviceFile) -> Iterator[Edu]:
    """The edu behind an operational file."""
    with device.map_bar(PciRegion.VFIO_PCI_BAR0_REGION_INDEX) as registers:
        yield Edu(registers)


@contextmanager
def opened_edu(process: Process, device: Device, mode: Mode) -> Iterator[tuple[DeviceFile, Edu]]:
    """An edu that is operational and has its BAR 0 mapped."""
    with open_device(process, device, mode) as opened, edu_of(opened.device) as registers:
        yield opened.device, registers
