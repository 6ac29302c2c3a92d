# SPDX-License-Identifier: GPL-2.0-only
"""Allocations that fail in a program, and nowhere else in its guest.

Documentation/fault-injection/fault-injection.rst: "fail-nth" counts the allocations of one thread,
here of the program's first from its execve on, and lets one fail; "make-it-fail" marks a process
and the children that it will have, of whose allocations failslab and fail_page_alloc let a share
fail. That one did is on the console, where the kernel tells it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.errors import ConfigurationError, LabError
from lab.repro.order import Faults

_POINTS = ("/sys/kernel/debug/failslab", "/sys/kernel/debug/fail_page_alloc")
_MARKS = {"fail-nth": "/proc/self/fail-nth", "make-it-fail": "/proc/self/make-it-fail"}
_FORCED = re.compile(r"FAULT_INJECTION: forcing a failure")
_FRAME = re.compile(r"^(?:\[[^\]]*\] ?)* +(?P<function>[A-Za-z_]\w*)[\w.]*\+0x", re.MULTILINE)
# lib/fault-inject.c, mm/slub.c, mm/page_alloc.c, mm/util.c and what stands between
_ALLOCATES = re.compile(
    r"dump_stack|should_fail|_*k[mvz]+alloc|_*kmem_|_*alloc_|_*get_free|_*slab_|_*folio_alloc"
    r"|_*vmalloc|_*prepare_alloc|_*kcalloc|_*kmalloc|_*krealloc|_*kstrdup|_*kmemdup|_*kasprintf"
)
_TRACE = 30  # lines in which the caller stands


@contextmanager
def under(faults: Faults, hands: Process) -> Iterator[list[str]]:
    """Set the guest's knobs, and in the end set them back; the command that what is short of
    memory has to stand behind.

    Raises ConfigurationError where the kernel cannot do that.
    """
    mark = "fail-nth" if faults.nth else "make-it-fail"
    if not all(map(hands.exists, (*_POINTS, _MARKS[mark]))):
        raise ConfigurationError(
            "this kernel was built without fault injection",
            hint="CONFIG_FAULT_INJECTION_DEBUG_FS, FAILSLAB and FAIL_PAGE_ALLOC are in the "
            "fragment test",
        )
    knobs = {path: value for path, value in _knobs(faults).items() if hands.exists(path)}
    before = {path: hands.read_text(path) for path in knobs}
    for path, value in knobs.items():
        hands.write_text(path, value)
    number = faults.nth or 1
    try:
        yield ["sh", "-c", f'echo {number} >{_MARKS[mark]}; exec "$@"', "faults"]
    finally:
        with suppress(LabError, RemoteError):  # the guest may be gone
            for path, value in reversed(before.items()):
                hands.write_text(path, value.strip())


def _knobs(faults: Faults) -> Mapping[str, str]:
    """Allocations that may sleep fail, too, and single pages. The filter is set first, and the
    probability last: nobody else goes short."""
    values = {
        "task-filter": "N" if faults.nth else "Y",
        "ignore-gfp-wait": "N",
        "ignore-gfp-highmem": "N",
        "min-order": "0",
        "interval": "1",
        "space": "0",
        "times": "-1",
        "verbose": "2" if faults.nth else "1",  # with a backtrace, and without
        "probability": str(faults.percent or 0),
    }
    return {f"{point}/{name}": value for point in _POINTS for name, value in values.items()}


def injected(printed: str) -> tuple[str, ...]:
    """Who wanted the memory of each allocation that failed, as far as the console says it."""
    found = []
    for forced in _FORCED.finditer(printed):
        lines = printed[forced.end() :].splitlines()[:_TRACE]
        rest = "\n".join(lines).partition("FAULT_INJECTION")[0]
        frames = (frame["function"] for frame in _FRAME.finditer(rest))
        found.append(next((name for name in frames if not _ALLOCATES.match(name)), ""))
    return tuple(found)


def told(faults: Faults, found: Sequence[str]) -> str:
    """The same in words."""
    if not found:
        return f"{faults}: no allocation failed"
    if not faults.nth:
        return f"{faults}: {len(found)} allocations failed"
    return f"{faults}: the one that failed is {found[0] or 'somebody'}'s"
