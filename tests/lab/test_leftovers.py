# SPDX-License-Identifier: GPL-2.0-only
"""Each detector of `lab.condition` against a leak that is planted for it, all in one guest.

A leak is undone after it was named, so the next test has a guest that is as it was.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.agent.calls import AT_FDCWD, path_bytes
from lab.agent.process import Process
from lab.agent.syscalls import Syscall
from lab.cell import Cell
from lab.condition import Condition
from lab.condition.detector import MEANWHILE
from lab.condition.kernel import SETTINGS
from lab.errors import InfrastructureError
from lab.testbed import Testbed
from lab.testing import lacking
from lab.vfio.device import VFIO_PCI, Device
from lab.vfio.files import Container, Iommufd
from lab.vfio.parameter import parameter, turned_on

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

ROOT = Path(__file__).parents[2]
BRIEF = 0.02  # of the time that things have; what is planted does not go by itself
IOVA = 0x10_0000
PAGES = 3
NOBODY = 65534


@dataclass(frozen=True)
class Guest:
    """A guest and how it was when the test began."""

    testbed: Testbed
    before: Condition

    @property
    def hands(self) -> Process:
        return self.testbed.hands

    def device(self, role: str) -> Device:
        if role not in self.testbed.devices:
            raise lacking(f"a machine with {role}")
        return self.testbed.devices[role]

    def left(self) -> list[str]:
        """What is not as it was."""
        return self.before.leftovers(self.hands, stretch=BRIEF)


@pytest.fixture
def guest(shared_testbed: Testbed) -> Iterator[Guest]:
    """As it was again after the test."""
    guest = Guest(shared_testbed, Condition.of(shared_testbed.hands, shared_testbed.devices))
    yield guest
    assert guest.before.leftovers(guest.hands) == []


@contextmanager
def _written(hands: Process, path: str, text: str, after: str) -> Iterator[None]:
    hands.write_text(path, f"{text}\n")
    try:
        yield
    finally:
        hands.write_text(path, f"{after}\n")


# What a test leaves, and what is said of it


def _a_process(guest: Guest) -> AbstractContextManager[object]:
    return guest.testbed.start_process()


@contextmanager
def _a_process_with_a_cdev(guest: Guest) -> Iterator[None]:
    with guest.testbed.start_process() as process:
        guest.device("edu0").open_cdev(process)
        yield


def _a_file(guest: Guest) -> AbstractContextManager[object]:
    return guest.hands.open("/dev/null")


def _no_driver(guest: Guest) -> AbstractContextManager[object]:
    return guest.device("edu1").driven_by(guest.hands, None)


def _an_override(guest: Guest) -> AbstractContextManager[object]:
    path = f"{guest.device('rng0').sysfs}/driver_override"
    return _written(guest.hands, path, VFIO_PCI, "")


@contextmanager
def _a_device_that_went(guest: Guest) -> Iterator[None]:
    edu = guest.device("edu1")
    guest.hands.write_text(f"{edu.sysfs}/remove", "1")
    try:
        yield
    finally:
        guest.hands.write_text("/sys/bus/pci/rescan", "1")
        edu.set_driver(guest.hands, VFIO_PCI)


@contextmanager
def _a_device_that_came(guest: Guest) -> Iterator[None]:
    hands = guest.hands
    functions = f"{guest.device('igb0').sysfs}/sriov_numvfs"
    with (
        turned_on(hands, parameter("vfio_pci", "enable_sriov")),
        _written(hands, functions, "1", "0"),
    ):
        yield


def _a_group_of_another_type(guest: Guest) -> AbstractContextManager[object]:
    path = f"{guest.device('edu0').sysfs}/iommu_group/type"
    return _written(guest.hands, path, "identity", guest.hands.read_text(path).strip())


def _an_owner(guest: Guest) -> AbstractContextManager[object]:
    return guest.device("edu0").open_group(guest.hands)


@contextmanager
def _a_node_of_a_user(guest: Guest) -> Iterator[None]:
    def give(user: int) -> None:
        node = path_bytes(Container.PATH)
        guest.hands.syscall(Syscall.FCHOWNAT, AT_FDCWD, node, user, user, 0)

    give(NOBODY)
    try:
        yield
    finally:
        give(0)


@contextmanager
def _pinned_pages(guest: Guest) -> Iterator[None]:
    with (
        guest.testbed.start_process() as process,
        Iommufd.open(process, Iommufd.PATH) as iommufd,
        guest.device("edu0").open_cdev(process) as cdev,
        process.mmap(PAGES * process.page_size) as memory,
    ):
        cdev.bind(iommufd)
        ioas = iommufd.ioas_alloc()
        cdev.attach(ioas)
        iommufd.ioas_map(ioas, IOVA, memory.address, memory.length)
        yield


@contextmanager
def _locked_pages(guest: Guest) -> Iterator[None]:
    with guest.hands.mmap(PAGES * guest.hands.page_size) as memory:
        guest.hands.syscall(Syscall.MLOCK, memory.address, memory.length)
        yield


def _a_fault_that_is_on(guest: Guest) -> AbstractContextManager[object]:
    path = "/sys/kernel/debug/failslab/ignore-gfp-wait"
    if not guest.hands.exists(path):
        raise lacking("a kernel with fault injection")
    return _written(guest.hands, path, "N", "Y")


def _a_parameter(guest: Guest) -> AbstractContextManager[object]:
    return turned_on(guest.hands, parameter("vfio_iommu_type1", "allow_unsafe_interrupts"))


def _huge_pages(guest: Guest) -> AbstractContextManager[object]:
    return _written(guest.hands, "/proc/sys/vm/nr_hugepages", "2", "0")


Leak = Callable[[Guest], AbstractContextManager[object]]
NUMBER = "[0-9]+"


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        (_a_process, [f"process {NUMBER} lives on: sh", f"process {NUMBER} lives on: agent"]),
        (
            _a_process_with_a_cdev,
            [
                f"process {NUMBER} lives on: sh",
                f"process {NUMBER} lives on: agent, with /dev/vfio/devices/vfio0 open",
            ],
        ),
        (_a_file, ["the lab's own process has fd 3 open: /dev/null"]),
        (
            _no_driver,
            [
                r"edu1 has the driver none \(driver_override \(null\)\), "
                r"not vfio-pci \(driver_override vfio-pci\)",
                f"/dev/vfio/{NUMBER} is gone",
                f"/dev/vfio/devices/vfio{NUMBER} is gone",
            ],
        ),
        (
            _an_override,
            [
                r"rng0 has the driver virtio-pci \(driver_override vfio-pci\), "
                r"not virtio-pci \(driver_override \(null\)\)"
            ],
        ),
        (
            _a_device_that_went,
            [
                "edu1 is gone",
                "edu1 is in a group of none, not of 0000:01:00.0 of type DMA",
                f"/dev/vfio/{NUMBER} is gone",
                f"/dev/vfio/devices/vfio{NUMBER} is gone",
            ],
        ),
        (
            _a_device_that_came,
            [
                "0000:04:10.0 was not there",
                "0000:04:10.0 is in a group of 0000:04:10.0 of type DMA, not of none",
                f"/dev/vfio/{NUMBER} was not there",
                f"/dev/vfio/devices/vfio{NUMBER} was not there",
                "/sys/module/vfio_pci/parameters/enable_sriov is Y, not N",
            ],
        ),
        (
            _a_group_of_another_type,
            ["edu0 is in a group of .* of type identity, not of .* of type DMA"],
        ),
        (
            _an_owner,
            [
                f"the lab's own process has fd 3 open: /dev/vfio/{NUMBER}",
                f"/dev/vfio/{NUMBER} cannot be opened \\(Device or resource busy\\)",
            ],
        ),
        (_a_node_of_a_user, ["/dev/vfio/vfio is crw-rw-rw- 65534:65534, not crw-rw-rw- 0:0"]),
        (
            _pinned_pages,
            [
                f"process {NUMBER} lives on: sh",
                f"process {NUMBER} lives on: agent, with /dev/iommu, .* open",
                f"/dev/vfio/{NUMBER} cannot be opened \\(Device or resource busy\\)",
                f"pages that are still pinned: {PAGES}",
            ],
        ),
        (_locked_pages, [f"pages that are still locked: {PAGES}"]),
        (
            _a_fault_that_is_on,
            ["/sys/kernel/debug/failslab/ignore-gfp-wait is N, not Y"],
        ),
        (
            _a_parameter,
            ["/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts is Y, not N"],
        ),
        (_huge_pages, ["/proc/sys/vm/nr_hugepages is 2, not 0"]),
    ],
)
def test_a_leak_is_named(guest: Guest, leak: Leak, words: list[str]) -> None:
    with leak(guest):
        left = guest.left()
    assert len(left) == len(words), left
    for expected, said in zip(words, left, strict=True):
        assert re.fullmatch(expected, said), left


def test_a_process_that_ended_is_named(guest: Guest) -> None:
    with guest.testbed.start_process():
        with_it = Condition.of(guest.hands, guest.testbed.devices)
    left = with_it.leftovers(guest.hands, stretch=BRIEF)
    assert [re.sub(NUMBER, "N", each) for each in left] == [
        "process N is gone: sh",
        "process N is gone: agent",
    ]


def test_what_goes_by_itself_is_waited_for(guest: Guest) -> None:
    """A process that is killed lets go while nobody waits for it; so does what it had open."""
    process = guest.testbed.start_process()
    guest.device("edu0").open_group(process)
    left = guest.left()
    assert any("lives on" in each for each in left)
    assert any("cannot be opened" in each for each in left)
    end = threading.Timer(0.3, process.close)  # seconds
    end.start()
    assert guest.before.leftovers(guest.hands) == []
    end.join()


def test_what_stays_is_waited_for_no_longer_than_it_may_take(guest: Guest) -> None:
    with guest.hands.open("/dev/null"), _a_parameter(guest):
        started = time.monotonic()
        assert len(guest.before.leftovers(guest.hands)) == 2
        assert time.monotonic() - started < MEANWHILE  # no process, page or module has to go


def test_a_taint_is_named(shared_testbed: Testbed) -> None:
    """It stays for good: the next look begins with it. What user space asked for is no fault."""
    hands, taint = shared_testbed.hands, "/proc/sys/kernel/tainted"
    before = Condition.of(hands, shared_testbed.devices)
    hands.write_text(taint, str(1 << 6))
    assert before.leftovers(hands) == []
    hands.write_text(taint, str(1 << 9 | 1 << 5))
    assert before.leftovers(hands) == ["the kernel is tainted: B (a bad page), W (a warning)"]


def test_a_detector_that_cannot_run_is_an_error(guest: Guest) -> None:
    ssh = guest.testbed.guest.ssh
    assert ssh.run("umount", "-l", "/proc").status == 0
    try:
        with pytest.raises(
            InfrastructureError, match=r"the look at pinned and locked pages: .*ENOENT"
        ):
            guest.left()
    finally:
        assert ssh.run("mount", "-t", "proc", "proc", "/proc").status == 0


def test_every_detector_that_this_kernel_has_ran(guest: Guest) -> None:
    assert guest.before.detectors[:8] == (
        "processes",
        "files of the lab's own process",
        "PCI functions and their drivers",
        "IOMMU groups",
        "nodes under /dev",
        "owners of groups",
        "pinned and locked pages",
        "modules",
    )
    there = [path for path in SETTINGS if guest.hands.exists(path)]
    assert len(guest.before.seen["settings"]) == len(there) >= 9


# On kernels of their own

MODULES = "v6.12+modules"
LOSES = "v6.12+kmemleak+alloc-profiling"
LOCKS = "v6.12+kasan+lockdep+ubsan"
MUTANT = ROOT / "kernels" / "mutants" / "own7-leak-ctx.mbox"
SUITE = """
from errno import EINVAL

