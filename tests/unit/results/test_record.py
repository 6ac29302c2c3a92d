# SPDX-License-Identifier: GPL-2.0-only
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab.contract import Mode
from lab.errors import ConfigurationError
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict

KEPT = TestRecord("t.py::a", "contract", Verdict.KEPT, 0.1, "OWN-1", Mode.IOMMUFD)
BROKEN = replace(KEPT, verdict=Verdict.BROKEN)
ERROR = replace(KEPT, verdict=Verdict.LAB_ERROR)
LOST = replace(KEPT, verdict=Verdict.GUEST_LOST)
CRASHED = replace(LOST, splats=("Kernel panic - not syncing",))


def run(*tests: TestRecord, trouble: tuple[Trouble, ...] = (), finished: bool = True) -> RunRecord:
    return RunRecord(
        "0.1.0", "2025-11-22T12:59:00Z", 1.0, tests=tests, trouble=trouble, finished=finished
    )


def test_a_record_survives_json(record: RunRecord) -> None:
    whole = replace(
        record,
        trouble=(Trouble("boot failed", Verdict.GUEST_LOST, "…", ("panic",), ("console.log",)),),
        finished=False,
    )
    assert RunRecord.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_a_test_survives_json(broken: TestRecord) -> None:
    assert TestRecord.from_json(json.loads(json.dumps(broken.to_json()))) == broken


def test_the_fields_that_scripts_read(record: RunRecord, broken: TestRecord) -> None:
    content = record.to_json()
    assert content["schema"] == 1
    assert content["status"] == 2
    assert content["kernel"]["sha256"] == "ab12"
    assert content["figures"] == {"boot_seconds": 4.5}
    assert content["tests"][-1] == {
        "id": broken.id,
        "suite": "contract",
        "verdict": "broken",
        "duration": 1.25,
        "rule": "OWN-3",
        "mode": "iommufd",
        "message": broken.message,
        "detail": broken.detail,
        "splats": [],
        "evidence": ["guests/001/console.log"],
        "machine": "vtd",
        "program": None,
        "known": "",
        "folder": None,
    }


def test_facts_may_hold_paths() -> None:
    record = replace(run(KEPT), kernel={"bzimage": Path("/boot/vmlinuz")})
    assert record.to_json()["kernel"] == {"bzimage": "/boot/vmlinuz"}


def test_another_schema_is_refused() -> None:
    content = run(KEPT).to_json() | {"schema": 2}
    with pytest.raises(ConfigurationError, match="schema 2 is not known; this lab reads 1"):
        RunRecord.from_json(content)


def test_a_field_of_a_later_lab_is_passed_over() -> None:
    assert RunRecord.from_json(run(KEPT).to_json() | {"weather": "fine"}) == run(KEPT)


def test_a_verdict_that_is_none_is_named_with_its_place() -> None:
    content = run(KEPT).to_json()
    content["tests"][0]["verdict"] = "passed"
    with pytest.raises(ConfigurationError, match=r"tests\.0\.verdict"):
        RunRecord.from_json(content)


@pytest.mark.parametrize(
    ("record", "status"),
    [
        (run(KEPT), 0),
        (run(KEPT, BROKEN), 1),
        (run(KEPT, CRASHED), 1),
        (run(KEPT, LOST), 2),
        (run(BROKEN, LOST), 2),
        (run(ERROR, CRASHED), 2),
        (run(KEPT, trouble=(Trouble("no QEMU"),)), 2),
        (run(BROKEN, trouble=(Trouble("no QEMU"),)), 2),
        (run(), 2),
        (run(KEPT, finished=False), 2),
        (run(trouble=(Trouble("boot failed", Verdict.GUEST_LOST, splats=("panic",)),)), 1),
        (run(trouble=(Trouble("boot failed", Verdict.GUEST_LOST),)), 2),
    ],
)
def test_status_of_a_run(record: RunRecord, status: int) -> None:
    assert record.status == status


def test_a_recorded_deviation_that_never_shows_is_mended() -> None:
    """One of its tests is enough for it to be there still; a skip says nothing."""
    kept, skipped = replace(KEPT, known="old"), replace(KEPT, known="new", verdict=Verdict.SKIPPED)
    shown = replace(kept, verdict=Verdict.KNOWN)
    assert run(KEPT, skipped).mended == ()
    assert run(kept, shown).mended == ()
    assert run(kept, kept, skipped).mended == ("old",)
    assert run(kept).to_json()["mended"] == ["old"]
    assert run(kept, shown).status == 0


def test_cells_hold_the_worst_and_count_it() -> None:
    other = replace(KEPT, mode=Mode.TYPE1)
    bare = replace(KEPT, rule=None, mode=None, suite="selftests")
    cells = run(KEPT, BROKEN, KEPT, other, bare).cells()
    assert list(cells) == [
        ("OWN-1", Mode.IOMMUFD),
        ("OWN-1", Mode.TYPE1),
        ("selftests", None),
    ]
    cell = cells["OWN-1", Mode.IOMMUFD]
    assert (cell.verdict, len(cell.tests)) == (Verdict.BROKEN, 3)


def test_counts_begin_with_the_worst(record: RunRecord) -> None:
    assert list(record.counts().items()) == [
        (Verdict.LAB_ERROR, 1),
        (Verdict.GUEST_LOST, 1),
        (Verdict.BROKEN, 1),
        (Verdict.KNOWN, 1),
        (Verdict.SKIPPED, 2),
        (Verdict.KEPT, 4),
        (Verdict.NOT_APPLICABLE, 1),
    ]
