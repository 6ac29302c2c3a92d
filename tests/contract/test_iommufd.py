# SPDX-License-Identifier: GPL-2.0-only
"""IOAS: the objects of an iommufd, and what a bound device is attached to.

Source: drivers/vfio/iommufd.c, drivers/iommu/iommufd/device.c and drivers/iommu/iommufd/ioas.c.
"""

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EADDRINUSE, EBUSY, EFAULT, EINVAL, EMSGSIZE, ENOENT, EOPNOTSUPP
from mmap import PROT_READ

import pytest

from lab.agent.agent import Argument
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm
from lab.agent.syscalls import Syscall
from lab.config import Machine
from lab.contract import Mode
from lab.testing import contract, not_applicable, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import edu_of
from lab.vfio.files import Cdev, Iommufd
from lab.vfio.uapi import (
    BindFlag,
    DeviceRequest,
    HwptFlag,
    IommufdRequest,
    IommuHwptAlloc,
    IommuIoasIovaRanges,
    VfioDeviceAttachIommufdPt,
    VfioDeviceBindIommufdToken,
    VfioDeviceDetachIommufdPt,
)

IOVA = 0x10_0000
MSI_WINDOW = (0xFEE0_0000, 0xFEEF_FFFF)
NO_OBJECT = 0xFFFF
ATTACH = DeviceRequest.VFIO_DEVICE_ATTACH_IOMMUFD_PT
DETACH = DeviceRequest.VFIO_DEVICE_DETACH_IOMMUFD_PT
SYSPATH = "vfio-device-syspath"
EVERYTHING = [(0, 2**64 - 1)]


@contextmanager
def _bound(process: Process, device: Device) -> Iterator[tuple[Iommufd, Cdev, int]]:
    """An iommufd, a file that is bound to it, and the device's id there."""
    with Iommufd.open(process, Iommufd.PATH) as iommufd, device.open_cdev(process) as cdev:
        yield iommufd, cdev, cdev.bind(iommufd)


@contract("IOAS-1", Mode.IOMMUFD)
def test_attach_takes_an_ioas(process: Process, edu: Device) -> None:
    """device.c: iommufd_device_change_pt(). An unknown id, a device's id, an unknown flag."""
    with _bound(process, edu) as (iommufd, cdev, device):
        ioas = iommufd.ioas_alloc()
        with raises_errno(ENOENT):
            cdev.attach(NO_OBJECT)
        with raises_errno(EINVAL):
            cdev.attach(device)
        request = VfioDeviceAttachIommufdPt(flags=1 << 31, pt_id=ioas)
        with raises_errno(EINVAL):
            cdev.call(ATTACH, request)
        iommufd.destroy(ioas)
        ioas = iommufd.ioas_alloc()
        cdev.attach(ioas)


@contract("IOAS-1", Mode.IOMMUFD)
def test_attach_tells_the_page_table(process: Process, edu: Device) -> None:
    """vfio_df_ioctl_attach_pt(): the id that comes back is that of the page table over the IOAS,
    which is in use and can be attached to as well."""
    with _bound(process, edu) as (iommufd, cdev, device):
        ioas = iommufd.ioas_alloc()
        request = VfioDeviceAttachIommufdPt(pt_id=ioas)
        cdev.call(ATTACH, request)
        assert request.pt_id not in (ioas, device)
        with raises_errno(EBUSY):
            iommufd.destroy(request.pt_id)
        cdev.attach(request.pt_id)


@contract("IOAS-1", Mode.IOMMUFD)
def test_bad_argument_of_attach_and_detach_changes_nothing(process: Process, edu: Device) -> None:
    """vfio_df_ioctl_attach_pt() and vfio_df_ioctl_detach_pt(): too small an argsz, NULL, a flag;
    and a page that is read-only, where ATTACH fails after the device was attached."""
    with _bound(process, edu) as (iommufd, cdev, _), process.mmap(process.page_size) as page:
        ioas = iommufd.ioas_alloc()
        page.write(0, bytes(VfioDeviceAttachIommufdPt(pt_id=ioas)))
        process.syscall(Syscall.MPROTECT, page.address, page.length, PROT_READ)
        attaches: tuple[tuple[Argument, int], ...] = (
            (VfioDeviceAttachIommufdPt(argsz=11, pt_id=ioas), EINVAL),
            (0, EFAULT),
            (page.address, EFAULT),
        )
        for argument, errno in attaches:
            with raises_errno(errno):
                cdev.call(ATTACH, argument)
            assert iommufd.iova_ranges(ioas) == EVERYTHING
        cdev.attach(ioas)
        detaches: tuple[tuple[Argument, int], ...] = (
            (VfioDeviceDetachIommufdPt(argsz=7), EINVAL),
            (VfioDeviceDetachIommufdPt(flags=1 << 31), EINVAL),
            (0, EFAULT),
        )
        for argument, errno in detaches:
            with raises_errno(errno):
                cdev.call(DETACH, argument)
            assert len(iommufd.iova_ranges(ioas)) == 2
        cdev.detach_pt()
        assert iommufd.iova_ranges(ioas) == EVERYTHING


