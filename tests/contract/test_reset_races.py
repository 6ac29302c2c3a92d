# SPDX-License-Identifier: GPL-2.0-only
"""RST-1 and RST-3: who touches a device while it is reset waits until it is there again.

Source: drivers/vfio/pci/vfio_pci_core.c: vfio_pci_ioctl_reset() and vfio_pci_dev_set_hot_reset()
hold memory_lock and take the mappings away; vfio_pci_mmap_huge_fault() and vfio_pci_rdwr.c wait for
it. To reset a bus takes milliseconds.
"""

import ctypes
from collections.abc import Callable
from errno import EBUSY

from lab.agent.process import Process
from lab.agent.program import Buf, Call, Delay, Imm, Load, Op, Program
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract
from lab.vfio.device import Device
from lab.vfio.edu import IDENTITY, Register
from lab.vfio.files import DeviceFile
from lab.vfio.modes import open_device
from lab.vfio.uapi import DeviceRequest, PciRegion, VfioPciHotReset

Recorder = Callable[[str, object], None]

ROUNDS = 8
TOUCHES = 60  # in a round, of each kind
BETWEEN = 200_000  # nanoseconds from one to the next


def _is_there_all_the_time(
    process: Process, file: DeviceFile, reset: Call, record: Recorder
) -> None:
    """Each load of a register, and each read, brings what it holds, also those that begin while the
    reset goes on. A hot reset waits for nobody: EBUSY where one is at it just then."""
    place = Imm(file.region(0).offset + Register.IDENTITY)
    read = Call(Syscall.PREAD64, (Imm(file.fd), Buf(size=4), Imm(4), place))
    with file.map_bar(PciRegion.VFIO_PCI_BAR0_REGION_INDEX) as bar:
        load = Load(Imm(bar.address + Register.IDENTITY), 4)
        touch = (load, read, Delay(BETWEEN))
        touches: tuple[Op, ...] = (Delay(BETWEEN), *touch * TOUCHES)
        program = Program(setup=(load,), threads=((reset,), touches), rounds=ROUNDS)
        rounds = process.run(program).rounds
    met = 0
    for (done,), (_, *touched) in (each.threads for each in rounds):
        assert done.errno in {0, EBUSY}
        loads, reads = touched[::3], touched[1::3]
        assert {each.value for each in loads} == {IDENTITY}
        assert {each.data for each in reads} == {IDENTITY.to_bytes(4, "little")}
        if done.ok:
            met += sum(done.start_ns < each.start_ns < done.end_ns for each in (*loads, *reads))
    record("touches during a reset", met)
    assert met, "nobody met a reset"


@contract("RST-1")
def test_register_is_there_while_its_device_is_reset(
    process: Process, resettable: Device, mode: Mode, record_property: Recorder
) -> None:
    """VFIO_DEVICE_RESET."""
    with open_device(process, resettable, mode) as opened:
        file = opened.device
        reset = Call(Syscall.IOCTL, (Imm(file.fd), Imm(DeviceRequest.VFIO_DEVICE_RESET)))
        _is_there_all_the_time(process, file, reset, record_property)


@contract("RST-3")
def test_register_is_there_while_its_bus_is_reset(
    process: Process, resettable: Device, mode: Mode, record_property: Recorder
) -> None:
    """VFIO_DEVICE_PCI_HOT_RESET."""
    with open_device(process, resettable, mode) as opened:
        file, groups = opened.device, [opened.group.fd] if opened.group else []
        fds = b"".join(fd.to_bytes(4, "little") for fd in groups)
        head = VfioPciHotReset(argsz=ctypes.sizeof(VfioPciHotReset) + len(fds), count=len(groups))
        request = Imm(DeviceRequest.VFIO_DEVICE_PCI_HOT_RESET)
        argument = Buf(bytes(head) + fds, returned=False)
        reset = Call(Syscall.IOCTL, (Imm(file.fd), request, argument))
        _is_there_all_the_time(process, file, reset, record_property)
