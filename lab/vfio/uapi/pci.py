# SPDX-License-Identifier: GPL-2.0-only
"""include/uapi/linux/pci_regs.h, in the lab's own words."""

from enum import IntFlag


class PciCommand(IntFlag):
    """Bits of a PCI device's command register, at offset 4 of configuration space."""

    IO = 1
    MEMORY = 2
    MASTER = 4
    INTX_DISABLE = 0x400


PCI_COMMAND = 4
"""Offset of the command register."""
