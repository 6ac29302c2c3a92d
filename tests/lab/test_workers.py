# SPDX-License-Identifier: GPL-2.0-only
"""Guests that are ready before they are needed, and several workers that make one run."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.cell import Cell
from lab.guest import Accelerator

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

_HEAD = """\
from errno import EBADF, EINVAL
from pathlib import Path
import os, time

import pytest

from lab.agent.syscalls import Syscall
from lab.testing import on_machine, raises_errno

"""


def test_the_next_guest_is_ready(
    new_cell: Callable[..., Cell], wait_until: Callable[..., bool]
) -> None:
    """It has booted while the first one was in use, and takes its place at once. Meanwhile it takes
    no processor from the tests."""
    cell = new_cell()
    first = cell.testbed()
    cell.expect(cell.machine_name)
    folder = first.guest.folder.parent / "002"
    assert wait_until((folder / "console.log").exists, 60.0)
    assert cell.testbed() is first
    coming = cell._pool._coming  # noqa: SLF001
    assert coming
    assert wait_until(coming.done, 60.0)
    waiting = coming.result().guest
    state = "paused" if waiting.accelerator is Accelerator.TCG else "running"
    assert waiting.monitor.execute("query-status")["status"] == state
    first.guest.monitor.execute("quit")
    assert wait_until(lambda: not first.guest.alive, 10.0)
    started = time.monotonic()
    second = cell.testbed()
    waited = time.monotonic() - started
    assert second.guest.folder == folder
    assert second.guest.ssh.run("true").status == 0
    assert waited < second.guest.seconds["login"] / 4


_SPARE = """
@pytest.mark.parametrize("number", range(14))
def test_one_of_many(testbed, number):
    if number == 2:
        testbed.guest.monitor.execute("quit")
    assert testbed.number == (1 if number < 3 else 2)
"""


def test_a_replacement_costs_no_waiting(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _SPARE)
    outcome = small_lab.pytest()
    assert outcome.verdicts["test_one_of_many[2]"] == "guest-lost"
    assert [name for name, verdict in outcome.verdicts.items() if verdict != "kept"] == [
        "test_one_of_many[2]"
    ]
    assert outcome.results["figures"]["guests"] == 2


_BETWEEN = """
import time

import pytest

from lab.plugin.options import SESSION

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    result = yield
    if item.name == "test_first":
        guest = item.config.stash[SESSION].cell.current.guest
        guest.monitor.execute("quit")
        while guest.alive:
            time.sleep(0.01)
    return result
"""


def test_a_guest_lost_between_two_tests_is_neithers(small_lab: "SmallLab") -> None:
    small_lab.suite(
        "def test_first(testbed):\n    pass\n"
        "def test_without_any():\n    pass\n"
        "def test_second(testbed):\n    assert testbed.number == 2\n"
    )
    (small_lab.root / "first" / "conftest.py").write_text(_BETWEEN)
    outcome = small_lab.run()
    assert set(outcome.verdicts.values()) == {"kept"}
    (trouble,) = outcome.results["trouble"]
    assert trouble["verdict"] == "guest-lost"
    assert trouble["message"].startswith("guest 001: after its last test: ")
    assert outcome.status == 2


_MIXED = """
@pytest.mark.parametrize("number", range(6))
def test_kept(process, number):
    assert process.syscall(Syscall.GETPID) == process.pid

def test_broken(process):
    with raises_errno(EINVAL):
        process.syscall(Syscall.CLOSE, 12345)

def test_loses_its_guest(guest):
    guest.monitor.execute("quit")

@on_machine("no-iommu")
def test_bare(machine):
    assert not machine.iommu
