# SPDX-License-Identifier: GPL-2.0-only
"""REG-2 and LIFE-3 of registers that the kernel writes when an eventfd is signalled.

Source: drivers/vfio/pci/vfio_pci_rdwr.c, vfio_pci_ioeventfd() and vfio_pci_ioeventfd_handler();
vfio_pci_core.c, vfio_pci_core_disable(), which ends them with the device's last file.
"""

import time
from collections.abc import Callable
from errno import EEXIST, EINVAL, ENODEV, ENOSPC
from struct import pack

from lab.agent.process import Process
from lab.agent.program import Buf, Call, Delay, Imm, Program
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.deadline import Deadline
from lab.testing import contract, raises_errno
from lab.vfio.config import MSIX, place_of
from lab.vfio.device import Device
from lab.vfio.edu import Register
from lab.vfio.files import DeviceFile
from lab.vfio.modes import open_device
from lab.vfio.uapi import DeviceRequest, PciCommand, PciRegion, VfioDeviceIoeventfd

Recorder = Callable[[str, object], None]

SIGNAL = pack("<Q", 1)
VALUE, OTHER, ALL = 0x1234_5678, 0x5A5A_A5A5, 0xFFFF_FFFF
WIDTH = 4  # bytes
MOST = 1000  # VFIO_PCI_IOEVENTFD_MAX
ROUNDS = 16
WANDER = 8_000_000  # nanoseconds; a reset of a bus takes some milliseconds
SOON = 5.0  # seconds in which what is left to another thread is surely done


def _register(file: DeviceFile) -> int:
    """Where edu's liveness register is, which gives back inverted what is written to it."""
    return file.region(PciRegion.VFIO_PCI_BAR0_REGION_INDEX).offset + Register.LIVENESS


def _written(file: DeviceFile) -> int:
    """What was written there last."""
    return ~int.from_bytes(file.pread(WIDTH, _register(file)), "little") & ALL


def _write(file: DeviceFile, value: int) -> None:
    file.pwrite(value.to_bytes(WIDTH, "little"), _register(file))


@contract("REG-2")
def test_signal_writes_to_the_register_until_it_is_told_not_to(
    process: Process, edu: Device, mode: Mode
) -> None:
    """At once, by whoever signals, and only while memory decodes. One eventfd for a value at a
    place: EEXIST; ENODEV for one to be removed that is not there."""
    with open_device(process, edu, mode) as opened, process.eventfd() as event:
        file = opened.device
        file.ioeventfd(_register(file), WIDTH, VALUE, event.fd)
        with raises_errno(EEXIST):
            file.ioeventfd(_register(file), WIDTH, VALUE, event.fd)
        _write(file, OTHER)
        event.write(SIGNAL)
        assert _written(file) == VALUE
        _write(file, OTHER)
        file.command &= ~PciCommand.MEMORY
        event.write(SIGNAL)
        file.command |= PciCommand.MEMORY
        assert _written(file) == OTHER
        event.write(SIGNAL)
        assert _written(file) == VALUE
        _write(file, OTHER)
        file.ioeventfd(_register(file), WIDTH, VALUE, -1)
        event.write(SIGNAL)
        assert _written(file) == OTHER
        with raises_errno(ENODEV):
            file.ioeventfd(_register(file), WIDTH, VALUE, -1)


@contract("REG-2")
def test_each_value_has_an_eventfd_of_its_own(process: Process, edu: Device, mode: Mode) -> None:
    """Place, width and value tell which is meant: the same place with another value is another."""
    with (
        open_device(process, edu, mode) as opened,
        process.eventfd() as first,
        process.eventfd() as second,
    ):
        file = opened.device
        file.ioeventfd(_register(file), WIDTH, VALUE, first.fd)
        file.ioeventfd(_register(file), WIDTH, OTHER, second.fd)
        second.write(SIGNAL)
        assert _written(file) == OTHER
        with raises_errno(ENODEV):
            file.ioeventfd(_register(file), WIDTH, 0, -1)
        file.ioeventfd(_register(file), WIDTH, VALUE, -1)
        first.write(SIGNAL)
        assert _written(file) == OTHER
        _write(file, VALUE)
        second.write(SIGNAL)
        assert _written(file) == OTHER


@contract("REG-2")
def test_signal_writes_all_bytes(process: Process, edu: Device, mode: Mode) -> None:
    """vfio_pci_ioeventfd_do_write() with 8 of them."""
    with open_device(process, edu, mode) as opened, process.eventfd() as event:
        file = opened.device
        place = file.region(PciRegion.VFIO_PCI_BAR0_REGION_INDEX).offset + Register.SOURCE
        value = 0x0123_4567_89AB_CDEF
        file.ioeventfd(place, 8, value, event.fd)
        event.write(SIGNAL)
        assert file.pread(8, place) == value.to_bytes(8, "little")


