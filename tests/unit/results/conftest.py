# SPDX-License-Identifier: GPL-2.0-only
import pytest

from lab.contract import Mode
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

SECOND_BIND = "tests/contract/test_ownership.py::test_second_bind_is_refused"


@pytest.fixture
def broken() -> TestRecord:
    """A rule that the kernel broke; its text holds what a console may hold."""
    frames = [f"test_ownership.py:{number}: in frame {number}" for number in range(1, 21)]
    return TestRecord(
        id=f"{SECOND_BIND}[iommufd]",
        suite="contract",
        verdict=Verdict.BROKEN,
        duration=1.25,
        rule="OWN-3",
        mode=Mode.IOMMUFD,
        message="BIND <again> gave 0 & not EINVAL",
        detail="\n".join([*frames, "E  \x1b[31mFailed\x1b[0m \x00 \udc80"]),
        evidence=("guests/001/console.log",),
        machine="vtd",
    )


@pytest.fixture
def tests(broken: TestRecord) -> tuple[TestRecord, ...]:
    """One test of each verdict, and three kept ones in a cell."""
    kept = [
        TestRecord(f"{SECOND_BIND}_{n}[vfio_type1_iommu]", "contract", Verdict.KEPT, 0.5, "OWN-3",
                   Mode.TYPE1)
        for n in range(3)
    ]  # fmt: skip
    file = "tests/contract/test_others.py"
    return (
        TestRecord("tests/selftests/vfio::dma", "selftests", Verdict.KEPT, 2.0),
        TestRecord(f"{file}::lost", "contract", Verdict.GUEST_LOST, 9.0, "LIFE-4",
                   Mode.COMPAT_TYPE1, "the guest panicked", "",
                   ("BUG: KASAN: use-after-free\r\n RIP: 0010",), ("guests/002/console.log",)),
        TestRecord(f"{file}::error", "contract", Verdict.LAB_ERROR, 0.1, "DMA-1", Mode.IOMMUFD,
                   "the disk is full"),
        TestRecord(f"{file}::old", "contract", Verdict.KNOWN, 0.1, "MAP-6", Mode.TYPE1,
                   "EINVAL; mended in 6.18"),
        TestRecord(f"{file}::token", "contract", Verdict.SKIPPED, 0.0, "SRV-1", Mode.IOMMUFD,
                   "QEMU has no igb"),
        TestRecord(f"{file}::token", "contract", Verdict.SKIPPED, 0.0, "SRV-1", Mode.TYPE1,
                   "QEMU has no igb"),
        TestRecord(f"{file}::none", "contract", Verdict.NOT_APPLICABLE, 0.0, "NOIO-1", None,
                   "this machine has an IOMMU"),
        *kept,
        broken,
    )  # fmt: skip


@pytest.fixture
def record(tests: tuple[TestRecord, ...]) -> RunRecord:
    return RunRecord(
        version="0.1.0",
        started="2025-11-22T12:59:00Z",
        seconds=83.2,
        accel="tcg",
        selection=("contract", "selftests"),
        kernel={"release": "6.12.57", "sha256": "ab12", "series": ["a.mbox"]},
        image={"name": "minimal", "sha256": "cd34"},
        machine={"name": "vtd", "cpus": 2},
        qemu={"version": "9.2.0"},
        host={"name": "lab1"},
        figures={"boot_seconds": 4.5},
        tests=tests,
    )
