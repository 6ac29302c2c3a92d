# SPDX-License-Identifier: GPL-2.0-only
"""The calls of a guest's processes as a developer reads them: strace's way, with VFIO's names.

`lab.agent.trace` has them raw. `lines` makes a line of each, `syscalls` and `requests` know what
the arguments mean, `process` follows which fd is which file, and `values` writes numbers.
"""

import re
from collections.abc import Iterable

from lab.agent.trace import Recording
from lab.vfio.trace.lines import Line, Reader, host_clock

_TESTED = "Calls of the processes under test"
_COLUMN = 20  # where a call begins in its line
_TOOK = re.compile(r" <[0-9.]+>$")
_TOLD = re.compile(r'^ioctl\(|^openat\(AT_FDCWD, "/dev/| --- |= \?$')


def readable(recording: Recording, made_ready: Recording, hands: int) -> str:
    """All that was recorded: first the processes under test, then the lab's own, whose PID `hands`
    is, and at last what the lab did to make the guest ready.
    """
    clock = host_clock((*made_ready.events, *recording.events))
    before, during = Reader(made_ready.events, clock), Reader(recording.events, clock)
    found = list(during.lines())
    tested = [line for line in found if line.pid != hands]
    own = [line for line in found if line.pid == hands]
    zero = min((line.seconds for line in tested or own), default=0.0)
    names = {hands: "the lab's own", **before.names, **during.names}
    parts = [
        "\n".join(_head(recording, tested, names, zero)),
        _section(_TESTED, tested, zero),
        _section("The lab's own calls meanwhile", own, zero),
        _section("The lab's own calls when the guest was new", before.lines(), zero),
    ]
    return "\n\n".join(parts) + "\n"


def essence(text: str, most: int) -> list[str]:
    """The last calls under test that are about devices, of what `readable` made, without times:
    ioctls, opens of nodes, and what faulted or was never answered.
    """
    section = next((part for part in text.split("\n\n") if part.startswith(_TESTED)), "")
    calls = [_TOOK.sub("", line[_COLUMN:]) for line in section.splitlines()]
    return [call for call in calls if _TOLD.search(call)][-most:]


def _head(
    recording: Recording, tested: Iterable[Line], names: dict[int, str], zero: float
) -> Iterable[str]:
    yield "Each line: the process and its thread, seconds, the call <how long it took>."
    yield f"0 is {zero:.6f} s of the guest's clock; the times on its console are about the same."
    for pid in dict.fromkeys(line.pid for line in tested):
        yield f"  {pid:>5} {names.get(pid, 'a process under test')}"
    if recording.dropped:
        yield f"The first {recording.dropped} programs were not kept: they took too much room."


def _section(title: str, lines: Iterable[Line], zero: float) -> str:
    shown = [_shown(line, zero) for line in lines]
    return "\n".join([f"{title}:", *(shown or ["  (none)"])])


def _shown(line: Line, zero: float) -> str:
    who = f"{line.pid}.{line.thread}" if line.thread else str(line.pid)
    took = f" <{line.duration:.6f}>" if line.duration is not None else ""
    text = f"{who:>7} {line.seconds - zero:11.6f} {line.text}{took}"
    if line.times > 1:
        text += f"\n{'':19} ... {line.times} times in a row, the last at {line.last - zero:.6f}"
    return text
