# SPDX-License-Identifier: GPL-2.0-only
"""Blocked DMA, as QEMU's own trace of the virtual IOMMU tells it."""

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(
    rb"^vtd_dmar_fault sid 0x(\w+) fault \d+ addr 0x(\w+) write (\d)\r?$", re.MULTILINE
)


@dataclass(frozen=True)
class DmarFault:
    """A DMA that the virtual IOMMU blocked."""

    requester: int  # bus << 8 | device << 3 | function
    address: int
    write: bool


class FaultLog:
    """What QEMU's log tells of them.

    It is asked after every test, and a guest may have thousands of tests: each byte is read once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0  # bytes, up to the end of a line
        self._found: list[DmarFault] = []

    def since(self, start: int) -> list[DmarFault]:
        """Those there are by now, in order, but for the first `start`."""
        self._go_on()
        return self._found[start:]

    @property
    def count(self) -> int:
        """How many there are by now; a start for `since`."""
        self._go_on()
        return len(self._found)

    def _go_on(self) -> None:
        with self._path.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]  # QEMU may be in the middle of a line
        self._read += len(whole)
        for sid, address, write in _LINE.findall(whole):
            self._found.append(DmarFault(int(sid, 16), int(address, 16), write == b"1"))
