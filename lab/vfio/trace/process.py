# SPDX-License-Identifier: GPL-2.0-only
"""What is known of a process while its trace is read: its open files, its memory."""

from dataclasses import dataclass, field
from enum import Enum

from lab.vfio.device import CDEVS
from lab.vfio.files import Container, Iommufd
from lab.vfio.trace.values import number
from lab.vfio.uapi import PciRegion


class Kind(Enum):
    """Which ioctls a file takes: their numbers mean different things elsewhere."""

    IOMMUFD = "iommufd"
    CONTAINER = "container"
    GROUP = "group"
    DEVICE = "device"
    OTHER = "other"

    @classmethod
    def of_path(cls, path: str) -> "Kind":
        if path == Iommufd.PATH:
            return cls.IOMMUFD
        if path == Container.PATH:
            return cls.CONTAINER
        if path.startswith(f"{CDEVS}/"):
            return cls.DEVICE
        return cls.GROUP if path.startswith("/dev/vfio/") else cls.OTHER


@dataclass(frozen=True)
class Region:
    """Where a region of a device lies in the device's file."""

    name: str
    offset: int
    size: int


@dataclass(eq=False)
class File:
    """An open file, whatever fds it has. What was asked of a device's regions is known of it."""

    name: str
    kind: Kind = Kind.OTHER
    regions: dict[int, Region] = field(default_factory=dict)

    def place(self, offset: int) -> str:
        """An offset in it, and which region that is."""
        for region in self.regions.values():
            if region.offset <= offset < region.offset + region.size:
                return f"{offset:#x}<{region.name}+{offset - region.offset:#x}>"
        return number(offset)

    def learn(self, index: int, offset: int, size: int) -> None:
        """What GET_REGION_INFO answered."""
        name = f"region {index}"
        if PciRegion.VFIO_PCI_BAR0_REGION_INDEX <= index < 6:
            name = f"BAR {index}"
        elif index == PciRegion.VFIO_PCI_CONFIG_REGION_INDEX:
            name = "config"
        self.regions[index] = Region(name, offset, size)


@dataclass(frozen=True)
class Mapped:
    """Memory of a process: anonymous, or of a file from an offset on."""

    start: int
    length: int
    file: File | None
    offset: int


@dataclass
class ProcessState:
    """A process, as far as the calls tell that were seen."""

    pid: int
    files: dict[int, File] = field(default_factory=dict)
    memory: list[Mapped] = field(default_factory=list)

    def fd(self, value: int) -> str:
        """An fd and what it is."""
        file = self.files.get(value)
        return f"{value}<{file.name}>" if file else str(value)

    def kind(self, fd: int) -> Kind:
        """Which ioctls an fd takes."""
        file = self.files.get(fd)
        return file.kind if file else Kind.OTHER

    def address(self, value: int) -> str:
        """An address and what is there."""
        for mapped in reversed(self.memory):
            if mapped.start <= value < mapped.start + mapped.length:
                inside = value - mapped.start
                if mapped.file is None:
                    return f"{value:#x}<memory+{inside:#x}>"
                within = mapped.offset + inside
                for region in mapped.file.regions.values():
                    if region.offset <= within < region.offset + region.size:
                        return f"{value:#x}<{region.name}+{within - region.offset:#x}>"
                return f"{value:#x}<{mapped.file.name}+{within:#x}>"
        return hex(value) if value else "NULL"

    def unmap(self, start: int, length: int) -> None:
        """What begins there is gone."""
        end = start + length
        self.memory = [each for each in self.memory if not start <= each.start < end]
