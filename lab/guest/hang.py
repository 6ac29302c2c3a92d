# SPDX-License-Identifier: GPL-2.0-only
"""A guest that does not answer is asked where it hangs, before it is killed.

From the mildest to the last: QEMU says what state it is in and where its CPUs are; the kernel
prints its backtraces (`lab.guest.backtraces`) when SysRq asks it over the serial console; an NMI
reaches a CPU that takes no interrupt. The kernel has been told to panic upon an NMI that it did not
expect, so that it prints where it was: that is the guest's end.

All that came is in `hang.log` in the guest's folder.
"""

import contextlib
import re
import subprocess
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.deadline import Deadline
from lab.errors import GuestLost, InfrastructureError
from lab.guest import backtraces
from lab.guest.backtraces import Place
from lab.guest.launch import PANICKED, Running

LOG = "hang.log"
ASKING = 12.0  # seconds for all of it
QMP = 3.0  # seconds; QEMU answers in milliseconds
_HEARD = 3.0  # seconds for the kernel to begin an answer
_AGAIN = 1.0  # seconds until a key is sent again
_SILENCE = 0.1  # seconds
_ANSWER = "sysrq: "  # how each begins
_BETWEEN = 1.0  # seconds between two looks: what waits for its turn has had it
_NAMES = 5.0  # seconds for nm, which takes less than one
_NMI = 4.0  # seconds; so long a panic waits for CPUs that do not stop, and longer under TCG
_CPUS, _BLOCKED, _TASKS, _NOTHING = "l", "w", "t", "h"  # SysRq keys
_INTERRUPTS_ON = 1 << 9  # in RFLAGS
_REGISTERS = re.compile(
    r"^CPU#(?P<cpu>\d+)$.*?^RIP=(?P<ip>[0-9a-f]+) RFL=(?P<flags>[0-9a-f]+).*? CPL=(?P<ring>\d)"
    r".*? HLT=(?P<halted>\d)",
    re.MULTILINE | re.DOTALL,
)
_AT_REST = "do_sys_poll"  # who polls waits because it wants to


@dataclass(frozen=True)
class Hang:
    """What a guest that does not answer was found to do.

    `report` are the kernel's backtraces where the kernel was seen to hang; None where QEMU stands
    still, user space has the CPUs, the kernel does one thing after another, or all CPUs idle.
    `lives` is set in the last case.
    """

    words: str
    report: str | None = None
    lives: bool = False


def ask(running: Running, symbols: Path | None, deadline: Deadline) -> Hang:
    """Ask a guest that does not answer, by all means that there are.

    `symbols` is its vmlinux, to name functions by when only QEMU knows where a CPU is.
    """
    with _Log(running) as log:
        try:
            names = _functions(symbols)
            state = running.monitor.execute("query-status", timeout=QMP)["status"]
            log.note("QEMU's run state", state)
            if state != "running":
                return Hang(f"QEMU has stopped it, its run state is {state}")
            cpus = _cpus(running, names, log)
            if _press(running, _CPUS, deadline) is None:
                return _without_interrupts(running, cpus, names, log, deadline)
            return _listening(running, deadline)
        except (GuestLost, InfrastructureError) as error:
            return Hang(error.message)


def whereabouts(running: Running, pid: int, deadline: Deadline) -> str:
    """Where a process is that does not come back, in words; "" where the kernel does not say.

    The guest lives on. Its console has the backtraces of all tasks then.
    """
    with _Log(running):
        try:
            if running.monitor.execute("query-status", timeout=QMP)["status"] != "running":
                return ""
            running_now = _press(running, _CPUS, deadline)
            if running_now is None:
                return ""
            _press(running, _BLOCKED, deadline)
            all_tasks = _press(running, _TASKS, deadline) or ""
        except (GuestLost, InfrastructureError):
            return ""
    runs = [place for place in backtraces.cpus(running_now).values() if place.pid == pid]
    asleep = [
        place
        for place in backtraces.tasks(all_tasks).values()
        if place.process == pid and place.state != "R" and _AT_REST not in place.functions
    ]
    return "; ".join(map(str, [*runs, *sorted(asleep, key=lambda place: place.state != "D")]))


def _listening(running: Running, deadline: Deadline) -> Hang:
    """The kernel answers SysRq: what hangs is where it was a moment ago."""
    looks: list[list[Place]] = []
    while len(looks) < 2:
        if looks:
            time.sleep(min(_BETWEEN, deadline.left))
        cpus = backtraces.cpus(_press(running, _CPUS, deadline) or "")
        blocked = backtraces.tasks(_press(running, _BLOCKED, deadline) or "")
        looks.append([*cpus.values(), *blocked.values()])
    _press(running, _TASKS, deadline)
    first, second = looks
    # The idle task is met in an interrupt again and again where the host is busy: SysRq's own.
    before = {(place.cpu, place.pid): place for place in first if place.pid != 0}
    stays = [place for place in second if (place.cpu, place.pid) in before]
    if not stays:
        return Hang("its kernel answers SysRq, and hangs nowhere", lives=True)
    return _hang(stays, [each for each in stays if _shared(each, before[each.cpu, each.pid])])


