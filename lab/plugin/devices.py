# SPDX-License-Identifier: GPL-2.0-only
"""What tests of the kernel share: devices by what they are good for, and who can be asked."""

from collections.abc import Mapping

import pytest

from lab.agent.process import Process
from lab.config import Machine
from lab.contract import Mode
from lab.testing import lacking, not_applicable
from lab.vfio.device import CDEVS, Device
from lab.vfio.files import Iommufd
from lab.vfio.modes import COMPAT_MODES, CONTAINER_MODES, GROUP_MODES, has_type1

IOMMUFD_USES_THE_FIRST_STAGE = (6, 13)  # "iommu/vt-d: Refine intel_iommu_domain_alloc_user()"


@pytest.fixture
def applicable(
    request: pytest.FixtureRequest,
    column: Mode | None,
    machine: Machine,
    hands: Process,
    devices: Mapping[str, Device],
    release: tuple[int, int],
) -> None:
    """Whether a test has anything to say of this machine and this kernel.

    A test that asks for a machine knows what it gets there; the others need a device. A kernel
    without a flow keeps that flow's rules trivially: they do not apply.
    """
    if not request.node.get_closest_marker("on_machine"):
        if not machine.iommu:
            words = "without an IOMMU no device is in a group, and vfio-pci takes none"
            raise not_applicable(words)
        if not machine.iommu.interrupt_remapping:
            raise not_applicable("without interrupt remapping no device is handed out (IRQ-4)")
    if column and (why := _missing(column, machine, hands, _role(devices, "edu0"), release)):
        raise not_applicable(why)


def _missing(
    mode: Mode, machine: Machine, hands: Process, edu: Device, release: tuple[int, int]
) -> str | None:
    """Why this kernel does not have a mode on this machine, or None."""
    if mode is Mode.IOMMUFD and not hands.exists(CDEVS):
        return "this kernel has no VFIO device cdev"
    if mode in GROUP_MODES and not hands.exists(edu.group_path(hands)):
        return "this kernel has no VFIO groups"
    if mode in CONTAINER_MODES and not has_type1(hands):
        return "this kernel has no type1: its container is iommufd's"
    if mode in COMPAT_MODES and not hands.exists(Iommufd.PATH):
        return "this kernel has no iommufd"
    first_stage = machine.iommu and machine.iommu.first_stage
    if first_stage and mode not in CONTAINER_MODES and release < IOMMUFD_USES_THE_FIRST_STAGE:
        return "iommufd makes no first-stage tables before 6.13, and this IOMMU takes no others"
    return None


@pytest.fixture
def modes(
    machine: Machine, hands: Process, edu: Device, release: tuple[int, int]
) -> tuple[Mode, ...]:
    """Every mode that this kernel has on this machine."""
    return tuple(mode for mode in Mode if not _missing(mode, machine, hands, edu, release))


@pytest.fixture
def both_flows(hands: Process, edu: Device) -> None:
    """For a rule about groups and cdevs together: a kernel may have only one of them."""
    if not hands.exists(CDEVS):
        raise not_applicable("this kernel has no VFIO device cdev")
    if not hands.exists(edu.group_path(hands)):
        raise not_applicable("this kernel has no VFIO groups")


@pytest.fixture
def edu(devices: Mapping[str, Device]) -> Device:
    """An edu alone in its group, on the root bus: it cannot be reset."""
    return _role(devices, "edu0")


@pytest.fixture
def resettable(devices: Mapping[str, Device]) -> Device:
    """An edu alone behind a root port: it can be reset."""
    return _role(devices, "edu1")


@pytest.fixture
def sibling(devices: Mapping[str, Device]) -> Device:
    """An edu that shares its group with another edu and a device of the host."""
    return _role(devices, "edu2")


@pytest.fixture
def other_sibling(devices: Mapping[str, Device]) -> Device:
    """The other edu of that group."""
    return _role(devices, "edu3")


@pytest.fixture
def igb(devices: Mapping[str, Device]) -> Device:
    """A card of PCI Express, with MSI-X, a function level reset and SR-IOV, that vfio-pci has."""
    return _role(devices, "igb0")


@pytest.fixture
def device(devices: Mapping[str, Device], role: str) -> Device:
    """The one that the test's parameter `role` names."""
    return _role(devices, role)


@pytest.fixture
def rng(devices: Mapping[str, Device]) -> Device:
    """The random number generator of that group; the host's driver has it."""
    return _role(devices, "rng0")


def _role(devices: Mapping[str, Device], role: str) -> Device:
    if role not in devices:
        # not every QEMU has an igb
        raise lacking("igb") if role == "igb0" else not_applicable(f"this machine has no {role}")
    return devices[role]
