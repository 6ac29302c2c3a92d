# SPDX-License-Identifier: GPL-2.0-only
"""A PCI device of the guest: its sysfs, its driver, and the ways to open it."""

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENODEV, ENOENT
from os import O_RDONLY

from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.errors import InfrastructureError
from lab.vfio.files import Cdev, Group

VFIO_PCI = "vfio-pci"
CDEVS = "/dev/vfio/devices"
VMSTAT = "/proc/vmstat"
STAT_REFRESH = "/proc/sys/vm/stat_refresh"
_NO_OVERRIDE = "(null)\n"  # what driver_override_show() prints then


def pinned_pages(process: Process) -> int:
    """How many pages are pinned for DMA in the whole guest, whoever pinned them.

    Raises as `pinned_of` does.
    """
    process.write_text(STAT_REFRESH, "1")  # each CPU counts for itself first
    return pinned_of(dict(line.split() for line in process.read_text(VMSTAT).splitlines()))


def pinned_of(counts: Mapping[str, str]) -> int:
    """The same from what /proc/vmstat says.

    Source: mm/gup.c counts each page in NR_FOLL_PIN_ACQUIRED and in NR_FOLL_PIN_RELEASED. Raises
    InfrastructureError where the kernel does not count.
    """
    try:
        return int(counts["nr_foll_pin_acquired"]) - int(counts["nr_foll_pin_released"])
    except KeyError as missing:
        raise InfrastructureError(
            f"this kernel's {VMSTAT} has no {missing}: a leak of pinned pages would not show",
            hint="use Linux 5.7 or later",
        ) from None


@dataclass(frozen=True)
class Device:
    """A device by its role in the machine and by its address in this guest.

    The group's and the cdev's numbers are asked of sysfs each time: they change when a device is
    bound anew. What asks needs a process to ask with.
    """

    role: str
    address: str

    @property
    def sysfs(self) -> str:
        return f"/sys/bus/pci/devices/{self.address}"

    @property
    def requester(self) -> int:
        """Its id on the bus: bus << 8 | device << 3 | function."""
        _, bus, rest = self.address.split(":")
        slot, function = rest.split(".")
        return int(bus, 16) << 8 | int(slot, 16) << 3 | int(function)

    def driver(self, process: Process) -> str | None:
        """The driver that has it, or None."""
        try:
            return posixpath.basename(process.readlink(f"{self.sysfs}/driver"))
        except RemoteError as error:
            if error.errno == ENOENT:
                return None
            raise

    def set_driver(self, process: Process, name: str | None) -> None:
        """Take it from its driver and let `name`, and no other, probe it; None: leave it alone.

        Raises RemoteError with ENODEV when that driver did not take it.
        """
        if self.driver(process):
            process.write_text(f"{self.sysfs}/driver/unbind", self.address)
        process.write_text(f"{self.sysfs}/driver_override", f"{name or ''}\n")
        if name:
            process.write_text("/sys/bus/pci/drivers_probe", self.address)
            if self.driver(process) != name:
                raise RemoteError(ENODEV, f"{name} did not take {self.role} ({self.address})")

    @contextmanager
    def driven_by(self, process: Process, name: str | None) -> Iterator[None]:
        """With another driver for as long as the block lasts; its driver_override is put back."""
        override = f"{self.sysfs}/driver_override"
        before, wanted = self.driver(process), process.read_text(override)
        self.set_driver(process, name)
        try:
            yield
        finally:
            self.set_driver(process, before)
            process.write_text(override, "\n" if wanted == _NO_OVERRIDE else wanted)

    def config(self, process: Process, offset: int, width: int) -> int:
        """`width` bytes of config space as the hardware has it, not as vfio-pci shows it."""
        with process.open(f"{self.sysfs}/config", O_RDONLY) as config:
            return int.from_bytes(config.pread(width, offset), "little")

    def group_number(self, process: Process) -> int:
        """The number of its IOMMU group."""
        return int(posixpath.basename(process.readlink(f"{self.sysfs}/iommu_group")))

    def cdev_path(self, process: Process) -> str:
        """Its node under /dev/vfio/devices. Raises RemoteError (ENOENT) while it has none."""
        (name,) = process.listdir(f"{self.sysfs}/vfio-dev")
        return f"{CDEVS}/{name}"

    def group_path(self, process: Process) -> str:
        """Its group's node under /dev/vfio."""
        return f"/dev/vfio/{self.group_number(process)}"

    def open_cdev(self, process: Process) -> Cdev:
        """A parked file of its own."""
        return Cdev.open(process, self.cdev_path(process))

    def open_group(self, process: Process) -> Group:
        """Its group's file; there is one at a time."""
        return Group.open(process, self.group_path(process))
