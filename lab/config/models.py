# SPDX-License-Identifier: GPL-2.0-only
"""What may stand in lab.yaml, word by word. Paths in it are relative to it.

Names of QEMU's properties do not: a machine is described in neutral words, and `lab.guest.argv`
knows what QEMU calls them.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

_UNITS = {"M": 1 << 20, "G": 1 << 30}


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def bytes_of(memory: str) -> int:
    """What lab.yaml calls 1G, or 512M."""
    return int(memory[:-1]) * _UNITS[memory[-1]]


def shaped(pattern: str, expected: str) -> AfterValidator:
    """Refuses text of another shape, in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError("shape", "expected {expected}", {"expected": expected})
        return text

    return AfterValidator(check)


Release = Annotated[str, shaped(r"[0-9]+\.[0-9]+", "a release of the kernel, such as 6.12")]
Memory = Annotated[str, shaped(r"[1-9][0-9]*[MG]", "memory such as 512M or 1G")]
Role = Annotated[str, shaped(r"[a-z][a-z0-9_-]*", "a role of small letters, digits, _ and -")]


class Debian(Model):
    """Where Debian's packages come from. `auto` asks the host's apt."""

    mirror: str = "auto"
    security_mirror: str = "auto"
    suites: tuple[str, ...]


class PackageSource(Model):
    """A source package of Debian's that carries a tarball of the kernel."""

    package: str
    suite: str


class GitSource(Model):
    """A commit of a git tree on disk. The tree is only read."""

    git: Path
    ref: str = "HEAD"


class TarballSource(Model):
    """A tarball of a kernel on disk."""

    tarball: Path


class VersionSource(Model):
    """The source of a version, such as 6.12.8, in whatever package of the lab's suites has it."""

    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]")]


class DebSource(Model):
    """A kernel that Debian built: a package's name, or a version. Without a suite every one that
    the lab names is looked into."""

    deb: str
    suite: str | None = None


_KINDS = ("package", "git", "tarball", "version", "deb")


def _kind_of_source(value: Any) -> str | None:
    # a model where it is written, the text's keys where it is read
    keys = type(value).model_fields if isinstance(value, Model) else value
    keys = keys if isinstance(keys, dict) else {}
    return next((kind for kind in _KINDS if kind in keys), None)


Source = Annotated[
    Annotated[PackageSource, Tag("package")]
    | Annotated[GitSource, Tag("git")]
    | Annotated[TarballSource, Tag("tarball")]
    | Annotated[VersionSource, Tag("version")]
    | Annotated[DebSource, Tag("deb")],
    Discriminator(
        _kind_of_source,
        custom_error_type="source",
        custom_error_message=(
            "expected one of {package, suite}, {git, ref}, {tarball}, {version}, {deb, suite}"
        ),
    ),
]


class Kernel(Model):
    """What decides a kernel's bits."""

    source: Source
    fragments: Annotated[tuple[str, ...], Field(validate_default=True)] = ()
    compiler: Literal["gcc", "clang"] = "gcc"

    @field_validator("fragments")
    @classmethod
    def _belong_to_what_is_built(cls, value: tuple[str, ...], info: ValidationInfo) -> Any:
        built = isinstance(info.data.get("source"), DebSource)
        if built == bool(value):
            expected = "no fragment: it is built already" if built else "one fragment at least"
            raise PydanticCustomError("fragments", f"expected {expected}")
        return value


class Variant(Model):
    """What a fragment costs the guests whose kernel has it.

    Deadlines are `slower` times as long, a machine has at least so much `memory`, and
    `command_line` are more words for the guest's kernel.
    """

    slower: Annotated[float, Field(ge=1.0)] = 1.0
    memory: Memory | None = None
    command_line: tuple[str, ...] = ()


class Image(Model):
    """`recipe` is a folder with a recipe.yaml and an init."""

    recipe: Path


class Iommu(Model):
    """The virtual IOMMU.

    `scalable`: it has PASIDs, and page tables of both stages; `first_stage`: the kernel translates
    with those of the first, which are a CPU's, and not with those of the second. `address_width` is
    in bits.
    """

    model: Literal["intel"] = "intel"
    interrupt_remapping: bool = True
    caching_mode: bool = True
    scalable: bool = False
    first_stage: bool = False
    address_width: Literal[39, 48] = 48

    @property
    def iova_width(self) -> int:
        """Bits of the largest IOVA that can be mapped.

        An address of the first stage is canonical, and the kernel leaves the upper half alone:
        drivers/iommu/intel/iommu.c, `__DOMAIN_MAX_ADDR(gaw - 1)`.
        """
        return self.address_width - 1 if self.first_stage else self.address_width


class DeviceModel(StrEnum):
    """What can be plugged into a machine. The value is QEMU's name of it."""

    EDU = "edu"
    E1000 = "e1000"
    IGB = "igb"
    RNG = "virtio-rng-pci"
    ROOT_PORT = "pcie-root-port"
    PCI_BRIDGE = "pcie-pci-bridge"

    @property
    def is_bus(self) -> bool:
        """Whether other devices can be plugged into it."""
        return self in (DeviceModel.ROOT_PORT, DeviceModel.PCI_BRIDGE)

    @property
    def driver(self) -> str | None:
        """The driver that the lab leaves it with; None where the kernel's choice stands."""
        return "vfio-pci" if self in (DeviceModel.EDU, DeviceModel.IGB) else None


class Device(Model):
    """A device by its role. `optional`: the machine does without where QEMU has no such model."""

    model: DeviceModel
    bus: str | None = None
    optional: bool = False


class Machine(Model):
    """The virtual hardware. The order of `devices` is their order on the bus.

    `command_line` are more words for the guest's kernel.
    """

    memory: Memory = "1G"
    cpus: Annotated[int, Field(ge=1, le=64)] = 2
    command_line: tuple[str, ...] = ()
    iommu: Iommu | None = None
    devices: dict[Role, Device] = {}

    def fit_for(self, variant: Variant) -> "Machine":
        """The same, with what a guest of that variant needs."""
        least = variant.memory or self.memory
        memory = max(self.memory, least, key=bytes_of)
        words = (*self.command_line, *variant.command_line)
        return self.model_copy(update={"memory": memory, "command_line": words})


class Suite(Model):
    """A folder of tests, and the machine that they want where it is not that of `run`."""

    tests: Path
    machine: str | None = None


class Run(Model):
    """What `vfio-lab run` does when nothing else is asked for."""

    kernel: str
    machine: str
    image: str = "minimal"
    suites: tuple[str, ...]
