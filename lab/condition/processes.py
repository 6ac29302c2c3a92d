# SPDX-License-Identifier: GPL-2.0-only
"""Processes that live on, and files that stay open in the lab's own."""

from collections.abc import Sequence

from lab.condition.asking import Question, links, names, texts
from lab.condition.detector import MEANWHILE, Detector, Seen

_PF_KTHREAD = 0x0020_0000  # include/linux/sched.h
_KERNEL_THREAD = ""
_FILES_OF_INTEREST = ("/dev/vfio/", "/dev/iommu", "anon_inode:[vfio")


def _processes(known: Seen | None) -> Question[Seen | None]:
    """Each process by its number.

    A number that was seen before is not looked at again: it stands for what it stood for, unless
    the guest has started 32768 processes since.
    """
    listed = yield from names("/proc", 4096)
    if listed is None:
        return None
    known = known or {}
    numbers = [name for name in listed if name.isdigit()]
    paths = {number: f"/proc/{number}/stat" for number in numbers if number not in known}
    stats = (yield from texts(paths.values(), 512)) if paths else {}
    new = {number: text for number, path in paths.items() if (text := stats[path])}
    seen = {number: known[number] for number in numbers if number in known}
    for number, text in new.items():
        name = text[text.index("(") + 1 : text.rindex(")")]
        words = text[text.rindex(")") + 1 :].split()  # from the third on, proc_pid_stat(5)
        if int(words[6]) & _PF_KTHREAD:
            seen[number] = _KERNEL_THREAD
        elif words[0] in "ZX":
            seen[number] = f"{name}, which has ended and is waited for by nobody"
        else:
            seen[number] = name
    if known:
        for number in [number for number in new if seen[number]]:
            seen[number] += _with(sorted(set((yield from _files(number)).values())))
    return seen


def _with(targets: Sequence[str]) -> str:
    held = [target for target in targets if target.startswith(_FILES_OF_INTEREST)]
    return f", with {', '.join(held)} open" if held else ""


def _tell_process(number: str, before: str | None, now: str | None) -> str:
    if now and before is None:
        return f"process {number} lives on: {now}"
    if before and now is None:
        return f"process {number} is gone: {before}"
    return ""


def _files(process: str) -> Question[dict[str, str]]:
    """What each open fd of a process is."""
    folder = f"/proc/{process}/fd"
    numbers = (yield from names(folder)) or ()
    if not numbers:
        return {}
    targets = yield from links([f"{folder}/{number}" for number in numbers])
    # The directory's own fd is in the list, and closed by now.
    return {number: target for number in numbers if (target := targets[f"{folder}/{number}"])}


def _own_files(known: Seen | None) -> Question[Seen | None]:
    del known
    return (yield from _files("self"))


def _tell_file(number: str, before: str | None, now: str | None) -> str:
    if now is None:
        return f"the lab's own process has closed fd {number}, {before}"
    return f"the lab's own process has fd {number} open: {now}"


PROCESSES = Detector("processes", _processes, _tell_process, MEANWHILE)
OWN_FILES = Detector("files of the lab's own process", _own_files, _tell_file)
