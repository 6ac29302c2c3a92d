# SPDX-License-Identifier: GPL-2.0-only
"""Memory that nothing in the kernel points to any more: CONFIG_DEBUG_KMEMLEAK.

A scan takes seconds, and tells of no memory that is younger than five (mm/kmemleak.c,
MSECS_MIN_AGE), so it is not done after each test. When one finds something, it is charged to the
test during which the memory was allocated, by the kernel's own clock: jiffies, which stand still
where a busy host lets the guest miss ticks, and which user space is told by times(2).
"""

import re
import struct
import time
from dataclasses import dataclass
from functools import cached_property

from lab.agent.calls import write_file
from lab.agent.errors import RemoteError, check
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm
from lab.agent.syscalls import Syscall
from lab.condition.asking import ask, exists
from lab.errors import InfrastructureError
from lab.splats import find

NAME = "kmemleak"
NEEDS = "CONFIG_DEBUG_KMEMLEAK"
EVERY = 100  # tests
_FILE = "/sys/kernel/debug/kmemleak"
_YOUNG = 5.2  # seconds, and a bit
_SCAN = 120.0  # seconds at the most, for an emulated CPU
_COARSE = 6  # CLOCK_MONOTONIC_COARSE, include/uapi/linux/time.h: its resolution is a jiffy
_TIMESPEC = struct.Struct("<QQ")
_CLOCK_T = 10_000_000  # ns: USER_HZ is 100 on x86_64
_OBJECT = re.compile(
    r"^unreferenced object 0x[0-9a-f]+ \(size (?P<size>\d+)\):\n"
    r'  comm "(?P<comm>.*)", pid (?P<pid>\d+), jiffies (?P<jiffies>\d+)[^\n]*\n(?:  .*\n?)*',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Object:
    """An object that is lost: the kernel's own words, and what stands in them."""

    text: str
    size: int  # bytes
    jiffies: int  # when it was allocated
    comm: str
    pid: int

    @classmethod
    def all_in(cls, report: str) -> "list[Object]":
        """What stands in a report of kmemleak's. Raises ValueError for one that reads otherwise."""
        found = [
            cls(
                match[0].rstrip(),
                int(match["size"]),
                int(match["jiffies"]),
                match["comm"],
                int(match["pid"]),
            )
            for match in _OBJECT.finditer(report)
        ]
        if (count := report.count("unreferenced object")) != len(found):
            raise ValueError(f"it tells of {count} objects, and {len(found)} can be read")
        return found

    @property
    def title(self) -> str:
        """The leak and who allocated it, as `lab.splats` has it."""
        return find(self.text)[0].title


class Leaks:
    """What tests of one guest have lost of its kernel's memory."""

    def __init__(self, hands: Process) -> None:
        """From now on: what was lost before is nobody's. Raises as `Agent.batch` does."""
        self._hands = hands
        self._there = ask(hands, exists(_FILE))
        self._ends = [(self._now(), "nobody's test")] if self._there else []
        self._unseen = 0

    @property
    def there(self) -> bool:
        """Whether this kernel can be asked."""
        return self._there

    def after(self, test: str, *, last: bool) -> list[Object]:
        """A test has ended. What was lost since the guest was new, if this is the time to look:
        after so many tests, and after the `last` one.

        Raises InfrastructureError where kmemleak does not work, GuestLost, AgentDied.
        """
        if not self._there:
            return []
        self._ends.append((self._now(), test))
        self._unseen += 1
        if self._unseen < EVERY and not last:
            return []
        self._unseen = 0
        try:
            lost = Object.all_in(self._scan())
        except (RemoteError, ValueError) as error:
            raise InfrastructureError(f"kmemleak does not work: {error}") from error
        return [each for each in lost if self._moment(each) > self._ends[0][0]]

    def tell(self, lost: Object) -> str:
        """In words, with the test during which it was allocated."""
        moment = self._moment(lost)
        _, test = next(each for each in (*self._ends, (moment, "no test")) if moment <= each[0])
        return (
            f"{lost.title}: {lost.size} bytes that nothing points to, "
            f"allocated for {lost.comm} ({lost.pid}) during {test}"
        )

    def _scan(self) -> str:
        """Twice: what changed since the last scan is not told of in this one."""
        time.sleep(_YOUNG)
        for _ in range(2):
            opened, written, _closed = self._hands.batch(write_file(_FILE, b"scan"), timeout=_SCAN)
            check(opened, f"openat {_FILE}")
            check(written, f"write {_FILE}")
        return self._hands.read_text(_FILE)

    def _now(self) -> int:
        """How many hundredths of a second the guest has counted jiffies."""
        return self._hands.syscall(Syscall.TIMES, 0)

    def _moment(self, lost: Object) -> int:
        """The same of an allocation; kernel/time/time.c, jiffies_64_to_clock_t()."""
        return lost.jiffies * self._jiffy // _CLOCK_T

    @cached_property
    def _jiffy(self) -> int:
        """In ns."""
        call = Call(Syscall.CLOCK_GETRES, (Imm(_COARSE), Buf(size=_TIMESPEC.size)))
        seconds, ns = _TIMESPEC.unpack(self._hands.checked(call, "clock_getres").data)
        return int(seconds) * 1_000_000_000 + int(ns)
