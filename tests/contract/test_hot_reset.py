# SPDX-License-Identifier: GPL-2.0-only
"""RST-2 and RST-3: a reset of a whole bus or slot, and who may ask for it; and, with RST-1, the
resets that nobody asks for.

Source: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_ioctl_get_pci_hot_reset_info() and
vfio_pci_ioctl_pci_hot_reset(). A cdev owns by its iommufd, a file of the group flow by the groups
whose files its caller shows.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from errno import EBADF, EINVAL, ENODEV, ENOSPC
from functools import partial

import pytest

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.config import MSI, place_of
from lab.vfio.device import VFIO_PCI, Device
from lab.vfio.edu import edu_of
from lab.vfio.files import DeviceFile, Iommufd
from lab.vfio.modes import GROUP_MODES, Ioas, Opened, open_device
from lab.vfio.uapi import (
    DeviceId,
    DeviceRequest,
    HotResetFlag,
    PciCommand,
    VfioPciDependentDevice,
    VfioPciHotReset,
    VfioPciHotResetInfo,
)

DEV_ID = HotResetFlag.VFIO_PCI_HOT_RESET_FLAG_DEV_ID
OWNED = DEV_ID | HotResetFlag.VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED
BY_GROUP = HotResetFlag(0)
MARK = 0xFEE0_0000


def _ids(devices: Sequence[VfioPciDependentDevice]) -> dict[int, int]:
    """Id by id on the bus; each device once."""
    found = {each.bus << 8 | each.devfn: each.id for each in devices}
    assert len(found) == len(devices), "a device is named twice"
    assert all(each.segment == 0 for each in devices)
    return found


def _mine(opened: Opened) -> list[int]:
    """What the owner shows for a hot reset: nothing, or its group."""
    return [opened.group.fd] if opened.group else []


# RST-2


@contract("RST-2")
def test_root_bus_has_no_hot_reset(process: Process, edu: Device, mode: Mode) -> None:
    """pci_probe_reset_bus() has no bridge to reset it by; the reset itself says the same."""
    with open_device(process, edu, mode) as opened:
        with raises_errno(ENODEV):
            opened.device.hot_reset_info()
        with raises_errno(ENODEV):
            opened.device.hot_reset(_mine(opened))


@contract("RST-2", Mode.IOMMUFD)
def test_cdev_is_told_its_own_id(process: Process, resettable: Device) -> None:
    """vfio_pci_fill_devs(): the id that BIND gave."""
    with (
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        resettable.open_cdev(process) as cdev,
    ):
        iommufd.ioas_alloc()  # so that the device's id is not the first one
        identity = cdev.bind(iommufd)
        flags, devices = cdev.hot_reset_info()
        assert (flags, _ids(devices)) == (OWNED, {resettable.requester: identity})


@contract("RST-2", *GROUP_MODES)
@pytest.mark.parametrize("alone", [True, False], ids=["alone-behind-a-port", "one-of-three"])
def test_group_flow_is_told_groups(
    process: Process,
    hands: Process,
    resettable: Device,
    sibling: Device,
    other_sibling: Device,
    rng: Device,
    mode: Mode,
    alone: bool,
) -> None:
    """The groups' numbers and no flag, whatever driver a device has."""
    touched = (resettable,) if alone else (sibling, other_sibling, rng)
    with (
        rng.driven_by(hands, None),
        open_device(process, touched[0], mode) as opened,
    ):
        flags, devices = opened.device.hot_reset_info()
        assert flags == BY_GROUP
        assert _ids(devices) == {each.requester: each.group_number(hands) for each in touched}