@contract("IOAS-2", Mode.IOMMUFD)
def test_attach_replaces_and_detach_repeats(process: Process, edu: Device) -> None:
    """After an ATTACH to another IOAS the device uses that one, at the same IOVA."""
    with (
        _bound(process, edu) as (iommufd, cdev, _),
        process.mmap(4096) as first,
        process.mmap(4096) as second,
        edu_of(cdev) as registers,
    ):
        spaces = [iommufd.ioas_alloc(), iommufd.ioas_alloc()]
        for ioas, page, text in zip(spaces, (first, second), (b"first", b"other"), strict=True):
            page.write(0, text)
            iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        cdev.attach(spaces[0])
        cdev.attach(spaces[0])
        cdev.enable_dma()
        registers.copy_in(IOVA, 5)
        cdev.attach(spaces[1])
        registers.copy_out(IOVA + 64, 5)
        assert (first.read(64, 5), second.read(64, 5)) == (bytes(5), b"first")
        iommufd.destroy(spaces[0])
        cdev.detach_pt()
        cdev.detach_pt()
        iommufd.destroy(spaces[1])


@contract("IOAS-2", Mode.IOMMUFD)
def test_failed_replace_changes_nothing(process: Process, edu: Device) -> None:
    """device.c: iommufd_device_replace(), "If it fails then no change is made"."""
    with (
        _bound(process, edu) as (iommufd, cdev, device),
        process.mmap(4096) as page,
        edu_of(cdev) as registers,
    ):
        ioas = iommufd.ioas_alloc()
        iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        cdev.attach(ioas)
        with raises_errno(ENOENT):
            cdev.attach(NO_OBJECT)
        with raises_errno(EINVAL):
            cdev.attach(device)
        page.write(0, b"as before")
        cdev.enable_dma()
        registers.copy_in(IOVA, 9)
        registers.copy_out(IOVA + 64, 9)
        assert page.read(64, 9) == b"as before"


@contract("IOAS-2", Mode.IOMMUFD)
@pytest.mark.parametrize("attached", [False, True], ids=["attach", "replace"])
def test_attach_that_cannot_be_finished_holds_nothing(
    process: Process, edu: Device, attached: bool
) -> None:
    """device.c: iommufd_device_auto_get_domain(), `out_abort`: the IOAS has a mapping where the
    device's MSI window is, and the page table that was to be its first one goes again."""
    with _bound(process, edu) as (iommufd, cdev, _), process.mmap(4096) as page:
        before, wanted = iommufd.ioas_alloc(), iommufd.ioas_alloc()
        iommufd.ioas_map(wanted, MSI_WINDOW[0], page.address, page.length)
        if attached:
            cdev.attach(before)
        with raises_errno(EADDRINUSE):
            cdev.attach(wanted)
        assert (len(iommufd.iova_ranges(before)) == 2) == attached
        iommufd.ioas_unmap(wanted, MSI_WINDOW[0], page.length)
        assert iommufd.iova_ranges(wanted) == EVERYTHING
        iommufd.destroy(wanted)
        cdev.attach(before)


@contract("IOAS-2", Mode.IOMMUFD)
def test_what_a_device_reserves_goes_with_it(process: Process, edu: Device) -> None:
    """device.c: iommufd_device_do_replace() and iommufd_hw_pagetable_detach(): an IOAS that the
    device has left may be mapped where that device's MSI window was.

    Its page table goes, too, and with it the end of the addresses.
    """
    with _bound(process, edu) as (iommufd, cdev, _):
        spaces = [iommufd.ioas_alloc(), iommufd.ioas_alloc()]
        cdev.attach(spaces[0])
        cdev.attach(spaces[1])
        assert iommufd.iova_ranges(spaces[0]) == EVERYTHING
        assert len(iommufd.iova_ranges(spaces[1])) == 2
        cdev.detach_pt()
        assert iommufd.iova_ranges(spaces[1]) == EVERYTHING