"""


def test_two_workers_make_one_run(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _MIXED)
    outcome = small_lab.run("-n", "2")
    assert outcome.status == 2
    assert outcome.verdicts == {f"test_kept[{n}]": "kept" for n in range(6)} | {
        "test_broken": "broken",
        "test_loses_its_guest": "guest-lost",
        "test_bare": "kept",
    }
    assert "expected EINVAL, got EBADF" in outcome.tests["test_broken"]["message"]
    assert outcome.tests["test_bare"]["machine"] == "no-iommu"
    results = outcome.results
    assert results["finished"] is True
    assert results["trouble"] == []
    assert set(results["machines"]) == {"vtd", "no-iommu"}
    assert results["figures"]["guests"] >= 3
    assert results["figures"]["first_call_seconds"] > results["figures"]["login_seconds"]
    workers = {path.name.partition("-")[0] for path in (outcome.folder / "guests").iterdir()}
    assert workers == {"gw0", "gw1"}
    for path in outcome.tests["test_broken"]["evidence"]:
        assert (outcome.folder / path).is_file()
    assert "9 tests: 1 guest-lost, 1 broken, 7 kept" in outcome.stdout


def test_workers_of_plain_pytest_stop_at_the_first_failure(small_lab: "SmallLab") -> None:
    failing = (
        "@pytest.mark.parametrize('n', range(40))\ndef test_fails(process, n):\n    assert 0\n"
    )
    small_lab.suite(_HEAD + failing)
    outcome = small_lab.pytest("-n", "2", "-x")
    assert outcome.status == 1
    assert outcome.results["finished"] is True
    assert 1 <= len(outcome.tests) < 40


def test_a_kernel_that_cannot_be_had_is_told_once(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _MIXED)
    outcome = small_lab.pytest("-n", "2", "--kernel", "nowhere")
    assert outcome.status == 2
    assert outcome.results["tests"] == []
    (trouble,) = outcome.results["trouble"]
    assert "nowhere" in trouble["message"]


@pytest.mark.parametrize("words", [("-n", "2"), ("--continue-on-collection-errors",)])
def test_a_file_that_cannot_be_read_is_told(small_lab: "SmallLab", words: tuple[str, ...]) -> None:
    small_lab.suite("def test_nothing():\n    pass\n")
    (small_lab.root / "first" / "test_bad.py").write_text("import nothing_of_this_name\n")
    outcome = small_lab.pytest(*words)
    assert outcome.status == 2
    assert outcome.verdicts == {"test_nothing": "kept"}
    assert "test_bad.py cannot be read" in outcome.troubles


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_failure_beside_the_suites_counts(small_lab: "SmallLab", workers: str) -> None:
    small_lab.suite("def test_nothing():\n    pass\n")
    (small_lab.root / "test_other.py").write_text("def test_other():\n    assert 0\n")
    outcome = small_lab.pytest("-n", workers, str(small_lab.root / "test_other.py"))
    assert outcome.verdicts == {"test_nothing": "kept"}
    assert outcome.results["status"] == 0
    assert outcome.status == 1


def test_what_no_encoding_can_say_comes_from_a_worker(small_lab: "SmallLab") -> None:
    """As a file's name in the guest, any byte but two."""
    small_lab.suite("def test_name():\n    assert False, '\\udcff'\n")
    outcome = small_lab.pytest("-n", "2")
    assert outcome.troubles == ""
    assert outcome.tests["test_name"]["message"].startswith("\udcff")
    assert outcome.status == 1


_DEADLY = """
@pytest.mark.parametrize("number", range(6))
def test_is_ended(process, number, request):
    if number == 1 and not Path("ended").exists():
        Path("ended").touch()
        os.kill(os.getpid(), 9)
"""


def test_a_worker_that_dies_takes_its_guest_along(small_lab: "SmallLab") -> None:
    """Its test has a record, the others run in a new one, and the run does not look clean."""
    small_lab.suite(_HEAD + _DEADLY)
    outcome = small_lab.pytest("-n", "2")
    assert outcome.status == 2
    died = outcome.tests["test_is_ended[1]"]
    assert died["verdict"] == "lab-error"
    assert died["message"].endswith(" died while it ran this test")
    assert died["suite"] == "first"
    kept = {name for name, verdict in outcome.verdicts.items() if verdict == "kept"}
    assert kept == {f"test_is_ended[{n}]" for n in (0, 2, 3, 4, 5)}


_TOLD = """
from lab.errors import LabError
from lab.plugin.options import SESSION

def test_sees_something(request):
    request.config.stash[SESSION].add_trouble(LabError("a guest was odd"))

def test_dies():
    if not Path("ended").exists():
        Path("ended").touch()
        os.kill(os.getpid(), number)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_worker_saw_is_told_once_however_it_ends(
    small_lab: "SmallLab", number: signal.Signals
) -> None:
    small_lab.suite(_HEAD + f"number = {int(number)}\n" + _TOLD)
    outcome = small_lab.pytest("-n", "1")
    assert outcome.status == 2
    assert outcome.troubles.count("a guest was odd") == 1


_LONG = """
@pytest.mark.parametrize("number", range(4))
def test_takes_long(process, number):
    Path(f"began-{number}").touch()
    time.sleep(60)
"""


def test_workers_end_with_their_controller(
    small_lab: "SmallLab",
    qemus: Callable[[Path], list[int]],
    wait_until: Callable[..., bool],
    tmp_path: Path,
) -> None:
    """Ctrl-C ends them in order; killed, they end all the same, and so do the guests."""
    small_lab.suite(_HEAD + _LONG)
    for number in (signal.SIGINT, signal.SIGKILL):
        for path in small_lab.root.glob("began-*"):
            path.unlink()
        started = small_lab.start("-n", "2")
        assert wait_until(lambda: len(list(small_lab.root.glob("began-*"))) == 2, 90.0)
        assert qemus(small_lab.root)
        if number is signal.SIGINT:  # a terminal tells the whole group
            os.killpg(started.process.pid, number)
            assert started.outcome().results["finished"] is False
        else:
            started.process.kill()
            started.process.wait()
            for left in (tmp_path / "tmp").iterdir():
                shutil.rmtree(left)  # nobody could
        assert wait_until(lambda: not qemus(small_lab.root), 30.0)
