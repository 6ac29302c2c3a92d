# SPDX-License-Identifier: GPL-2.0-only
"""The chains of capabilities in config space, read as the user or as the hardware has them."""

from collections.abc import Callable

POWER, MSI, EXPRESS, MSIX = 0x01, 0x05, 0x10, 0x11
AER, SRIOV = 0x01, 0x10  # extended ones

_FIRST = 0x34  # where the place of the first one stands
_EXTENDED = 256  # where the first extended one does

Read = Callable[[int, int], int]
"""`width` bytes at an offset: `DeviceFile.config`, or `Device.config` of some process."""


def capabilities(read: Read) -> dict[int, int]:
    """What stands where. Raises AssertionError for a chain that comes back."""
    found: dict[int, int] = {}
    place = read(_FIRST, 1)
    while place:
        assert place not in found, f"the chain comes back to {place:#x}"
        found[place] = read(place, 1)
        place = read(place + 1, 1)
    return found


def extended_capabilities(read: Read) -> dict[int, int]:
    """The same of the chain behind conventional config space."""
    found: dict[int, int] = {}
    place = _EXTENDED
    while place:
        assert place not in found, f"the chain comes back to {place:#x}"
        assert place % 4 == 0, f"the chain goes on at {place:#x}"
        header = read(place, 4)
        found[place], place = header & 0xFFFF, header >> 20
    return found


def place_of(read: Read, capability: int) -> int:
    """Where the one capability of this kind stands."""
    (place,) = [place for place, each in capabilities(read).items() if each == capability]
    return place