@contract("REG-2")
def test_signal_that_comes_during_a_reset_writes_after_it(
    process: Process, resettable: Device, mode: Mode, record_property: Recorder
) -> None:
    """vfio_pci_ioeventfd_handler(), "Lock contended, use thread": a reset holds memory_lock. The
    signal wanders from the reset's beginning to beyond its end."""
    with open_device(process, resettable, mode) as opened, process.eventfd() as event:
        file, met = opened.device, 0
        file.ioeventfd(_register(file), WIDTH, VALUE, event.fd)
        reset = Call(Syscall.IOCTL, (Imm(file.fd), Imm(DeviceRequest.VFIO_DEVICE_RESET)))
        signal = Call(Syscall.WRITE, (Imm(event.fd), Buf(SIGNAL, returned=False), Imm(len(SIGNAL))))
        for number in range(ROUNDS):
            _write(file, OTHER)
            late = Delay(number * WANDER // ROUNDS)
            (each,) = process.run(Program(threads=((reset,), (late, signal)))).rounds
            (done,), (_, sent) = each.threads
            assert done.ok
            assert sent.ok
            met += done.start_ns < sent.start_ns and sent.end_ns < done.end_ns
            deadline = Deadline.after(SOON)
            while _written(file) != VALUE:
                assert not deadline.passed, "a lost signal"
                time.sleep(0.01)
    record_property("signals during a reset", met)
    assert met, "no signal met a reset"


@contract("REG-2")
def test_what_is_no_register_of_the_users_is_refused(
    process: Process, igb: Device, mode: Mode
) -> None:
    """EINVAL: config space, the end of a BAR and what crosses it, no width and two, an fd that is
    none, and the table of the vectors, which a write may not reach either."""
    with open_device(process, igb, mode) as opened, process.eventfd() as event:
        file = opened.device
        first = file.region(PciRegion.VFIO_PCI_BAR0_REGION_INDEX)
        config = file.region(PciRegion.VFIO_PCI_CONFIG_REGION_INDEX)
        where = file.config(place_of(file.config, MSIX) + 4, 4)
        table = file.region(where & 7).offset + (where & ~7)
        end = first.offset + first.size
        for offset, width, fd in (
            (config.offset + 4, WIDTH, event.fd),
            (end, WIDTH, event.fd),
            (end - 2, WIDTH, event.fd),
            (first.offset, 0, event.fd),
            (first.offset, WIDTH | 1, event.fd),
            (first.offset, WIDTH << 2, event.fd),
            (first.offset, WIDTH, -2),
            (table, WIDTH, event.fd),
            (table + 16, 8, event.fd),
        ):
            with raises_errno(EINVAL):
                file.ioeventfd(offset, width, VALUE, fd)
        with raises_errno(EINVAL):
            short = VfioDeviceIoeventfd(argsz=27, flags=WIDTH, offset=first.offset, fd=event.fd)
            file.call(DeviceRequest.VFIO_DEVICE_IOEVENTFD, short)
        file.ioeventfd(end - WIDTH, WIDTH, VALUE, event.fd)


@contract("LIFE-3")
def test_next_user_has_the_whole_limit(process: Process, edu: Device, mode: Mode) -> None:
    """`ioeventfds_nr`, VFIO_PCI_IOEVENTFD_MAX: ENOSPC, and what is removed or closed counts no
    longer."""
    with process.eventfd() as event:
        for _ in range(2):
            with open_device(process, edu, mode) as opened:
                file, place = opened.device, _register(opened.device)

                def set_up(value: int, file: DeviceFile = file, place: int = place) -> Call:
                    request = VfioDeviceIoeventfd(
                        flags=WIDTH, offset=place, data=value, fd=event.fd
                    )
                    argument = Buf(bytes(request), returned=False)
                    number = Imm(DeviceRequest.VFIO_DEVICE_IOEVENTFD)
                    return Call(Syscall.IOCTL, (Imm(file.fd), number, argument))

                results = process.batch([set_up(value) for value in range(MOST)])
                assert all(result.ok for result in results)
                with raises_errno(ENOSPC):
                    file.ioeventfd(place, WIDTH, MOST, event.fd)
                file.ioeventfd(place, WIDTH, 0, -1)
                file.ioeventfd(place, WIDTH, MOST, event.fd)


@contract("LIFE-3")
def test_signal_after_the_close_writes_nothing(process: Process, edu: Device, mode: Mode) -> None:
    """Neither while nobody has the device, which keeps its registers because nothing can reset it,
    nor to the next user's, who has set up none."""
    with process.eventfd() as event:
        with open_device(process, edu, mode) as opened:
            opened.device.ioeventfd(_register(opened.device), WIDTH, VALUE, event.fd)
            event.write(SIGNAL)
            assert _written(opened.device) == VALUE
            _write(opened.device, OTHER)
        event.write(SIGNAL)
        with open_device(process, edu, mode) as opened:
            assert _written(opened.device) == OTHER
            event.write(SIGNAL)
            assert _written(opened.device) == OTHER
            opened.device.ioeventfd(_register(opened.device), WIDTH, VALUE, event.fd)
