# SPDX-License-Identifier: GPL-2.0-only
"""The five ways to a device, behind one face: a test is written once and runs in all."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from lab.agent.inherit import take_fd
from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.contract import Mode
from lab.vfio.device import Device
from lab.vfio.files import READ_WRITE, Container, DeviceFile, Group, Iommufd
from lab.vfio.uapi import IommuType, MapFlag, UnmapFlag

IOMMU_TYPES = {
    Mode.TYPE1V2: IommuType.VFIO_TYPE1v2_IOMMU,
    Mode.TYPE1: IommuType.VFIO_TYPE1_IOMMU,
    Mode.COMPAT_TYPE1V2: IommuType.VFIO_TYPE1v2_IOMMU,
    Mode.COMPAT_TYPE1: IommuType.VFIO_TYPE1_IOMMU,
}
"""What each mode of the group flow gives to VFIO_SET_IOMMU."""

GROUP_MODES = tuple(IOMMU_TYPES)
CONTAINER_MODES = (Mode.TYPE1V2, Mode.TYPE1)
COMPAT_MODES = (Mode.COMPAT_TYPE1V2, Mode.COMPAT_TYPE1)


class AddressSpace(ABC):
    """What an opened device's DMA goes through. Its calls raise RemoteError."""

    def map(self, iova: int, memory: Mapping, rights: MapFlag = READ_WRITE) -> None:
        """Let the device see all of `memory` at `iova`."""
        self.map_range(iova, memory.address, memory.length, rights)

    @abstractmethod
    def map_range(self, iova: int, address: int, length: int, rights: MapFlag = READ_WRITE) -> None:
        """Let the device see `length` bytes at `address` of the process at `iova`."""

    @abstractmethod
    def unmap(self, iova: int, length: int) -> int:
        """The bytes that were unmapped."""

    @abstractmethod
    def unmap_all(self) -> int:
        """Unmap everything; the bytes that there were."""

    @abstractmethod
    def iova_ranges(self) -> list[tuple[int, int]]:
        """First and last address of each range that may be mapped."""

    @abstractmethod
    def taken_by(self, process: Process) -> AbstractContextManager["AddressSpace"]:
        """The same in another process, which has the file as long as the block lasts."""


@dataclass(frozen=True)
class Ioas(AddressSpace):
    """An IOAS of an iommufd."""

    iommufd: Iommufd
    identity: int

    def map_range(self, iova: int, address: int, length: int, rights: MapFlag = READ_WRITE) -> None:
        self.iommufd.ioas_map(self.identity, iova, address, length, rights)

    def unmap(self, iova: int, length: int) -> int:
        return self.iommufd.ioas_unmap(self.identity, iova, length)

    def unmap_all(self) -> int:
        return self.iommufd.ioas_unmap(self.identity, 0, 2**64 - 1)

    def iova_ranges(self) -> list[tuple[int, int]]:
        return self.iommufd.iova_ranges(self.identity)

    @contextmanager
    def taken_by(self, process: Process) -> Iterator[AddressSpace]:
        with Iommufd(process, take_fd(process, self.iommufd), self.iommufd.name) as iommufd:
            yield Ioas(iommufd, self.identity)


@dataclass(frozen=True)
class ContainerSpace(AddressSpace):
    """The one address space of a container, or of an iommufd that plays its part."""

    container: Container

    def map_range(self, iova: int, address: int, length: int, rights: MapFlag = READ_WRITE) -> None:
        self.container.map_dma(iova, address, length, rights)

    def unmap(self, iova: int, length: int) -> int:
        return self.container.unmap_dma(iova, length)

    def unmap_all(self) -> int:
        return self.container.unmap_dma(0, 0, UnmapFlag.VFIO_DMA_UNMAP_FLAG_ALL)

    def iova_ranges(self) -> list[tuple[int, int]]:
        return self.container.iova_ranges()

    @contextmanager
    def taken_by(self, process: Process) -> Iterator[AddressSpace]:
        with Container(process, take_fd(process, self.container), self.container.name) as container:
            yield ContainerSpace(container)


@dataclass(frozen=True)
class Opened:
    """A device that is operational, and what its DMA goes through."""

    device: DeviceFile
    space: AddressSpace
    group: Group | None = None  # the file that it came from, in the group flow


def has_type1(process: Process) -> bool:
    """Whether the kernel has type1, built in or loaded."""
    return process.exists("/sys/module/vfio_iommu_type1")


def container_path(process: Process, mode: Mode) -> str:
    """The node whose file VFIO_GROUP_SET_CONTAINER takes in this mode of the group flow.

    In a kernel without a container of VFIO's own (IOMMUFD_VFIO_CONTAINER) an iommufd serves that
    node, too, and counts locked memory as type1 does: there the compat modes go through it.
    """
    if mode not in COMPAT_MODES:
        return Container.PATH
    served = not has_type1(process) and process.exists(Container.PATH)
    return Container.PATH if served else Iommufd.PATH


@contextmanager
def open_container(process: Process, mode: Mode) -> Iterator[Container]:
    """A container for this mode of the group flow; nothing is set in it yet."""
    with Container.open(process, container_path(process, mode)) as container:
        yield container


@contextmanager
def joined_group(process: Process, device: Device, mode: Mode) -> Iterator[tuple[Container, Group]]:
    """The device's group in a container with its IOMMU set: ready for GET_DEVICE_FD."""
    with (
        open_container(process, mode) as container,
        device.open_group(process) as group,
    ):
        group.set_container(container)
        container.set_iommu(IOMMU_TYPES[mode])
        yield container, group


@contextmanager
def open_device(process: Process, device: Device, mode: Mode) -> Iterator[Opened]:
    """The device, operational and attached, come by as `mode` says."""
    if mode is Mode.IOMMUFD:
        with (
            Iommufd.open(process, Iommufd.PATH) as iommufd,
            device.open_cdev(process) as cdev,
        ):
            cdev.bind(iommufd)
            ioas = iommufd.ioas_alloc()
            cdev.attach(ioas)
            yield Opened(cdev, Ioas(iommufd, ioas))
        return
    with (
        joined_group(process, device, mode) as (container, group),
        group.get_device(device.address) as file,
    ):
        yield Opened(file, ContainerSpace(container), group)
