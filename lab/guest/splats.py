# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel says on its console when something is wrong with it."""

import re
from dataclasses import dataclass

_TIME = r"^\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? "
_SIGNATURES = re.compile(
    _TIME + r"(?P<title>"
    r"(?:kernel )?BUG[: ].*"
    r"|Oops: .*"
    r"|general protection fault.*"
    r"|[a-z].*: [0-9a-f]{4} \[#\d+\].*"  # "divide error: 0000 [#1] SMP", before 6.11 without Oops
    r"|WARNING: .*"
    r"|UBSAN: .*"
    r"|refcount_t: .*"
    r"|list_(?:add|del) corruption.*"
    r"|(?:NMI )?watchdog: (?:BUG: .*|.*LOCKUP.*)"
    r"|INFO: task .* blocked for more than .*"
    r"|rcu: INFO: .*stall.*"
    r"|Kernel panic - not syncing: .*"
    r")$",
    re.MULTILINE,
)
_END = re.compile(_TIME + r"---\[ end .*\]---$", re.MULTILINE)
# What differs between two boots, or two kernels, that say the same.
_PASSING = re.compile(
    r"(?:CPU: \d+ PID: \d+(?: Comm: \S+)? at )|(?<=[\w.]):\d+\b|\+0x[0-9a-f]+/0x[0-9a-f]+"
    r"|(?:0x)?\b[0-9a-f]{8,}\b|(?<=#)\d+|(?<=for more than )\d+|(?<=stuck for )\d+"
)
_LONGEST = 60  # lines of a report that has no end


@dataclass(frozen=True)
class Splat:
    """One report of the kernel's: its first line, and all of it."""

    title: str
    text: str

    @property
    def kind(self) -> str:
        """The title without numbers that change from boot to boot or from build to build."""
        return " ".join(_PASSING.sub("", self.title).split())


def find(console: str) -> list[Splat]:
    """The reports in a piece of console, in order; lines inside a report are no new one."""
    found: list[Splat] = []
    position = 0
    while match := _SIGNATURES.search(console, position):
        end = _END.search(console, match.end())
        following = console[match.start() :].splitlines(keepends=True)[:_LONGEST]
        stop = match.start() + sum(map(len, following))
        if end:
            stop = min(stop, end.end())
        found.append(Splat(match["title"].strip(), console[match.start() : stop].rstrip()))
        position = stop
    return found
