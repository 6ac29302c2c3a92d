# SPDX-License-Identifier: GPL-2.0-only
"""VFIO_DEVICE_SET_IRQS in every form, and the events that come of it."""

import ctypes
from collections.abc import Sequence
from select import POLLIN
from struct import pack, unpack

from lab.agent.file import RemoteFile
from lab.agent.syscalls import Syscall
from lab.vfio.files import DeviceFile
from lab.vfio.uapi import DeviceRequest, IrqSetFlag, PciIrq, VfioIrqSet

SOON = 2000  # milliseconds within which an event comes
NEVER = 100  # milliseconds in which none came; one that does comes within two


def set_raw(file: DeviceFile, head: VfioIrqSet, data: bytes = b"") -> None:
    """SET_IRQS with whatever stands in its argument."""
    file.call(DeviceRequest.VFIO_DEVICE_SET_IRQS, bytes(head) + data)


def set_bools(
    file: DeviceFile, index: PciIrq, action: IrqSetFlag, values: Sequence[bool], *, start: int = 0
) -> None:
    """SET_IRQS with DATA_BOOL."""
    head = VfioIrqSet(
        argsz=ctypes.sizeof(VfioIrqSet) + len(values),
        flags=IrqSetFlag.VFIO_IRQ_SET_DATA_BOOL | action,
        index=index,
        start=start,
        count=len(values),
    )
    set_raw(file, head, bytes(values))


def events_of(eventfd: RemoteFile, wait: int = SOON) -> int:
    """How many events came; 0 when none did within `wait` milliseconds."""
    pollfd = bytearray(pack("<ihh", eventfd.fd, POLLIN, 0))
    if not eventfd.process.syscall(Syscall.POLL, pollfd, 1, wait):
        return 0
    return int(unpack("<Q", eventfd.read(8))[0])