from lab.testing import raises_errno
from lab.vfio.files import Iommufd

def test_loses_nothing(process, devices):
    with (
        devices["edu0"].open_cdev(process) as owner,
        Iommufd.open(process, Iommufd.PATH) as iommufd,
    ):
        owner.bind(iommufd)
        owner.attach(iommufd.ioas_alloc())

def test_loses_a_context(process, devices):
    with (
        devices["edu0"].open_cdev(process) as owner,
        devices["edu0"].open_cdev(process) as loser,
        Iommufd.open(process, Iommufd.PATH) as iommufd,
    ):
        owner.bind(iommufd)
        with raises_errno(EINVAL):
            loser.bind(iommufd)

def test_is_not_blamed(testbed):
    assert testbed.number == 2
"""


@pytest.mark.slow
def test_a_module_that_is_held_is_named(new_cell: Callable[..., Cell]) -> None:
    testbed = new_cell(kernel=MODULES).testbed()
    held = [
        name for name in ("vfio", "iommufd") if testbed.hands.exists(f"/sys/module/{name}/refcnt")
    ]
    assert held
    with testbed.hands.open(Container.PATH), testbed.hands.open(Iommufd.PATH):
        left = testbed.unused.leftovers(testbed.hands, stretch=BRIEF)
    for name in held:
        assert any(
            re.fullmatch(f"module {name} is held [0-9]+ times, not [0-9]+", each) for each in left
        )
    assert testbed.leftovers() == []


_TURNS_IT_OFF = """
def test_finds_it_on(testbed):
    assert "{detector}" in testbed.detectors

