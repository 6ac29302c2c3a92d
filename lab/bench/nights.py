# SPDX-License-Identifier: GPL-2.0-only
"""Nights that never were, as history and folders would have them: to measure pages, and to look
at them. The same words make the same nights."""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from lab.contract import Mode, rules
from lab.history.model import CellKey, CellRun
from lab.history.news import news_of
from lab.history.store import History
from lab.results.evidence import keep
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

_FIRST = 1_790_000_000  # seconds since the epoch
_DAY = 86_400
_CELLS = (
    CellKey("v6.12", "vtd", "contract"),
    CellKey("v6.12+kasan", "vtd", "contract"),
    CellKey("~/linux@next", "vtd", "contract"),
    CellKey("v6.12", "amdvi", "contract", "vfio-cdev-fixes"),
)
_SPLAT = """\
[   42.117352][  T214] ==================================================================
[   42.118020][  T214] BUG: KASAN: slab-use-after-free in vfio_df_unbind_iommufd+0x9c/0x1a0
[   42.118711][  T214] Read of size 8 at addr ffff888004c3a010 by task agent/214
[   42.119388][  T214]
[   42.119571][  T214] CPU: 1 UID: 0 PID: 214 Comm: agent Not tainted 6.12.57 #1
[   42.120190][  T214] Call Trace:
[   42.120456][  T214]  <TASK>
[   42.120690][  T214]  dump_stack_lvl+0x68/0xa0
[   42.121084][  T214]  print_report+0xcb/0x620
[   42.121475][  T214]  kasan_report+0xbd/0xf0
[   42.121859][  T214]  vfio_df_unbind_iommufd+0x9c/0x1a0
[   42.122326][  T214]  vfio_device_fops_release+0x52/0x80
[   42.122801][  T214]  __fput+0x1f1/0x4a0
[   42.123142][  T214]  __x64_sys_close+0x53/0x90
[   42.123548][  T214]  do_syscall_64+0x6b/0x140
[   42.123944][  T214]  </TASK>
[   42.124177][  T214] =================================================================="""
_CALLS = """\
1.204118 214 openat(AT_FDCWD, "/dev/iommu", O_RDWR|O_CLOEXEC) = 5
1.204733 214 openat(AT_FDCWD, "/dev/vfio/devices/vfio0", O_RDWR|O_CLOEXEC) = 6
1.205350 214 ioctl(6, VFIO_DEVICE_BIND_IOMMUFD, {argsz=16, iommufd=5}) = 0 {out_devid=1}
1.205918 214 openat(AT_FDCWD, "/dev/vfio/devices/vfio0", O_RDWR|O_CLOEXEC) = 7
1.206491 214 ioctl(7, VFIO_DEVICE_BIND_IOMMUFD, {argsz=16, iommufd=5}) = 0 {out_devid=2}
1.207102 214 close(7) = 0
"""


Story = Callable[[int, int, int, TestRecord], TestRecord]
"""What becomes of a test, given how many nights ago it is (0 the last), the number of its cell,
and the attempt."""


def make(
    history: History, folder: Path, *, nights: int, tests: int, story: Story | None = None
) -> Sequence[str]:
    """Add them to a history, with so many tests in each of the four cells, and make their folders;
    their names, the oldest first."""
    every = list(_tests(tests))
    names = []
    for ago in reversed(range(nights)):
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(_FIRST - ago * _DAY))
        for number, cell in enumerate(_CELLS):
            found = _attempt(name, cell, number, 0, every, ago, story or calm)
            runs = [found]
            if again := [test for test in found[1].tests if test.verdict.is_trouble]:
                wanted = {test.id for test in again}
                rest = [test for test in every if test.id in wanted]
                runs.append(_attempt(name, cell, number, 1, rest, ago, story or calm))
            for run, record in runs:
                history.add(run, _left(folder / run.folder, record))
        (folder / name).mkdir(parents=True, exist_ok=True)
        told = [news.to_json() for news in news_of(history, name, planned=_CELLS)]
        (folder / name / "news.json").write_text(json.dumps(told), encoding="utf-8")
        names.append(name)
    return names


def calm(ago: int, cell: int, attempt: int, test: TestRecord) -> TestRecord:
    """A story in which one test in two hundred is always broken."""
    del ago, attempt
    if _number(test) % 200 == 7 + cell:
        return replace(test, verdict=Verdict.BROKEN, message="EINVAL, and not EBUSY")
    return test


