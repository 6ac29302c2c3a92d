# SPDX-License-Identifier: GPL-2.0-only
"""What kmemleak tells, and when it is asked."""

import pytest

from lab.condition.leaks import EVERY, Leaks, Object

# mm/kmemleak.c: print_unreferenced(), as 6.12 has it.
REPORT = """\
unreferenced object 0xffff888004a5e300 (size 192):
  comm "agent", pid 66, jiffies 4294672000
  hex dump (first 32 bytes):
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
    00 e3 a5 04 80 88 ff ff 00 e3 a5 04 80 88 ff ff  ................
  backtrace (crc 5e2fe2f0):
    __kmalloc_cache_noprof+0x264/0x2c0
    iommufd_fops_open+0x3f/0x110
    misc_open+0x130/0x160
unreferenced object 0xffff888004a5e400 (size 96):
  comm "kworker/0:1", pid 9, jiffies 4294670000
  hex dump (first 32 bytes):
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace (crc 0):
    __kmalloc_noprof+0x1/0x2c0
    vfio_df_open+0x3f/0x110
"""
FIRST, SECOND = 4294672000, 4294670000  # jiffies of 4 ms


def hundredths(jiffies: int, seconds: float) -> int:
    """So many seconds after these jiffies, as times(2) has it."""
    return int(jiffies * 4 / 10 + seconds * 100)


class Asked(Leaks):
    """One whose guest is a report, and whose clock is set by hand."""

    _jiffy = 4_000_000  # ns

    def __init__(self, report: str, ready: int = 0) -> None:
        self.scans = 0
        self.time = ready
        self._report = report
        self._there = True
        self._ends = [(ready, "nobody's test")]
        self._unseen = 0

    def _now(self) -> int:
        return self.time

    def _scan(self) -> str:
        self.scans += 1
        return self._report


def test_objects_are_told_apart() -> None:
    first, second = Object.all_in(REPORT)
    assert f"{first.text}\n{second.text}\n" == REPORT
    assert (first.size, first.jiffies, first.comm, first.pid) == (192, 4294672000, "agent", 66)
    assert first.title == "memory leak in iommufd_fops_open"
    assert second.title == "memory leak in vfio_df_open"
    assert Object.all_in("") == []


def test_a_leak_is_charged_to_the_test_that_ran() -> None:
    leaks = Asked(REPORT, ready=hundredths(SECOND, 1))
    for seconds, name in ((-4, "a"), (-1, "b"), (0, "c"), (1, "d")):
        leaks.time = hundredths(FIRST, seconds)
        assert leaks.after(name, last=False) == []
    (lost,) = leaks.after("e", last=True)  # the other one is older than the guest's first test
    assert leaks.tell(lost) == (
        "memory leak in iommufd_fops_open: 192 bytes that nothing points to, "
        "allocated for agent (66) during c"
    )
    assert leaks.scans == 1


def test_it_is_asked_now_and_then_and_at_the_end() -> None:
    leaks = Asked("")
    for _ in range(2 * EVERY + 1):
        leaks.after("a", last=False)
    assert leaks.scans == 2
    leaks.after("a", last=True)
    assert leaks.scans == 3


def test_what_the_kernel_does_not_say_is_not_made_up() -> None:
    with pytest.raises(ValueError, match="tells of 2 objects, and 1"):
        Object.all_in(REPORT.replace("pid 9, jiffies", "pid 9, age"))
