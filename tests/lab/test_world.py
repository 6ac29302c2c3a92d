# SPDX-License-Identifier: GPL-2.0-only
"""Faults of the world that the lab itself lives in: disk, memory, threads, other labs."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import image
from lab.agent.syscalls import Syscall
from lab.bench.guests import Holdings
from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.deadline import Deadline
from lab.guest import AcceleratorMemory, Boot, Guest, Hypervisor, Loop, boot, find_qemu
from lab.progress import Progress
from lab.testbed import Testbed
from lab.testing import lacking

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

Wait = Callable[[Callable[[], object], float], bool]

_ROOT = Path(__file__).parents[2]

# The disk


@pytest.fixture
def small_disk(small_lab: "SmallLab") -> Iterator[Path]:
    """The folder of the first run is a file system of 24 MB."""
    if os.geteuid() != 0:
        raise lacking("root, to mount a small file system")
    place = small_lab.root / "run-1"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=24m", "vfio-lab-test", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise lacking(f"the right to mount ({done.stderr.strip()})")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


_KERNELS_LINE = re.compile(r"\[ *\d+\.\d+\]\[ *[CT]\d+\].*\n?")  # it may come in between
_FILLS_THE_DISK = f"""\
import re
import threading
import time
from errno import ENOSPC
from pathlib import Path

from lab.agent.syscalls import Syscall
from lab.deadline import Deadline

def test_before(process):
    assert process.syscall(Syscall.GETPID) == process.pid