@contract("IOAS-2", Mode.IOMMUFD)
def test_what_another_device_reserves_stays(
    process: Process, edu: Device, resettable: Device
) -> None:
    """io_pagetable.c: __iopt_remove_reserved_iova() takes what is its owner's and nothing else."""
    with (
        _bound(process, edu) as (iommufd, cdev, _),
        resettable.open_cdev(process) as other,
        process.mmap(4096) as page,
    ):
        other.bind(iommufd)
        ioas = iommufd.ioas_alloc()
        cdev.attach(ioas)
        other.attach(ioas)
        ranges = iommufd.iova_ranges(ioas)
        cdev.detach_pt()
        assert iommufd.iova_ranges(ioas) == ranges
        with raises_errno(EINVAL):
            iommufd.ioas_map(ioas, MSI_WINDOW[0], page.address, page.length)
        other.detach_pt()
        assert iommufd.iova_ranges(ioas) == EVERYTHING


@contract("IOAS-3", Mode.IOMMUFD)
def test_page_table_that_the_kernel_made_is_not_destroyed(process: Process, edu: Device) -> None:
    """ATTACH to an IOAS answers with its id; it goes with the last device, and the IOAS can."""
    with _bound(process, edu) as (iommufd, cdev, _):
        ioas = iommufd.ioas_alloc()
        table = cdev.attach(ioas)
        assert table != ioas
        for used in (ioas, table):
            with raises_errno(EBUSY):
                iommufd.destroy(used)
        cdev.detach_pt()
        with raises_errno(ENOENT):
            iommufd.destroy(table)
        iommufd.destroy(ioas)


@contract("IOAS-3", Mode.IOMMUFD)
def test_what_is_in_use_is_not_destroyed(process: Process, edu: Device) -> None:
    """EBUSY for the device, the IOAS and its page table, and the device works on."""
    with (
        _bound(process, edu) as (iommufd, cdev, device),
        process.mmap(4096) as page,
        edu_of(cdev) as registers,
    ):
        ioas = iommufd.ioas_alloc()
        table = iommufd.hwpt_alloc(device, ioas)
        cdev.attach(table)
        for used in (device, ioas, table):
            with raises_errno(EBUSY):
                iommufd.destroy(used)
        iommufd.ioas_map(ioas, IOVA, page.address, page.length)
        page.write(0, b"in use")
        cdev.enable_dma()
        registers.copy_in(IOVA, 6)
        registers.copy_out(IOVA + 64, 6)
        assert page.read(64, 6) == b"in use"
        cdev.detach_pt()
        iommufd.destroy(table)
        iommufd.destroy(ioas)


@contract("IOAS-4", Mode.IOMMUFD)
def test_iova_ranges_spare_the_msi_window(process: Process, edu: Device, machine: Machine) -> None:
    """iopt_table_enforce_dev_resv_regions(). Before the first attach everything is allowed.

    The top is 2^n - 1, n being what the virtual IOMMU can translate.
    """
    assert machine.iommu
    with _bound(process, edu) as (iommufd, cdev, _):
        ioas = iommufd.ioas_alloc()
        assert iommufd.iova_ranges(ioas) == EVERYTHING
        cdev.attach(ioas)
        ranges = iommufd.iova_ranges(ioas)
        assert len(ranges) == 2, f"the MSI window is not spared: {ranges}"
        low, high = ranges
        assert low == (0, MSI_WINDOW[0] - 1)
        assert high == (MSI_WINDOW[1] + 1, 2**machine.iommu.iova_width - 1)
        assert iommufd.iova_ranges(ioas, room=2) == [low, high]
        for room in (0, 1):
            request = IommuIoasIovaRanges(ioas_id=ioas, num_iovas=room)
            with process.mmap(4096) as memory, raises_errno(EMSGSIZE):
                request.allowed_iovas = memory.address
                iommufd.call(IommufdRequest.IOMMU_IOAS_IOVA_RANGES, request)
            assert request.num_iovas == 2, "nobody says how many there are"