@contract("RST-2", Mode.IOMMUFD)
@pytest.mark.parametrize("driver", [VFIO_PCI, None], ids=["owned-but-not-bound", "without-vfio"])
def test_cdev_is_told_whether_its_siblings_are_its_own(
    process: Process,
    hands: Process,
    sibling: Device,
    other_sibling: Device,
    rng: Device,
    driver: str | None,
) -> None:
    """vfio_iommufd_get_dev_id(): who is bound has an id; the others are the group's or nobody's."""
    with (
        rng.driven_by(hands, driver),
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        sibling.open_cdev(process) as cdev,
        other_sibling.open_cdev(process) as other,
    ):
        identity = cdev.bind(iommufd)
        of_rng = DeviceId.VFIO_PCI_DEVID_OWNED if driver else DeviceId.VFIO_PCI_DEVID_NOT_OWNED
        owned = {
            sibling.requester: identity,
            other_sibling.requester: DeviceId.VFIO_PCI_DEVID_OWNED,
            rng.requester: of_rng,
        }
        flags, devices = cdev.hot_reset_info()
        assert (flags, _ids(devices)) == (OWNED if driver else DEV_ID, owned)
        owned[other_sibling.requester] = other.bind(iommufd)
        flags, devices = other.hot_reset_info()
        assert (flags, _ids(devices)) == (OWNED if driver else DEV_ID, owned)


@contract("RST-2")
def test_too_little_room_is_told(
    process: Process, hands: Process, sibling: Device, rng: Device, mode: Mode
) -> None:
    """ENOSPC with the number that there are, for each size that is too small by one or more."""
    with rng.driven_by(hands, None), open_device(process, sibling, mode) as opened:
        for room in range(3):
            argsz = ctypes.sizeof(VfioPciHotResetInfo) + 8 * room
            info = VfioPciHotResetInfo(argsz=argsz)
            with raises_errno(ENOSPC):
                opened.device.call(DeviceRequest.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info)
            assert (info.count, info.flags) == (3, 0)
        assert len(opened.device.hot_reset_info(room=3)[1]) == 3
        with raises_errno(EINVAL):
            opened.device.call(
                DeviceRequest.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, VfioPciHotResetInfo(argsz=11)
            )


# RST-3


def _works(file: DeviceFile) -> None:
    with edu_of(file) as registers:
        assert registers.inverted(0) == 0xFFFF_FFFF


def _message_address(hands: Process, device: Device) -> int:
    """Where edu's MSI address stands in config space; only a reset clears what is written there,
    because the kernel restores no MSI that is not in use."""
    return place_of(partial(device.config, hands), MSI) + 4


@contextmanager
def _marked(hands: Process, *devices: Device) -> Iterator[Callable[[], list[bool]]]:
    """Devices with a mark that a reset wipes off; asked, whether each still has it."""
    places = [(device, _message_address(hands, device)) for device in devices]
    for device, place in places:
        with hands.open(f"{device.sysfs}/config") as config:
            config.pwrite(MARK.to_bytes(4, "little"), place)

    def marks() -> list[bool]:
        return [device.config(hands, place, 4) == MARK for device, place in places]

    try:
        assert all(marks())
        yield marks
    finally:
        for device, place in places:
            with hands.open(f"{device.sysfs}/config") as config:
                config.pwrite(bytes(4), place)


@contract("RST-3")
def test_owner_may_reset(process: Process, hands: Process, resettable: Device, mode: Mode) -> None:
    """The device is reset, and what the user had set up is there afterwards."""
    with (
        open_device(process, resettable, mode) as opened,
        _marked(hands, resettable) as marks,
    ):
        opened.device.enable_dma()
        opened.device.hot_reset(_mine(opened))
        assert marks() == [False]
        assert PciCommand.MASTER in opened.device.command
        _works(opened.device)


@contextmanager
def _opened_as_well(process: Process, device: Device, first: Opened) -> Iterator[None]:
    """Another device of a group that is owned, with its owner's help."""
    if first.group:
        with first.group.get_device(device.address):
            yield
    else:
        assert isinstance(first.space, Ioas)
        with device.open_cdev(process) as cdev:
            cdev.bind(first.space.iommufd)
            yield


