# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's log is read once, however often it is asked for blocked DMA."""

from pathlib import Path

import pytest

from lab.guest.faults import DmarFault, FaultLog

FIRST = b"vtd_dmar_fault sid 0x18 fault 5 addr 0x101000 write 1\n"
SECOND = b"vtd_dmar_fault sid 0x300 fault 6 addr 0xfee00000 write 0\n"
OTHER = b"qemu-system-x86_64: warning: vtd_dmar_fault is a trace event\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "qemu.log"
    found.touch()
    return found


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as log:
        log.write(data)


def test_each_fault_is_told_in_its_order(path: Path) -> None:
    log = FaultLog(path)
    assert (log.count, log.since(0)) == (0, [])
    _append(path, OTHER + FIRST + OTHER)
    assert log.since(0) == [DmarFault(0x18, 0x101000, True)]
    _append(path, SECOND)
    assert log.count == 2
    assert log.since(1) == [DmarFault(0x300, 0xFEE0_0000, False)]
    assert log.since(2) == []


@pytest.mark.parametrize("cut", range(1, len(FIRST)))
def test_a_line_that_is_still_written_is_read_when_it_is_whole(path: Path, cut: int) -> None:
    log = FaultLog(path)
    _append(path, SECOND + FIRST[:cut])
    assert log.count == 1
    _append(path, FIRST[cut:])
    assert log.since(1) == [DmarFault(0x18, 0x101000, True)]


def test_what_was_read_is_not_read_again(path: Path) -> None:
    log = FaultLog(path)
    _append(path, FIRST)
    assert log.count == 1
    path.write_bytes(b"x" * len(FIRST) + SECOND)
    assert log.count == 2
