# SPDX-License-Identifier: GPL-2.0-only
"""SRV-1: a virtual function is for whoever its physical function's user trusts. And REG-3, for it
has less of its own in config space; LIFE-1 and REG-2, for the two depend on each other.

Source: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_validate_vf_token().
"""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EINVAL, ENOTTY
from posixpath import basename
from uuid import UUID, uuid4

import pytest

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, not_applicable, raises_errno
from lab.vfio.config import POWER, place_of
from lab.vfio.device import VFIO_PCI, Device
from lab.vfio.files import DeviceFile, Iommufd
from lab.vfio.modes import joined_group, open_device
from lab.vfio.uapi import (
    BindFlag,
    DeviceFlag,
    DeviceRequest,
    Feature,
    PciCommand,
    PciIrq,
    VfioDeviceBindIommufdToken,
)

ENABLE = "/sys/module/vfio_pci/parameters/enable_sriov"
VENDOR, PIN = 0x00, 0x3D
D3HOT = 3  # in PCI_PM_CTRL
TOKEN, WRONG = uuid4(), uuid4()


@pytest.fixture
def physical(igb: Device) -> Device:
    """A card with SR-IOV that vfio-pci has."""
    return igb


@pytest.fixture
def virtual(hands: Process, physical: Device) -> Iterator[Device]:
    """Its one virtual function."""
    with _virtual_function_of(hands, physical) as device:
        yield device


@contextmanager
def _virtual_function_of(hands: Process, physical: Device) -> Iterator[Device]:
    """A virtual function, which vfio-pci takes because it has the physical one."""
    if not hands.exists(f"{physical.sysfs}/sriov_numvfs"):
        raise not_applicable("this kernel has no SR-IOV")
    before = hands.read_text(ENABLE)
    hands.write_text(ENABLE, "Y")
    try:
        hands.write_text(f"{physical.sysfs}/sriov_numvfs", "1")
        device = Device("virtual", basename(hands.readlink(f"{physical.sysfs}/virtfn0")))
        assert device.driver(hands) == VFIO_PCI
        yield device
    finally:
        hands.write_text(f"{physical.sysfs}/sriov_numvfs", "0")
        hands.write_text(ENABLE, before)


@contextmanager
def _taken(
    process: Process, device: Device, mode: Mode, token: UUID | None
) -> Iterator[DeviceFile]:
    """The device, asked for with a token. It needs no address space."""
    if mode is Mode.IOMMUFD:
        with (
            Iommufd.open(process, Iommufd.PATH) as iommufd,
            device.open_cdev(process) as cdev,
            process.mmap(process.page_size) as page,
        ):
            page.write(0, token.bytes if token else b"")
            request = VfioDeviceBindIommufdToken(
                iommufd=iommufd.fd,
                flags=BindFlag.VFIO_DEVICE_BIND_FLAG_TOKEN if token else 0,
                token_uuid_ptr=page.address if token else 0,
            )
            cdev.call(DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD, request)
            yield cdev
        return
    name = f"{device.address} vf_token={token}" if token else device.address
    with joined_group(process, device, mode) as (_, group), group.get_device(name) as file:
        yield file


@pytest.fixture
def takes_tokens(mode: Mode, release: tuple[int, int]) -> None:
    """A flow in which a token can be given."""
    if mode is Mode.IOMMUFD and release < (6, 17):
        raise not_applicable("BIND takes no token before 6.17, and checks none")


@contract("SRV-1")
@pytest.mark.usefixtures("takes_tokens")
def test_virtual_function_needs_the_token_of_its_physical_one(
    process: Process, physical: Device, virtual: Device, mode: Mode
) -> None:
    """Without one and with a wrong one EACCES, and the right one still works afterwards; while the
    virtual function is in use the physical one wants the token, too."""
    with open_device(process, physical, mode) as opened:
        opened.device.set_feature(Feature.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, TOKEN.bytes)
    for token in (None, WRONG):
        with raises_errno(EACCES), _taken(process, virtual, mode, token):
            pass
    with _taken(process, virtual, mode, TOKEN) as file:
        assert DeviceFlag.VFIO_DEVICE_FLAGS_PCI in DeviceFlag(file.info().flags)
        for token in (None, WRONG):
            with raises_errno(EACCES), _taken(process, physical, mode, token):
                pass
        with _taken(process, physical, mode, TOKEN) as other:
            other.info()
    with open_device(process, physical, mode) as opened:
        opened.device.info()