def _shared(one: Place, other: Place) -> set[str]:
    """The kernel's functions that both are in: what loops is in one of them each time, and who is
    in user space may be met in an interrupt once."""
    return {*one.functions, *one.below} & {*other.functions, *other.below}


def _without_interrupts(
    running: Running, first: list[Place], names: "_Names", log: "_Log", deadline: Deadline
) -> Hang:
    """The kernel does not answer SysRq: where QEMU says that its CPUs are, and an NMI."""
    second = _cpus(running, names, log)
    running.monitor.execute("inject-nmi", timeout=QMP)
    log.note("an NMI", "sent")
    waited = Deadline.after(min(_NMI, deadline.left))
    running.console.wait_until(lambda: running.over, waited)
    if running.monitor.saw(PANICKED):
        running.console.wait_until(lambda: running.over, deadline)
    before = {(place.cpu, place.functions) for place in first if place.deaf}
    if not any(place.deaf and (place.cpu, place.functions) in before for place in second):
        awake = "; ".join(map(str, second)) or "its CPUs idle"
        return Hang(f"its kernel does not answer SysRq: {awake}")
    told = backtraces.cpus(log.so_far())
    places = [told.get(place.cpu or 0, place) for place in second]
    return _hang(places, [place for place in places if place.functions])


def _hang(places: Sequence[Place], kernels: Sequence[Place]) -> Hang:
    """`kernels` are those places where the kernel hangs."""
    words = "; ".join(map(str, places))
    report = "\n".join([f"guest hangs: {words}", *(place.text for place in kernels)])
    return Hang(words, report if kernels else None)


def _press(running: Running, key: str, deadline: Deadline) -> str | None:
    """What the kernel prints upon a SysRq key, None where it hears none.

    That it hears another one tells the end. What comes while it prints is lost, so each is sent
    once it is silent, and again until it is heard.
    """
    start = running.console.size
    if not _send(running, key, start, 1, Deadline.after(min(_HEARD, deadline.left))):
        return None
    _send(running, _NOTHING, start, 2, deadline)
    return running.console.text(start)


def _send(running: Running, key: str, start: int, number: int, deadline: Deadline) -> bool:
    """Whether the kernel hears a key, and begins its `number`th answer from byte `start` on."""
    console = running.console

    def heard() -> bool:
        return console.text(start).count(_ANSWER) >= number

    while not (heard() or running.over or deadline.passed):
        console.wait_for_silence(_SILENCE, deadline)
        running.sysrq(key)
        console.wait_until(lambda: heard() or running.over, Deadline.after(_AGAIN))
    return heard()


def _cpus(running: Running, names: "_Names", log: "_Log") -> list[Place]:
    """Where QEMU says that the CPUs are which do not sleep."""
    registers = running.monitor.human("info registers -a", timeout=QMP).replace("\r", "")
    log.note("info registers -a", registers)
    found = []
    for cpu in _REGISTERS.finditer(registers):
        address, flags = int(cpu["ip"], 16), int(cpu["flags"], 16)
        in_kernel = cpu["ring"] == "0"
        name = _function_at(names, address) or f"{address:#x}"
        if cpu["halted"] == "0":
            deaf = in_kernel and not flags & _INTERRUPTS_ON
            functions = (name,) if in_kernel else ()
            found.append(Place(int(cpu["cpu"]), functions=functions, deaf=deaf))
    return found


_Names = Sequence[tuple[int, str]]  # functions' addresses, ascending


def _functions(symbols: Path | None) -> _Names:
    """Those of a vmlinux, none if they cannot be told."""
    if not symbols:
        return ()
    try:
        listed = subprocess.run(
            ["nm", "-n", symbols], capture_output=True, text=True, timeout=_NAMES, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [(int(row[0], 16), row[2]) for row in rows if len(row) == 3 and row[1] in "tTwW"]


def _function_at(names: _Names, address: int) -> str | None:
    """The function that an address is in. What lies behind the last symbol is a module's."""
    number = bisect_right(names, address, key=lambda each: each[0])
    return names[number - 1][1] if 0 < number < len(names) else None


class _Log:
    """hang.log: what QEMU said, and what came on the console meanwhile."""

    def __init__(self, running: Running) -> None:
        self._console = running.console
        self._start = running.console.size
        self._notes: list[str] = []

    def note(self, what: str, words: str) -> None:
        """Something that QEMU said."""
        self._notes.append(f"== {what} ==\n{words.strip()}\n")

    def so_far(self) -> str:
        """What has come on the console."""
        return self._console.text(self._start)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._console.was_asked(self._start)
        # That the disk is full is told by whoever writes the run's results to it.
        log = self._console.path.parent / LOG
        with contextlib.suppress(OSError), log.open("a") as file:
            file.write("\n".join([*self._notes, "== the console ==", self.so_far(), ""]))