def test_turns_it_off(guest):
    done = guest.ssh.run("sh", "-c", "{how}")
    assert done.status == 0, done.output

def test_is_not_blamed(testbed):
    assert testbed.number == 2
"""
# Nothing that user space may do turns lockdep off without a report: what it says is replaced.
_LIES = (
    "sed 's/debug_locks: .*/debug_locks: 0/' /proc/lockdep_stats >/lie &&"
    " mount --bind /lie /proc/lockdep_stats"
)


@pytest.mark.slow
@pytest.mark.timeout(0)  # a kernel may be built
@pytest.mark.parametrize(
    ("kernel", "detector", "how"),
    [
        pytest.param(LOCKS, "lockdep", _LIES, id="lockdep"),
        pytest.param("v6.12+kcsan", "kcsan", "echo off >/sys/kernel/debug/kcsan", id="kcsan"),
    ],
)
def test_a_detector_that_is_off_is_named_and_its_guest_replaced(
    small_lab: "SmallLab", kernel: str, detector: str, how: str
) -> None:
    small_lab.suite(_TURNS_IT_OFF.format(detector=detector, how=how))
    outcome = small_lab.start_pytest("--kernel", kernel).outcome(timeout=4 * 3600.0)
    assert outcome.verdicts == {
        "test_finds_it_on": "kept",
        "test_turns_it_off": "broken",
        "test_is_not_blamed": "kept",
    }
    left = outcome.tests["test_turns_it_off"]["message"]
    assert left == f"left behind: {detector} is off: it sees nothing any more"


@pytest.mark.slow
@pytest.mark.timeout(0)  # two kernels are built
def test_memory_that_the_kernel_loses_is_named(small_lab: "SmallLab") -> None:
    """allocinfo counts what stays, kmemleak finds what nothing points to."""
    small_lab.suite(SUITE)
    words = ("--kernel", LOSES, "--series", str(MUTANT))
    outcome = small_lab.start_pytest(*words).outcome(timeout=4 * 3600.0)
    assert outcome.verdicts == {
        "test_loses_nothing": "kept",
        "test_loses_a_context": "broken",
        "test_is_not_blamed": "kept",
    }
    assert {"allocations", "kmemleak"} <= set(outcome.results["detectors"]["vtd"])
    test = outcome.tests["test_loses_a_context"]
    left = test["message"].split("left behind: ")
    assert any(
        re.match(
            r"1 allocations of iommufd_fops_open\(\) in drivers/iommu/iommufd/main.c:\d+, ", each
        )
        for each in left
    )
    assert any(
        each.startswith("memory leak in iommufd_fops_open: ")
        and each.rstrip("; ").endswith("during first/test_small.py::test_loses_a_context")
        for each in left
    )
    assert any("iommufd_fops_open+0x" in splat for splat in test["splats"])