@contract("SRV-1")
@pytest.mark.usefixtures("takes_tokens")
def test_token_is_a_secret_of_those_who_set_it(
    process: Process, hands: Process, physical: Device, mode: Mode
) -> None:
    """vfio_pci_vf_init() invents one that nobody knows; who opens the physical function with one
    while no virtual one is in use, sets it; vfio_pci_core_feature_token() tells it to nobody."""
    physical.set_driver(hands, VFIO_PCI)  # anew, and so is the token
    with _virtual_function_of(hands, physical) as virtual:
        for guess in (UUID(int=0), TOKEN):
            with raises_errno(EACCES), _taken(process, virtual, mode, guess):
                pass
        with _taken(process, physical, mode, TOKEN) as file, raises_errno(EINVAL):
            file.get_feature(Feature.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, len(TOKEN.bytes))
        with _taken(process, virtual, mode, TOKEN):
            pass


@contract("SRV-1")
@pytest.mark.usefixtures("takes_tokens")
def test_device_without_virtual_functions_has_no_token(
    process: Process, edu: Device, mode: Mode
) -> None:
    """EINVAL from vfio_pci_validate_vf_token(), and ENOTTY for who would set one."""
    with raises_errno(EINVAL), _taken(process, edu, mode, TOKEN):
        pass
    with open_device(process, edu, mode) as opened, raises_errno(ENOTTY):
        opened.device.set_feature(Feature.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, TOKEN.bytes)


@contract("LIFE-1", Mode.TYPE1V2)  # a virtual function takes seconds
def test_virtual_functions_go_with_the_driver_of_the_physical_one(
    process: Process, hands: Process, physical: Device, mode: Mode
) -> None:
    """vfio_pci_core_unregister_device(): what nobody is left to keep the token of is taken away,
    when its last user has closed it."""
    with _virtual_function_of(hands, physical) as virtual:
        with open_device(process, physical, mode) as opened:
            opened.device.set_feature(Feature.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, TOKEN.bytes)
        with _taken(process, virtual, mode, TOKEN) as file:
            file.info()
        with physical.driven_by(hands, None):
            assert not hands.exists(virtual.sysfs)
            assert hands.read_text(f"{physical.sysfs}/sriov_numvfs").strip() == "0"


@contract("REG-2", Mode.TYPE1V2)
def test_physical_function_does_not_sleep_while_it_has_virtual_ones(
    process: Process, hands: Process, physical: Device, virtual: Device, mode: Mode
) -> None:
    """vfio_pci_set_power_state(), `sriov_active`: D3 would take the others' registers away, so it
    is not entered. The user's own stay in reach."""
    assert virtual.driver(hands) == VFIO_PCI
    with open_device(process, physical, mode) as opened:
        file, control = opened.device, place_of(opened.device.config, POWER) + 4
        file.set_config(control, 2, file.config(control, 2) | D3HOT)
        assert physical.config(hands, control, 2) & D3HOT == 0
        assert len(file.pread(4, file.region(0).offset)) == 4


@contract("REG-3", Mode.IOMMUFD, Mode.TYPE1V2)  # one of each flow: a virtual function takes seconds
@pytest.mark.usefixtures("takes_tokens")
def test_virtual_function_shows_what_it_has_not(
    process: Process, hands: Process, physical: Device, virtual: Device, mode: Mode
) -> None:
    """vfio_config_init(): whose card it is, and that its memory decodes; INTx it has none."""
    with open_device(process, physical, mode) as opened:
        opened.device.set_feature(Feature.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, TOKEN.bytes)
    with _taken(process, virtual, mode, TOKEN) as file:
        assert virtual.config(hands, VENDOR, 2) == 0xFFFF
        assert file.config(VENDOR, 2) == physical.config(hands, VENDOR, 2)
        assert file.config(PIN, 1) == file.irq(PciIrq.VFIO_PCI_INTX_IRQ_INDEX).count == 0
        assert PciCommand.MEMORY in file.command
        place = file.region(0).offset
        assert len(file.pread(4, place)) == 4
