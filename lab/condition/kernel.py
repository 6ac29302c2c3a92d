# SPDX-License-Identifier: GPL-2.0-only
"""The kernel itself: its modules, its taint, its lockdep and KCSAN, and what a test sets in it."""

import re

from lab.condition.asking import Question, stream, text, texts
from lab.condition.detector import MEANWHILE, Detector, Seen
from lab.errors import InfrastructureError

_TAINT = "taint"
# Documentation/admin-guide/tainted-kernels.rst. Where the log has a letter in the good case, too
# (G for P), it is the other one.
_TAINTS = {
    0: "P (a proprietary module)",
    1: "F (a module that was force loaded)",
    2: "S (out of specification)",
    3: "R (a module that was force unloaded)",
    4: "M (a machine check)",
    5: "B (a bad page)",
    6: "U (asked for by user space)",
    7: "D (an oops or a BUG)",
    8: "A (an ACPI table of the user's)",
    9: "W (a warning)",
    10: "C (a staging driver)",
    11: "I (a workaround for firmware)",
    12: "O (a module from out of the tree)",
    13: "E (an unsigned module)",
    14: "L (a soft lockup)",
    15: "K (a live patch)",
    16: "X (auxiliary)",
    17: "T (a randomized layout of structures)",
    18: "N (a test inside the kernel)",
    19: "J (a function made to mutate by fwctl)",
}
_ASKED_FOR = 1 << 6  # by VFIO's noiommu mode: whoever uses it, asked for it (NOIO-1)

_FAULTS = ("failslab", "fail_page_alloc", "fail_iommufd")
_PARAMETERS = {
    "iommufd": ("allow_unsafe_interrupts",),
    "vfio": ("enable_unsafe_noiommu_mode",),
    "vfio_iommu_type1": ("allow_unsafe_interrupts", "disable_hugepages", "dma_entry_limit"),
    "vfio_pci": ("disable_denylist", "disable_idle_d3", "enable_sriov", "nointxmask"),
}
# What is consumed as faults are injected, such as `times`, decides nothing while none are.
SETTINGS = (
    "/proc/self/make-it-fail",
    "/proc/sys/vm/nr_hugepages",
    *(f"/sys/kernel/debug/{each}/probability" for each in _FAULTS),
    *(f"/sys/kernel/debug/{each}/task-filter" for each in _FAULTS),
    *(f"/sys/kernel/debug/{each}/verbose" for each in _FAULTS),
    "/sys/kernel/debug/failslab/ignore-gfp-wait",
    "/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait",
    "/sys/kernel/debug/fail_page_alloc/min-order",
    *(
        f"/sys/module/{module}/parameters/{name}"
        for module, parameters in _PARAMETERS.items()
        for name in parameters
    ),
)
"""What tests set and set back: each decides what the next test sees."""


def _modules(known: Seen | None) -> Question[Seen | None]:
    del known
    lines = yield from stream("/proc/modules", 512)
    if lines is None:
        return None
    return {words[0]: words[2] for words in map(str.split, lines.splitlines())}


def _tell_module(name: str, before: str | None, now: str | None) -> str:
    if before is None:
        return f"module {name} has been loaded"
    if now is None:
        return f"module {name} has been unloaded"
    return f"module {name} is held {now} times, not {before}"


def _taint(known: Seen | None) -> Question[Seen | None]:
    del known
    bits = yield from text("/proc/sys/kernel/tainted")
    return None if bits is None else {_TAINT: bits.strip()}


def _tell_taint(name: str, before: str | None, now: str | None) -> str:
    del name
    new = int(now or 0) & ~int(before or 0) & ~_ASKED_FOR
    bits = [bit for bit in range(new.bit_length()) if new >> bit & 1]
    words = [_TAINTS.get(bit, f"bit {bit}") for bit in bits]
    return f"the kernel is tainted: {', '.join(words)}" if words else ""


def _watcher(name: str, path: str, is_on: str, needs: str) -> Detector:
    """For a part of the kernel that reports what it sees, and says in `path` whether it looks at
    all: 1 or 0, where `is_on` matches."""
    pattern = re.compile(is_on, re.MULTILINE)

    def look(known: Seen | None) -> Question[Seen | None]:
        del known
        said = yield from stream(path, 4096)
        if said is None:
            return None
        if not (found := pattern.search(said)):
            raise InfrastructureError(f"{path} does not tell whether {name} is on")
        return {name: found[1]}

    def off(seen: Seen) -> str:
        return f"{name} is off: it sees nothing any more" if seen[name] == "0" else ""

    def tell(thing: str, before: str | None, now: str | None) -> str:
        del before
        return off({thing: now or ""})

    return Detector(name, look, tell, needs=needs, off=off)


def _settings(known: Seen | None) -> Question[Seen | None]:
    del known
    found = yield from texts(SETTINGS, 32)
    return {path: text.strip() for path, text in found.items() if text is not None}


def _tell_setting(path: str, before: str | None, now: str | None) -> str:
    return f"{path} is {now or 'gone'}, not {before or 'away'}"


MODULES = Detector("modules", _modules, _tell_module, MEANWHILE, needs="CONFIG_MODULES")
TAINT = Detector("taint", _taint, _tell_taint)
# It ends with its first report, with a taint that it does not trust, and with a full table.
# Source: kernel/locking/lockdep_proc.c, lockdep_stats_show().
LOCKDEP = _watcher(
    "lockdep", "/proc/lockdep_stats", r"^ *debug_locks: +(\d+)$", "CONFIG_PROVE_LOCKING"
)
# A kernel that was not told to begin at its boot has it, and is watched by nobody.
# Source: kernel/kcsan/debugfs.c, show_info().
KCSAN = _watcher("kcsan", "/sys/kernel/debug/kcsan", r"^enabled: (\d+)$", "CONFIG_KCSAN")
SETTINGS_OF_TESTS = Detector("settings", _settings, _tell_setting)
