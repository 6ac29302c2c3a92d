# SPDX-License-Identifier: GPL-2.0-only
"""Devices that come and go while the guest runs, at a root port that is empty otherwise.

Source: drivers/pci/hotplug/pciehp_ctrl.c, and QEMU's hw/pci/pcie.c, pcie_cap_slot_write_config().
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from os import O_RDONLY, O_WRONLY
from pathlib import Path

from lab.agent.calls import close, openat
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm, Op, Reg
from lab.agent.syscalls import Syscall
from lab.config import DeviceModel
from lab.deadline import Deadline
from lab.errors import InfrastructureError
from lab.guest import Guest
from lab.vfio.device import Device

_SOON = 20.0  # seconds within which a guest on a busy host has surely seen a device come or go
_POLL = 0.01  # seconds between two looks at sysfs

CAPABILITIES = 0x34  # where the first one stands
PCI_EXPRESS = 0x10  # the capability's id
SLOT_CONTROL = 0x18  # its offset in the capability
POWER_OFF = 0x0700  # power controller off, and its indicator: the device's end for QEMU
INTERRUPTS = 0x0020  # whether the port tells of anything


@dataclass(frozen=True)
class Slot:
    """The slot of a root port of the machine. Its calls raise RemoteError and GuestLost."""

    guest: Guest
    hands: Process
    port: Device

    def plug(self, role: str, rom: Path | None = None) -> Device:
        """Plug an edu in, with what that file holds as its expansion ROM; it has no driver yet."""
        words = {
            "driver": DeviceModel.EDU.value,
            "id": role,
            "bus": self.port.role,
            "dma_mask": 2**64 - 1,
        }
        self.guest.monitor.execute("device_add", words | ({"romfile": str(rom)} if rom else {}))
        deadline = Deadline.after(_SOON)
        while not (found := self._children()):
            if deadline.passed:
                raise InfrastructureError(f"the guest did not see {role} in {_SOON:.0f} s")
            time.sleep(_POLL)
        # It is seen before drivers may have it, pci_bus_add_device(). Both happen under the lock
        # that a rescan waits for.
        self.hands.write_text(f"{self.port.sysfs}/pci_bus/{self._bus()}/rescan", "1")
        return Device(role, found[0])

    def press_the_button(self, device: Device) -> None:
        """Ask for the device's removal, as an operator does: QMP's device_del."""
        self.guest.monitor.execute("device_del", {"id": device.role})

    def confirm(self) -> tuple[Op, ...]:
        """Let pciehp remove the device now. It gives the operator five seconds to press again;
        the write returns when the device is gone."""
        slots = "/sys/bus/pci/slots"
        bus = f"{self._bus()}:00"
        (name,) = (
            name
            for name in self.hands.listdir(slots)
            if self.hands.read_text(f"{slots}/{name}/address").strip() == bus
        )
        return _write(f"{slots}/{name}/power", b"0")

    def cut_power(self) -> tuple[Op, ...]:
        """Take the device away from under its driver, by the port's own register.

        The port's interrupt tells the guest's kernel of it once the register is as it was:
        pciehp removes nothing from a slot that it finds without power.
        """
        path, place = f"{self.port.sysfs}/config", self._control()
        before = self._read_control()
        cut = (before | POWER_OFF) & ~INTERRUPTS
        return tuple(
            op for word in (cut, before) for op in _write(path, word.to_bytes(2, "little"), place)
        )

    def is_empty(self) -> bool:
        """Whether the guest's kernel sees nothing there."""
        return not self._children()

    def clear(self, device: Device) -> None:
        """Take the device out, as far as it is not out already, and have the slot as it was."""
        if not self.is_empty():
            with suppress(InfrastructureError):  # QEMU has none such: its power was cut
                self.press_the_button(device)
            self.hands.batch(self.confirm())
        deadline = Deadline.after(_SOON)
        while not self.is_empty() or self._read_control() & POWER_OFF != POWER_OFF:
            if deadline.passed:
                raise InfrastructureError(f"the guest keeps {device.role}")
            time.sleep(_POLL)

    def _control(self) -> int:
        """Where the slot's control register is in the port's config space."""
        with self.hands.open(f"{self.port.sysfs}/config", O_RDONLY) as config:
            space = config.pread(256, 0)
        place = space[CAPABILITIES]
        while space[place] != PCI_EXPRESS:
            place = space[place + 1]
        return place + SLOT_CONTROL

    def _read_control(self) -> int:
        place = self._control()
        with self.hands.open(f"{self.port.sysfs}/config", O_RDONLY) as config:
            return int.from_bytes(config.pread(2, place), "little")

    def _bus(self) -> str:
        """Domain and number of the bus behind the port."""
        (bus,) = self.hands.listdir(f"{self.port.sysfs}/pci_bus")
        return bus

    def _children(self) -> list[str]:
        bus = self._bus()
        return [name for name in self.hands.listdir(self.port.sysfs) if name.startswith(f"{bus}:")]


def _write(path: str, data: bytes, offset: int = 0) -> tuple[Op, ...]:
    """One write to a file of sysfs, as a program's setup."""
    content = Buf(data, returned=False), Imm(len(data)), Imm(offset)
    return (
        openat(path, flags=O_WRONLY),
        Call(Syscall.PWRITE64, (Reg(0), *content)),
        close(),
    )
