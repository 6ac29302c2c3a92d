# SPDX-License-Identifier: GPL-2.0-only
"""Guests: QEMU's command line, its process, monitor, console, SSH, and the guest as a whole."""

from lab.guest.accel import Accelerator
from lab.guest.accel import Memory as AcceleratorMemory
from lab.guest.argv import COMMAND_LINE, Boot
from lab.guest.argv import check as check_machine
from lab.guest.faults import DmarFault
from lab.guest.guest import Guest, Hypervisor, boot
from lab.guest.loop import Loop
from lab.guest.qemu import Qemu
from lab.guest.qemu import find as find_qemu

__all__ = [
    "COMMAND_LINE",
    "Accelerator",
    "AcceleratorMemory",
    "Boot",
    "DmarFault",
    "Guest",
    "Hypervisor",
    "Loop",
    "Qemu",
    "boot",
    "check_machine",
    "find_qemu",
]
