# SPDX-License-Identifier: GPL-2.0-only
"""Small suites with every kind of test: their verdicts, the exit status, what the folder holds."""

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

_HEAD = """\
from errno import EBADF, EINVAL

import pytest

from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract, lacking, not_applicable, raises_errno
from lab.vfio.files import Iommufd

"""
_KEPT = """
def test_kept(process):
    assert process.syscall(Syscall.GETPID) == process.pid
"""
_BROKEN = """
def test_broken(process):
    with raises_errno(EINVAL):
        process.syscall(Syscall.CLOSE, 12345)
"""
_NOT_RUN = """
def test_skipped(process):
    raise lacking("a device that nobody has")

def test_not_applicable():
    raise not_applicable("there is no such thing here")
"""
_DIRTY = """
def test_leaves_an_owner(testbed, devices, hands):
    testbed.start_process().open(devices["edu0"].group_path(hands))

def test_is_not_hindered(testbed, devices, hands):
    assert testbed.number == 2
    hands.open(devices["edu0"].group_path(hands)).close()

def test_leaves_no_driver(devices, hands):
    devices["edu1"].set_driver(hands, None)

def test_finds_the_driver(testbed, devices, hands):
    assert testbed.number == 3
    assert devices["edu1"].driver(hands) == "vfio-pci"

def test_leaves_pinned_pages(testbed, devices):
    process = testbed.start_process()
    iommufd = Iommufd.open(process, Iommufd.PATH)
    cdev = devices["edu0"].open_cdev(process)
    cdev.bind(iommufd)
    ioas = iommufd.ioas_alloc()
    cdev.attach(ioas)
    page = process.mmap(process.page_size)
    iommufd.ioas_map(ioas, 0x100000, page.address, page.length)

def test_warns(hands):
    hands.write_text("/dev/kmsg", "<4>WARNING: CPU: 0 PID: 1 at lib/planted.c:1 plant+0x0/0x10")
    hands.write_text("/dev/kmsg", "<4>---[ end trace 0000000000000000 ]---")

def test_is_not_blamed(testbed):
    assert testbed.number == 5
"""
_LAB_ERROR = """
def test_errs(process):
    len(process)
"""
_SILENCED = """
def test_kills_the_labs_own_agent(hands, process):
    process.syscall(62, hands.pid, 9)

def test_goes_on(testbed, hands):
    assert testbed.number == 2
    assert hands.alive
"""


def test_kept_and_what_the_folder_holds(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _KEPT + _NOT_RUN)
    outcome = small_lab.pytest()
    assert outcome.status == 0
    assert outcome.verdicts == {
        "test_kept": "kept",
        "test_skipped": "skipped",
        "test_not_applicable": "not-applicable",
    }
    assert outcome.tests["test_skipped"]["message"] == "needs a device that nobody has"
    assert outcome.results["status"] == 0
    assert outcome.results["accel"] in ("kvm", "tcg")
    assert outcome.results["kernel"]["release"]
    assert "processes" in outcome.results["detectors"]["vtd"]
    for name in ("kernel.json", "image.json"):
        assert json.loads((outcome.folder / name).read_text())["key"]
    cases = ElementTree.parse(outcome.folder / "junit.xml").iter("testcase")
    assert len(list(cases)) == 3
    for path in outcome.tests["test_kept"]["evidence"]:
        assert (outcome.folder / path).is_file()
    guest = outcome.folder / "guests" / "001"
    assert {p.name for p in guest.iterdir()} >= {"console.log", "qemu.sh", "qemu.log"}
    assert not (guest / "initramfs").exists()