def fill(folder):
    with (folder / "filler").open("ab", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError as error:
            assert error.errno == ENOSPC

def keep_full(folder):  # a guest that boots ahead, for one, removes what it needs no more
    while True:
        fill(folder)
        time.sleep(0.001)

def test_fills_it(testbed, process):
    fill(testbed.guest.folder)
    threading.Thread(target=keep_full, args=(testbed.guest.folder,), daemon=True).start()
    process.write_text("/dev/console", "still there\\n" * 1000)
    assert process.syscall(Syscall.GETPID) == process.pid
    console = testbed.guest.console
    kernels = re.compile({_KERNELS_LINE.pattern!r})
    there = lambda: kernels.sub("", console.text()).count("still there") == 1000
    assert console.wait_until(there, Deadline.after(30))

def test_after(process, record_property):
    assert process.syscall(Syscall.GETPID) == process.pid
    record_property("more than is ever removed meanwhile", "x" * (4 << 20))
"""


def test_a_disk_that_fills_up(small_lab: "SmallLab", small_disk: Path) -> None:
    """The guest goes on, what was written before stays, and the run says who has to act."""
    small_lab.suite(_FILLS_THE_DISK)
    outcome = small_lab.run()
    assert outcome.status == 2
    assert outcome.verdicts["test_before"] == "kept"
    assert "broken" not in outcome.verdicts.values()
    said = outcome.stdout + outcome.stderr
    assert f"the disk is full: {small_disk}" in said
    assert "make room" in said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said


# The console


@pytest.mark.parametrize(
    "size", [1 << 20, pytest.param(10 << 20, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_a_console_that_is_flooded(
    shared_testbed: Testbed, size: int, record_property: Callable[[str, object], None]
) -> None:
    """Tests go on meanwhile, nothing is lost, and neither memory nor a message holds all of it."""
    guest, hands = shared_testbed.guest, shared_testbed.hands
    before, start = Holdings.now(), guest.console.size
    started = time.monotonic()
    flood = guest.ssh.start(f"head -c {size} /dev/zero | tr '\\0' x >/dev/console; echo >/dev/kmsg")
    calls = 0
    try:
        while guest.console.size < start + size:
            assert hands.syscall(Syscall.GETPID) == hands.pid
            calls += 1
            assert time.monotonic() - started < 240
    finally:
        flood.close()
    seconds = time.monotonic() - started
    record_property("megabytes_per_second", round(size / seconds / 1e6, 2))
    print(f"{size >> 20} MiB in {seconds:.1f} s, {calls} calls meanwhile")
    assert calls > 10
    assert guest.console.path.stat().st_size >= start + size
    assert _KERNELS_LINE.sub("", guest.printed_since(start)).count("x") == size
    assert len(guest.why_lost("nothing").message) < 20_000
    assert Holdings.now().resident - before.resident < 6 * size + (16 << 20)


# The guest's memory

_EATS_ALL = """\
import pytest

from lab.agent.syscalls import Syscall

MAP_PRIVATE_ANONYMOUS_POPULATE = 0x2 | 0x20 | 0x8000

def eat(process):
    while True:
        process.syscall(Syscall.MMAP, 0, 64 << 20, 3, MAP_PRIVATE_ANONYMOUS_POPULATE, -1, 0,
                        timeout=60)

def test_before(process):
    assert process.alive

def test_is_killed(process):
    eat(process)

def test_has_others_killed(process):
    process.write_text("/proc/self/oom_score_adj", "-1000")
    eat(process)

def test_after_that(process):
    assert process.syscall(Syscall.GETPID) == process.pid
"""


def test_a_guest_out_of_memory(small_lab: "SmallLab") -> None:
    """The kernel ends the largest process; where it may not, whoever is left, or it panics.

    No rule is broken by that, and none is kept.
    """
    small_lab.suite(_EATS_ALL)
    outcome = small_lab.start_pytest("--qemu-arg=-m", "--qemu-arg=512M").outcome(timeout=240)
    verdicts = outcome.verdicts
    for name in ("test_before", "test_after_that"):
        assert verdicts[name] == "kept"
    assert verdicts["test_is_killed"] in ("lab-error", "guest-lost")
    assert verdicts["test_has_others_killed"] == "guest-lost"
    assert "Out of memory: Killed process" in outcome.tests["test_is_killed"]["message"]
    console = outcome.folder / outcome.tests["test_has_others_killed"]["evidence"][0]
    assert "Out of memory: Killed process" in console.read_text(errors="replace")
    assert outcome.status == 2


# Threads, and the lab's own death


@pytest.fixture
def start_guest(choice: Choice, tmp_path: Path) -> Iterator[Callable[[ExitStack], Guest]]:
    """Boots a guest in the caller's thread, as nobody but a pool would."""
    lab, cache = Lab.load(_ROOT), Cache.of_user()
    qemu = find_qemu(choice.qemu, cache)
    initramfs = image.prepare(lab.run.image, lab, cache, Progress(quiet=True)).initramfs
    order = Boot(lab.machine(lab.run.machine), Path(str(choice.kernel)), initramfs)
    (tmp_path / "guest").mkdir()
    with Loop() as loop:
        hypervisor = Hypervisor(qemu, AcceleratorMemory(cache, qemu), loop)
        yield lambda stack: stack.enter_context(
            boot(order, hypervisor, tmp_path / "guest", Deadline.after(60.0))
        )


def test_a_guest_outlives_the_thread_that_booted_it(
    start_guest: Callable[[ExitStack], Guest], wait_until: Wait
) -> None:
    """The parent that a process dies with is a thread, to the kernel (prctl(2))."""
    guests: list[Guest] = []
    sleepers: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:

        def work() -> None:
            leash = ["setpriv", "--pdeathsig", "KILL", "sleep", "60"]
            sleepers.append(subprocess.Popen(leash))
            guests.append(start_guest(stack))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert wait_until(lambda: sleepers[0].poll() == -signal.SIGKILL, 5.0)
        time.sleep(0.2)
        assert guests[0].alive
        assert guests[0].ssh.run("echo", "here").output == "here\n"


_WAITS = """\
import os, time
from pathlib import Path

def test_waits(process):
    Path(os.environ["STAGE"]).touch()
    time.sleep(60)
"""


def test_no_qemu_outlives_a_killed_pytest(
    small_lab: "SmallLab", tmp_path: Path, qemus: Callable[[Path], list[int]], wait_until: Wait
) -> None:
    """It is told by the kernel; `vfio-lab run` is in test_signals.py."""
    small_lab.suite(_WAITS)
    stage = tmp_path / "stage"
    started = small_lab.start_pytest(env={"STAGE": str(stage)})
    assert wait_until(stage.exists, 60.0)
    assert qemus(started.folder)
    started.process.kill()
    started.process.wait()
    assert wait_until(lambda: not qemus(started.folder), 3.0)


# Other labs


def test_two_labs_that_prepare_the_same(small_lab: "SmallLab", tmp_path: Path) -> None:
    """With one cache that has neither image nor agent: one of them makes each, and both get on."""
    small_lab.suite("def test_one(process):\n    assert process.alive\n")
    cache, known = tmp_path / "cache", Cache.of_user().root
    cache.mkdir()
    for kind in ("apt", "deb", "facts"):  # so that nobody asks the network
        if (known / kind).is_dir():
            shutil.copytree(known / kind, cache / kind, copy_function=os.link)
    env = {"VFIO_LAB_CACHE": str(cache)}
    runs = [small_lab.start(env=env), small_lab.start(env=env)]
    outcomes = [run.outcome() for run in runs]
    for outcome in outcomes:
        assert outcome.status == 0, outcome.stderr
        assert outcome.verdicts == {"test_one": "kept"}
    for kind in ("image", "agent"):
        assert len(list((cache / kind).iterdir())) == 1
    made = [line for each in outcomes for line in each.stderr.splitlines() if "✓ make" in line]
    assert len(made) == len({line.rpartition(" ")[0] for line in made}), made
    assert not list((cache / "unfinished").iterdir())


# Many guests


@pytest.mark.parametrize(
    "count", [5, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_guests_in_a_row_leave_nothing(
    new_cell: Callable[..., Cell],
    tmp_path: Path,
    count: int,
    qemus: Callable[[Path], list[int]],
    record_property: Callable[[str, object], None],
) -> None:
    """Neither process nor socket, descriptor, thread or temporary file; memory, after the
    first two, grows by less than 200 KiB a guest, which is what the run keeps of each. Five guests
    say nothing of memory: what the tests before them had is in use again, or given back."""
    cell = new_cell()

    def use() -> None:
        with cell.testbed().start_process() as process:
            assert process.syscall(Syscall.GETPID) == process.pid
        cell.discard()

    for _ in range(2):  # what is loaded once is, and the patterns of splats are compiled
        use()
    before = Holdings.like(None)
    for _ in range(count):
        use()
    after = Holdings.like(before)
    grown = (after.resident - before.resident) / count / 1024
    record_property("kib_per_guest", round(grown))
    print(f"{count} guests, {grown:.0f} KiB each")
    assert after.but_memory == before.but_memory
    assert not qemus(tmp_path)
    assert count < 50 or grown < 200