@contract("RST-3")
def test_whole_bus_must_be_the_callers(
    process: Process,
    hands: Process,
    sibling: Device,
    other_sibling: Device,
    rng: Device,
    mode: Mode,
) -> None:
    """vfio_pci_dev_set_resettable(): no reset of a device that no vfio driver has, wherever on the
    bus it is; vfio_pci_dev_set_needs_reset(): none by the close of a device while its sibling is in
    use. When all is the caller's, all of it is reset."""
    with ExitStack() as stack:
        stack.enter_context(rng.driven_by(hands, None))
        opened = stack.enter_context(open_device(process, sibling, mode))
        marks = stack.enter_context(_marked(hands, sibling, other_sibling))
        with raises_errno(EINVAL):
            opened.device.hot_reset(_mine(opened))
        assert marks() == [True, True]
        with rng.driven_by(hands, VFIO_PCI):
            with other_sibling.driven_by(hands, None), raises_errno(EINVAL):
                opened.device.hot_reset(_mine(opened))
            with _opened_as_well(process, other_sibling, opened):
                pass
            assert marks() == [True, True]
            opened.device.hot_reset(_mine(opened))
        assert marks() == [False, False]
        _works(opened.device)


@contract("RST-3")
def test_close_resets_a_bus_that_nobody_uses(
    process: Process,
    hands: Process,
    sibling: Device,
    other_sibling: Device,
    rng: Device,
    mode: Mode,
) -> None:
    """vfio_pci_dev_set_try_reset(): what the last user leaves in a device that cannot be reset
    alone goes with its bus, as soon as vfio drivers have all that is on it and nobody any."""
    with rng.driven_by(hands, VFIO_PCI), _marked(hands, sibling, other_sibling) as marks:
        with open_device(process, sibling, mode) as opened:
            with _opened_as_well(process, other_sibling, opened):
                pass
            assert marks() == [True, True]
        assert marks() == [False, False]


@contract("RST-1")
def test_open_and_close_reset_a_device_that_can_be_reset_alone(
    process: Process, hands: Process, resettable: Device, mode: Mode
) -> None:
    """vfio_pci_core_enable(), and vfio_pci_core_disable(), which takes the bus where the device by
    itself fails: nobody meets what another has left."""
    with _marked(hands, resettable) as marks, open_device(process, resettable, mode):
        assert marks() == [False]
    with ExitStack() as stack:
        opened = stack.enter_context(open_device(process, resettable, mode))
        with _marked(hands, resettable) as marks:
            opened.device.info()
            stack.close()
            assert marks() == [False]


@contract("RST-3")
def test_reset_of_the_other_flow_is_refused(
    process: Process, hands: Process, resettable: Device, mode: Mode
) -> None:
    """vfio_pci_ioctl_pci_hot_reset(): an empty array is for cdevs, and any other is not."""
    with (
        open_device(process, resettable, mode) as opened,
        _marked(hands, resettable) as marks,
    ):
        with raises_errno(EINVAL):
            opened.device.hot_reset([] if opened.group else [opened.device.fd])
        assert marks() == [True]
        opened.device.hot_reset(_mine(opened))
        assert marks() == [False]


@contract("RST-3", *GROUP_MODES)
def test_only_the_groups_that_are_touched_count(
    process: Process, hands: Process, resettable: Device, edu: Device, mode: Mode
) -> None:
    """vfio_dev_in_groups(), vfio_file_is_group(): a foreign group, no group, one too many."""
    with (
        open_device(process, resettable, mode) as opened,
        edu.open_group(process) as foreign,
        _marked(hands, resettable) as marks,
    ):
        mine = _mine(opened)
        with process.eventfd() as file:
            closed = file.fd
        for wrong, errno in (
            ([foreign.fd], EINVAL),
            ([opened.device.fd], EINVAL),
            ([closed], EBADF),
            (mine * 2, EINVAL),
        ):
            with raises_errno(errno):
                opened.device.hot_reset(wrong)
        assert marks() == [True]
        opened.device.hot_reset(mine)
        assert marks() == [False]


@contract("RST-3")
def test_malformed_reset_is_refused(process: Process, resettable: Device, mode: Mode) -> None:
    """A flag, and a size that does not hold the header."""
    with open_device(process, resettable, mode) as opened:
        groups = b"".join(fd.to_bytes(4, "little") for fd in _mine(opened))
        for wrong in ({"flags": 1}, {"argsz": 11}):
            head = VfioPciHotReset(
                **{"argsz": 12 + len(groups), "count": len(groups) // 4, **wrong}
            )
            with raises_errno(EINVAL):
                opened.device.call(DeviceRequest.VFIO_DEVICE_PCI_HOT_RESET, bytes(head) + groups)
        opened.device.hot_reset(_mine(opened))
