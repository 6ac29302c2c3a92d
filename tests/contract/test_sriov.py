# SPDX-License-Identifier: GPL-2.0-only
"""SRV-1: a virtual function is for whoever its physical function's user trusts.

Source: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_validate_vf_token().
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import EACCES
from posixpath import basename
from uuid import UUID, uuid4

import pytest

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, lacking, not_applicable, raises_errno
from lab.vfio.device import VFIO_PCI, Device
from lab.vfio.files import DeviceFile, Iommufd
from lab.vfio.modes import GROUP_MODES, joined_group, open_device
from lab.vfio.uapi import (
    BindFlag,
    DeviceFlag,
    DeviceRequest,
    Feature,
    VfioDeviceBindIommufdToken,
)

ENABLE = "/sys/module/vfio_pci/parameters/enable_sriov"
TOKEN, WRONG = uuid4(), uuid4()


@pytest.fixture
def physical(devices: Mapping[str, Device]) -> Device:
    """A card with SR-IOV that vfio-pci has."""
    if "igb0" not in devices:
        raise lacking("igb")
    return devices["igb0"]


@pytest.fixture
def virtual(hands: Process, physical: Device) -> Iterator[Device]:
    """Its one virtual function, which vfio-pci takes because it has the other."""
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


@contract("SRV-1")
def test_virtual_function_needs_the_token_of_its_physical_one(
    process: Process,
    physical: Device,
    virtual: Device,
    mode: Mode,
    release: tuple[int, int],
) -> None:
    """Without one and with a wrong one EACCES, and the right one still works afterwards; while the
    virtual function is in use the physical one wants the token, too."""
    if mode is Mode.IOMMUFD and release < (6, 17):
        raise not_applicable("BIND takes no token before 6.17, and checks none")
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


@contract("SRV-1", *GROUP_MODES)
def test_token_behind_the_name_of_a_physical_function_becomes_its_token(
    process: Process, physical: Device, virtual: Device, mode: Mode
) -> None:
    """While no virtual function is in use: uuid_copy() in vfio_pci_validate_vf_token()."""
    token = uuid4()
    with _taken(process, physical, mode, token) as file:
        file.info()
    with raises_errno(EACCES), _taken(process, virtual, mode, WRONG):
        pass
    with _taken(process, virtual, mode, token) as file:
        file.info()
