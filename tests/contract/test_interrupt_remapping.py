# SPDX-License-Identifier: GPL-2.0-only
"""IRQ-4: where a device could forge any interrupt, it is not handed out unless that is allowed.

Source: iommufd/device.c: iommufd_device_bind() and vfio_iommu_type1.c:
vfio_iommu_type1_attach_group(), each with a parameter `allow_unsafe_interrupts` of its own. Every
refusal stands beside the same steps with the parameter on.
"""

from errno import EINVAL, EPERM

from lab.agent.process import Process
from lab.contract import Mode
from lab.testbed import Testbed
from lab.testing import contract, on_machine, raises_errno
from lab.vfio.device import Device
from lab.vfio.files import Iommufd
from lab.vfio.modes import COMPAT_MODES, CONTAINER_MODES, IOMMU_TYPES, open_container, open_device
from lab.vfio.parameter import parameter, turned_on

IOMMUFDS = parameter("iommufd", "allow_unsafe_interrupts")
TYPE1S = parameter("vfio_iommu_type1", "allow_unsafe_interrupts")
MACHINE = "vtd-no-remapping"


@contract("IRQ-4", Mode.IOMMUFD)
@on_machine(MACHINE)
def test_bind_is_refused_without_interrupt_remapping(
    testbed: Testbed, process: Process, hands: Process, edu: Device
) -> None:
    """EPERM, and the file stays parked; allowed, the same file binds and the kernel warns."""
    with edu.open_cdev(process) as cdev, Iommufd.open(process, Iommufd.PATH) as iommufd:
        with raises_errno(EPERM):
            cdev.bind(iommufd)
        with raises_errno(EINVAL):
            cdev.info()
        printed = testbed.guest.console.size
        with turned_on(hands, IOMMUFDS):
            cdev.bind(iommufd)
        cdev.info()
        assert f"{edu.address}: MSI interrupts are not secure" in testbed.printed_since(printed)


@contract("IRQ-4", *COMPAT_MODES)
@on_machine(MACHINE)
def test_compat_device_is_refused_without_interrupt_remapping(
    testbed: Testbed, process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """Nothing is asked before the device itself: GET_DEVICE_FD is EPERM."""
    with open_container(process, mode) as container, edu.open_group(process) as group:
        group.set_container(container)
        container.set_iommu(IOMMU_TYPES[mode])
        with raises_errno(EPERM):
            group.get_device(edu.address)
        printed = testbed.guest.console.size
        with turned_on(hands, IOMMUFDS), group.get_device(edu.address) as device:
            device.info()
        assert f"{edu.address}: MSI interrupts are not secure" in testbed.printed_since(printed)


@contract("IRQ-4", *CONTAINER_MODES)
@on_machine(MACHINE)
def test_type1_is_refused_without_interrupt_remapping(
    testbed: Testbed, process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """SET_IOMMU is EPERM, and GET_DEVICE_FD finds no IOMMU set. It is the refusal that type1 warns
    of; what is allowed goes without a word."""
    with open_container(process, mode) as container, edu.open_group(process) as group:
        group.set_container(container)
        printed = testbed.guest.console.size
        with raises_errno(EPERM):
            container.set_iommu(IOMMU_TYPES[mode])
        assert "No interrupt remapping support." in testbed.printed_since(printed)
        with raises_errno(EINVAL):
            group.get_device(edu.address)
        with turned_on(hands, TYPE1S):
            container.set_iommu(IOMMU_TYPES[mode])
        with group.get_device(edu.address) as device:
            device.info()


@contract("IRQ-4")
@on_machine(MACHINE)
def test_another_modules_parameter_allows_nothing(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """iommufd and vfio_iommu_type1 have one each."""
    own, other = (TYPE1S, IOMMUFDS) if mode in CONTAINER_MODES else (IOMMUFDS, TYPE1S)
    if hands.exists(other):
        with turned_on(hands, other), raises_errno(EPERM), open_device(process, edu, mode):
            pass
    with turned_on(hands, own), open_device(process, edu, mode) as opened:
        opened.device.info()