@contract("IOAS-5", Mode.IOMMUFD)
@pytest.mark.parametrize("flag", HwptFlag)
def test_page_table_that_the_iommu_lacks_is_refused(
    process: Process, edu: Device, flag: HwptFlag
) -> None:
    """EOPNOTSUPP without scalable mode, and with it, as QEMU's has neither nesting nor dirty bits
    (ecap_nest(), ecap_slads()); a plain one is given."""
    with _bound(process, edu) as (iommufd, _, device):
        ioas = iommufd.ioas_alloc()
        with raises_errno(EOPNOTSUPP):
            iommufd.hwpt_alloc(device, ioas, flag)
        iommufd.destroy(iommufd.hwpt_alloc(device, ioas))
        iommufd.destroy(ioas)  # what was refused holds nothing


@contract("IOAS-5", Mode.IOMMUFD)
def test_page_table_that_nobody_is_told_of_is_not_made(process: Process, edu: Device) -> None:
    """hw_pagetable.c: iommufd_hwpt_alloc(), `out_hwpt`: where its id cannot be written it goes
    again, and nothing is left of it in the IOAS."""
    with _bound(process, edu) as (iommufd, _, device), process.mmap(process.page_size) as page:
        ioas = iommufd.ioas_alloc()
        page.write(0, bytes(IommuHwptAlloc(dev_id=device, pt_id=ioas)))
        process.syscall(Syscall.MPROTECT, page.address, page.length, PROT_READ)
        with raises_errno(EFAULT):
            iommufd.call(IommufdRequest.IOMMU_HWPT_ALLOC, page.address)
        assert iommufd.iova_ranges(ioas) == EVERYTHING
        iommufd.destroy(ioas)


@contract("IOAS-6", Mode.IOMMUFD)
@pytest.mark.parametrize("null", [False, True], ids=["token", "NULL"])
def test_token_is_refused_on_a_device_without_sriov(
    process: Process,
    edu: Device,
    release: tuple[int, int],
    record_property: Callable[[str, object], None],
    null: bool,
) -> None:
    """EINVAL from vfio_pci_validate_vf_token(), and EFAULT for NULL, which never gets there.

    To a kernel before 6.17 the flag is an unknown one: EINVAL both, which a backport may mend.
    """
    mended = release >= (6, 17)
    expected = [EFAULT] if null else [EINVAL]
    if not mended:
        expected.append(EINVAL)
    with (
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        edu.open_cdev(process) as cdev,
        process.mmap(process.page_size) as token,
    ):
        request = VfioDeviceBindIommufdToken(
            flags=BindFlag.VFIO_DEVICE_BIND_FLAG_TOKEN,
            iommufd=iommufd.fd,
            token_uuid_ptr=0 if null else token.address,
        )
        bind = Imm(DeviceRequest.VFIO_DEVICE_BIND_IOMMUFD)
        call = Call(Syscall.IOCTL, (Imm(cdev.fd), bind, Buf(bytes(request))))
        answer = process.batch([call])[0].errno
        assert answer in expected
        if answer == EFAULT and not mended:
            record_property("mended", "EFAULT, as from 6.17 on")
        with raises_errno(EINVAL):
            cdev.info()
        cdev.bind(iommufd)


@contract("IOAS-7", Mode.IOMMUFD)
def test_fdinfo_names_the_device(process: Process, edu: Device, release: tuple[int, int]) -> None:
    """vfio_main.c: vfio_device_show_fdinfo() (6.18). Parked, and bound."""
    with Iommufd.open(process, Iommufd.PATH) as iommufd, edu.open_cdev(process) as cdev:
        parked = _fdinfo(cdev)
        cdev.bind(iommufd)
        bound = _fdinfo(cdev)
    if release < (6, 18) and SYSPATH not in parked:
        raise not_applicable("the fdinfo of this kernel does not name the device: 6.18 does")
    (path,) = {parked[SYSPATH], bound[SYSPATH]}
    assert path.startswith("/sys/devices/")
    assert posixpath.basename(path) == edu.address


def _fdinfo(file: Cdev) -> dict[str, str]:
    """What /proc says of an open file."""
    text = file.process.read_text(f"/proc/self/fdinfo/{file.fd}")
    pairs = (line.split(":", 1) for line in text.splitlines())
    return {name: value.strip() for name, value in pairs}