def test_broken_and_dirty(small_lab: "SmallLab") -> None:
    """Whoever leaves something behind is told so, and the next test has a clean guest."""
    small_lab.suite(_HEAD + _DIRTY + _KEPT + _BROKEN)
    outcome = small_lab.pytest()
    assert outcome.status == 1
    assert outcome.verdicts == {
        "test_leaves_an_owner": "broken",
        "test_is_not_hindered": "kept",
        "test_leaves_no_driver": "broken",
        "test_finds_the_driver": "kept",
        "test_leaves_pinned_pages": "broken",
        "test_warns": "broken",
        "test_is_not_blamed": "kept",
        "test_kept": "kept",
        "test_broken": "broken",
    }
    tests = outcome.tests
    assert "left behind: /dev/vfio/" in tests["test_leaves_an_owner"]["message"]
    assert "Device or resource busy" in tests["test_leaves_an_owner"]["message"]
    assert tests["test_leaves_no_driver"]["message"].startswith(
        "left behind: edu1 has the driver none (driver_override (null)), not vfio-pci "
        "(driver_override vfio-pci); left behind: /dev/vfio/"
    )
    assert (
        "left behind: pages that are still pinned: 1"
        in (tests["test_leaves_pinned_pages"]["message"])
    )
    assert tests["test_warns"]["message"].startswith("the kernel reported: WARNING in plant")
    assert "lib/planted.c:1" in tests["test_warns"]["splats"][0]
    assert "expected EINVAL, got EBADF" in tests["test_broken"]["message"]
    assert [test["splats"] for name, test in tests.items() if name != "test_warns"] == [[]] * 8


def test_the_labs_own_error_beats_a_broken_rule(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _BROKEN + _LAB_ERROR + _KEPT)
    outcome = small_lab.run()
    assert outcome.status == 2
    assert outcome.verdicts == {
        "test_broken": "broken",
        "test_errs": "lab-error",
        "test_kept": "kept",
    }
    assert "TypeError" in outcome.tests["test_errs"]["message"]
    assert "TypeError" in outcome.stdout


def test_a_guest_silenced_behind_our_back(small_lab: "SmallLab") -> None:
    """The test passes, and afterwards nobody answers: it is told so, and the run goes on."""
    small_lab.suite(_HEAD + _SILENCED)
    outcome = small_lab.pytest()
    assert outcome.verdicts == {
        "test_kills_the_labs_own_agent": "guest-lost",
        "test_goes_on": "kept",
    }
    assert outcome.status == 2
    assert outcome.results["finished"] is True


# What is known

_KNOWN = """
- {rule: OWN-3, test: test_still_broken, why: it was never mended, reference: a commit}
- {rule: OWN-4, why: it was mended meanwhile, reference: a message}
- {rule: OWN-5, before: "1.0", why: another kernel did it, reference: a message}
- {rule: OWN-6, why: no warning is excused, reference: a message}
"""
_RECORDED = """
@contract("OWN-3", Mode.IOMMUFD)
def test_still_broken(process):
    with raises_errno(EINVAL):
        process.syscall(Syscall.CLOSE, 12345)

@contract("OWN-4", Mode.IOMMUFD)
def test_mended(process):
    pass

@contract("OWN-5", Mode.IOMMUFD)
def test_of_another_kernel(process):
    with raises_errno(EINVAL):
        process.syscall(Syscall.CLOSE, 12345)

@contract("OWN-6", Mode.IOMMUFD)
def test_warns(hands):
    hands.write_text("/dev/kmsg", "<4>WARNING: CPU: 0 PID: 1 at lib/planted.c:1 plant+0x0/0x10")
    hands.write_text("/dev/kmsg", "<4>---[ end trace 0000000000000000 ]---")
"""


def test_what_is_recorded_is_known_and_what_is_mended_is_told(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _RECORDED)
    small_lab.known(_KNOWN)
    recorded = small_lab.run("--rule", "OWN-3", "--rule", "OWN-4")
    assert recorded.status == 0
    assert recorded.verdicts == {"test_still_broken": "known", "test_mended": "kept"}
    message = recorded.tests["test_still_broken"]["message"].splitlines()
    assert message[0] == "it was never mended (a commit; kernels/known.yaml:2)"
    assert "expected EINVAL, got EBADF" in message[1]
    mended = "it was mended meanwhile (a message; kernels/known.yaml:3)"
    assert recorded.results["mended"] == [mended]
    assert f"mended recorded as known and kept after all: {mended}" in recorded.stdout
    assert f"known 1: {message[0]} (OWN-3)" in recorded.stdout

    everything = small_lab.pytest()
    assert everything.status == 1
    assert everything.verdicts == recorded.verdicts | {
        "test_of_another_kernel": "broken",
        "test_warns": "broken",
    }
    assert "1 xfailed" in everything.stdout


