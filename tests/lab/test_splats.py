# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel reports and what the IOMMU blocks during a test: announced or not.

The reports are planted through /dev/kmsg, the DMA is real.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

_HEAD = """\
import pytest

from lab.contract import Mode
from lab.vfio.edu import edu_of
from lab.vfio.modes import open_device

IOVA = 0x100000
WARNING = (
    "WARNING: CPU: 0 PID: 1 at lib/planted.c:1 plant_warning+0x0/0x10",
    "Call Trace:", " plant_caller+0x1/0x10", "---[ end trace 0000000000000000 ]---",
)
KASAN = ("BUG: KASAN: slab-use-after-free in plant_kasan+0x0/0x10", "Read of size 8", "=" * 66)
LOCKDEP = (
    "WARNING: possible recursive locking detected", "agent/71 is trying to acquire lock:",
    "ffff8880 (&plant){+.+.}-{3:3}, at: plant_lock+0x1/0x10", "Call Trace:", " plant_lock+0x1/0x10",
)
HUNG = (
    "INFO: task agent:71 blocked for more than 122 seconds.", "Call Trace:", " schedule+0x1/0x10",
    " plant_wait+0x1/0x10",
)

def plant(process, *reports):
    for report in reports:
        for line in report:
            process.write_text("/dev/kmsg", f"<4>{line}\\n")

def reach_out(process, device):
    with open_device(process, device, Mode.IOMMUFD) as opened, edu_of(opened.device) as edu:
        opened.device.enable_dma()
        edu.copy_out(IOVA, 4)
"""
_ANNOUNCED = """
def test_announced(process, edu, expected):
    with expected.splat("WARNING in plant_warning") as reports:
        plant(process, WARNING)
        process.write_text("/proc/sys/kernel/tainted", "512\\n")  # as a real one does
    assert [report.headline for report in reports] == [WARNING[0]]
    with expected.splat("KASAN: .*Read in plant_kasan|possible deadlock") as reports:
        plant(process, KASAN, LOCKDEP)
    assert len(reports) == 2
    with expected.dma_faults(edu, 1) as faults:
        reach_out(process, edu)
    assert [(fault.requester, fault.address, fault.write) for fault in faults] == [
        (edu.requester, IOVA, True)
    ]

def test_what_never_came(process, edu, resettable, expected):
    with pytest.raises(pytest.fail.Exception, match="the kernel reported nothing titled 'WARNING"):
        with expected.splat("WARNING in another"):
            pass
    with pytest.raises(pytest.fail.Exception, match="announced some blocked DMA of .*, and 0 came"):
        with expected.dma_faults(resettable):
            pass
    with expected.dma_faults(edu):
        with pytest.raises(pytest.fail.Exception, match="announced 2 blocked DMA of .*"):
            with expected.dma_faults(edu, 2):
                reach_out(process, edu)

def test_what_may_come(process, edu, expected):
    with expected.dma_faults(edu, perhaps=True) as faults:
        pass
    assert not faults
    with expected.dma_faults(edu, perhaps=True) as faults:
        reach_out(process, edu)
    assert faults

def test_guest_without_taint(testbed, hands):
    assert testbed.number == 2
    assert hands.read_text("/proc/sys/kernel/tainted") == "0\\n"
"""
_NOT_ANNOUNCED = """
def test_not_announced(process, edu, resettable, expected):
    with expected.splat("WARNING in plant_warning"):
        plant(process, WARNING)
    with expected.dma_faults(edu):
        reach_out(process, edu)
        reach_out(process, resettable)
    plant(process, WARNING, KASAN, LOCKDEP, HUNG)

def test_never_came(expected):
    with expected.splat("general protection fault"):
        pass

def test_dies_of_it(process, expected):
    with expected.splat("WARNING in plant_warning"):
        plant(process, WARNING)
    plant(process, KASAN, HUNG)
    process.write_text("/proc/sysrq-trigger", "c")

def test_fresh_guest(testbed):
    assert testbed.number == 5
"""


def test_what_is_announced_is_expected_and_only_that(small_lab: "SmallLab") -> None:
    """A test that passed fails by what it has not announced; what a blocked DMA prints on the
    console counts with QEMU's trace, not once more."""
    small_lab.suite(_HEAD + _ANNOUNCED + _NOT_ANNOUNCED)
    outcome = small_lab.pytest()
    assert outcome.status == 1
    assert outcome.verdicts == {
        "test_announced": "kept",
        "test_what_never_came": "kept",
        "test_what_may_come": "kept",
        "test_guest_without_taint": "kept",
        "test_not_announced": "broken",
        "test_never_came": "broken",
        "test_dies_of_it": "guest-lost",
        "test_fresh_guest": "kept",
    }
    not_announced = outcome.tests["test_not_announced"]
    said, fault = not_announced["message"].split("; not announced: ")
    assert said.split("; ") == [
        "the kernel reported: WARNING in plant_warning",
        "the kernel reported: KASAN: slab-use-after-free Read in plant_kasan",
        "the kernel reported: possible deadlock in plant_lock",
        "the kernel reported: INFO: task hung in plant_wait",
    ]
    assert fault.startswith("the IOMMU blocked a write of ")
    assert fault.endswith(" at 0x100000")
    assert len(not_announced["splats"]) == 4
    assert "plant_caller" in not_announced["splats"][0]
    assert outcome.tests["test_never_came"]["message"] == (
        "announced, but the kernel reported nothing titled 'general protection fault'"
    )
    consoles = [path.read_text() for path in outcome.folder.glob("guests/*/console.log")]
    assert any("DMAR: [DMA Write" in console for console in consoles)
    dies = outcome.tests["test_dies_of_it"]
    assert dies["message"].startswith(
        "the kernel reported: KASAN: slab-use-after-free Read in plant_kasan; during the test: "
        "the kernel panicked: INFO: task hung in plant_wait"
    )
    assert ["plant_kasan" in text for text in dies["splats"]] == [True, False]
    assert "Kernel panic" in dies["splats"][1]