def eventful(ago: int, cell: int, attempt: int, test: TestRecord) -> TestRecord:
    """A story of which the last night has everything to tell."""
    verdict, said, splats = test.verdict, "", test.splats
    match test.rule, _round(test), cell:
        case "OWN-3", 0, 0 if ago == 0:
            verdict, said = Verdict.BROKEN, "BIND on a bound file gave 0, and not EINVAL"
        case "OWN-5", 0, 1 if ago == 0 and test.mode is Mode.IOMMUFD:
            verdict, said, splats = Verdict.GUEST_LOST, "the guest panicked", (_SPLAT,)
        case "MAP-3", 0, 2 if ago % 5 == attempt == 0 and test.mode is Mode.TYPE1:
            verdict, said = Verdict.BROKEN, "4096 of 8192 bytes were unmapped"
        case "LIFE-2", 0, 3 if ago < 6:
            verdict, said = Verdict.BROKEN, "close() did not return for 10 s"
        case "IRQ-1", 0, 3 if ago > 0:
            verdict, said = Verdict.BROKEN, "no interrupt came in 2 s"
        case "MAP-6", _, _:
            verdict, said = Verdict.KNOWN, "EINVAL; mended in 6.18"
        case "SRV-1", _, _:
            verdict, said = Verdict.SKIPPED, "QEMU has no igb"
    return replace(test, verdict=verdict, message=said, splats=splats)


def _tests(count: int) -> Iterator[TestRecord]:
    """So many: each rule in each of its modes, and again."""
    places = [(rule, mode) for rule in rules().values() for mode in rule.modes or (None,)]
    random = Random(count)
    for number in range(count):
        rule, mode = places[number % len(places)]
        words = "_".join(rule.title.replace("'", "").replace(":", "").replace(",", "").split()[:7])
        again = f"_{number // len(places)}" if number >= len(places) else ""
        parameter = f"[{mode}]" if mode else ""
        yield TestRecord(
            f"tests/contract/test_{rule.section.lower()}.py::test_{words}{again}{parameter}",
            "contract",
            Verdict.KEPT,
            round(0.05 + random.expovariate(2), 4),
            rule.id,
            mode,
        )


def _number(test: TestRecord) -> int:
    return int(test.duration * 10_000)


def _round(test: TestRecord) -> int:
    last = test.id.partition("[")[0].rpartition("_")[2]
    return int(last) if last.isdigit() else 0


def _attempt(
    night: str,
    cell: CellKey,
    number: int,
    attempt: int,
    tests: Sequence[TestRecord],
    ago: int,
    story: Story,
) -> tuple[CellRun, RunRecord]:
    random = Random(f"{night}{cell}{attempt}")
    name = re.sub(r"[^\w.+-]+", "-", f"{cell.kernel} {cell.series} {cell.machine}").strip("-")
    folder = f"{night}/cells/{name}{f'-{attempt}' if attempt else ''}"
    ended = tuple(story(ago, number, attempt, test) for test in tests)
    seconds = sum(test.duration for test in ended) * (1.6 if number == 1 else 1.0)
    boot = 2.8 + 1.4 * (number == 1) + random.uniform(-0.2, 0.2)
    figures = {"ready_seconds": boot, "login_seconds": boot + random.uniform(0.3, 0.6)}
    run = CellRun(
        night, cell, attempt, folder, night, seconds * random.uniform(0.95, 1.05),
        status=max((test.exit_status for test in ended), default=2), release="6.12.57",
        kernel_key=f"{number}{night[4:8]}c0ffee", source="linux-source-6.12 6.12.57-1",
        qemu="9.2.0", accel="kvm", host="lab1", lab="0.1.0", figures=figures,
    )  # fmt: skip
    return run, RunRecord("0.1.0", night, run.seconds, tests=ended, figures=figures)


def _left(run: Path, record: RunRecord) -> RunRecord:
    """The same, with the evidence that a run leaves of what is in trouble."""
    sources = {
        "calls.txt": lambda: _CALLS,
        "console.log": lambda: f"[   41.9] vfio-pci 0000:00:02.0: enabling device\n{_SPLAT}\n",
    }
    kept = RunFolder(run)
    return replace(
        record,
        tests=tuple(
            keep(kept, test, sources)[0] if test.verdict.is_trouble else test
            for test in record.tests
        ),
    )
