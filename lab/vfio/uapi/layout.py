# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel's structures and ioctls have in common."""

import ctypes
import re
from typing import ClassVar

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def io(number: int) -> int:
    """An ioctl of VFIO's or iommufd's: `_IO(';', number)`."""
    return (ord(";") << 8) | number


class Layout(ctypes.LittleEndianStructure):
    """A structure of the kernel's; its fields have the kernel's names.

    Where the headers have another, `lab.vfio.drift` says so.
    """

    struct: ClassVar[str] = ""
    """Its name in C, where that is not the same as the class's: VfioIrqSet is vfio_irq_set."""

    @classmethod
    def name_in_c(cls) -> str:
        return cls.struct or _WORD.sub("_", cls.__name__).lower()


class Structure(Layout):
    """A structure whose first member, as the kernel wants, is its own size.

    A size that is given is kept: that is how a test passes a wrong one.
    """

    def __init__(self, **members: int) -> None:
        size = self._fields_[0][0]
        super().__init__(**{size: ctypes.sizeof(self), **members})