def test_a_slip_in_what_is_recorded_is_the_configurations(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _RECORDED)
    small_lab.known("- {rule: OWN-3, why: it does}\n")
    outcome = small_lab.run()
    assert outcome.status == 2
    assert "kernels/known.yaml:1: 0.reference: is missing" in outcome.troubles


# Which machine

_MACHINES = """
from lab.testing import on_machine

@on_machine("no-iommu")
def test_bare(machine, hands):
    assert not machine.iommu
    assert not hands.exists("/sys/class/iommu/dmar0")

def test_own(machine, hands):
    assert machine.iommu
    assert hands.exists("/sys/class/iommu/dmar0")

@on_machine("no-iommu")
def test_bare_again(testbed):
    assert testbed.number == 2

@on_machine("elsewhere")
def test_elsewhere(testbed):
    pass
"""


def test_a_test_gets_the_machine_that_it_asks_for(small_lab: "SmallLab") -> None:
    """Those of one machine follow each other, the run's own come first."""
    small_lab.suite(_HEAD + _MACHINES)
    outcome = small_lab.run()
    assert outcome.status == 0
    assert {name: test["machine"] for name, test in outcome.tests.items()} == {
        "test_own": "vtd",
        "test_elsewhere": "vtd",  # the guest that was there when it was skipped
        "test_bare": "no-iommu",
        "test_bare_again": "no-iommu",
    }
    assert [name for name, verdict in outcome.verdicts.items() if verdict == "kept"] == [
        "test_own",
        "test_bare",
        "test_bare_again",
    ]
    assert outcome.tests["test_elsewhere"]["message"] == "needs a machine elsewhere in lab.yaml"
    assert outcome.results["machine"]["name"] == "vtd"
    assert set(outcome.results["machines"]) == {"vtd", "no-iommu"}


def test_a_machine_that_was_asked_for_is_the_only_one(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _MACHINES)
    outcome = small_lab.pytest("--machine", "vtd")
    assert outcome.verdicts == {
        "test_bare": "not-applicable",
        "test_own": "kept",
        "test_bare_again": "not-applicable",
        "test_elsewhere": "not-applicable",
    }
    why = "this is about machine no-iommu, and the run is on vtd alone"
    assert outcome.tests["test_bare"]["message"] == why
    assert set(outcome.results["machines"]) == {"vtd"}


# Which tests: none of these needs a guest

_MARKED = """
@contract("OWN-1", Mode.IOMMUFD)
def test_one():
    pass

@contract("OWN-3")
def test_many(mode):
    pass

def test_without_a_rule():
    pass
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--rule", "OWN-1"), {"test_one"}),
        (("--mode", "iommufd"), {"test_one", "test_many[iommufd]"}),
        (("--rule", "OWN-3", "--mode", "iommufd"), {"test_many[iommufd]"}),
        (("-k", "without or one"), {"test_one", "test_without_a_rule"}),
        (("--suite", "second"), {"test_second"}),
        (("--suite", "first", "--suite", "second", "-k", "second"), {"test_second"}),
        (("-k", "nothing"), set()),
    ],
)
def test_selection(small_lab: "SmallLab", words: tuple[str, ...], expected: set[str]) -> None:
    small_lab.suite(_HEAD + _MARKED)
    small_lab.suite("def test_second():\n    pass\n", "second")
    outcome = small_lab.run(*words)
    assert set(outcome.tests) == expected
    assert outcome.status == (0 if expected else 2)
    assert ("no test was selected" in outcome.stdout) is not bool(expected)
    assert list(words) == [w for w in outcome.results["selection"] if w in words] or "--suite" in (
        words
    )


def test_an_empty_selection_of_plain_pytest(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _MARKED)
    assert small_lab.pytest("-k", "nothing").status == 2


def test_json_is_the_report_and_out_is_where_it_lies(small_lab: "SmallLab") -> None:
    small_lab.suite(_HEAD + _KEPT)
    place = small_lab.root / "here" / "it-is"
    outcome = small_lab.run("--json", "--out", str(place))
    assert outcome.status == 0
    assert json.loads(outcome.stdout) == json.loads((place / "results.json").read_text())
    again = small_lab.run("--out", str(place))
    assert again.status == 2
    assert "the folder is not empty" in again.stderr
