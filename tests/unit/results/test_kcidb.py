# SPDX-License-Identifier: GPL-2.0-only
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from kcidb_io.schema import LATEST  # type: ignore[import-untyped]

from lab.results.kcidb import VERSION, kcidb
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict

FOLDER = "20261128T210000Z/cells/v6.12+kasan-vtd-contract"
LINK = "https://lab.example/nights"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
STATUS = {
    Verdict.NOT_APPLICABLE: "SKIP",
    Verdict.KEPT: "PASS",
    Verdict.SKIPPED: "SKIP",
    Verdict.KNOWN: "FAIL",
    Verdict.BROKEN: "FAIL",
    Verdict.GUEST_LOST: "ERROR",
    Verdict.LAB_ERROR: "MISS",
}


def kernel_of(source: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    provenance = {
        "made": "2026-11-28T20:01:38Z",
        "seconds": 720.2,
        "source": source,
        "fragments": {"boot": "ab", "vfio": "cd"},
        "toolchain": {"compiler": "gcc", "compiler_version": "gcc (Debian) 12.2.0"},
        **more,
    }
    return {
        "name": "v6.12",
        "release": "6.12.57",
        "key": "6c41344efc1cef8380dcb198",
        "build_id": "d8565fde",
        "provenance": provenance,
    }


PACKAGE = kernel_of({"name": "linux-source-6.12", "version": "6.12.57-1", "suite": "bookworm"})
TREE = kernel_of({"git": "/home/me/linux", "ref": "next", "commit": COMMIT})
SERIES = {"patches": ["vfio: mend it", "vfio: and that"], "file": "/home/me/a.mbox", "files": []}
PATCHED = kernel_of(
    {"git": "/home/me/linux", "ref": "HEAD", "commit": COMMIT},
    series=SERIES,
    inputs={"series": {"sha256": "ab12"}},
)
DISTRIBUTION = kernel_of({"packages": [{"name": "linux-image-6.12", "version": "6.12.57-1"}]})
FOREIGN = {
    "name": "bzImage",
    "release": None,
    "key": "ab",
    "provenance": {"bzimage": "/home/me/bzImage", "sha256": "ab12", "release": None},
}


def checked(records: Mapping[str, RunRecord], link: str = "") -> dict[str, Any]:
    """The report, as kcidb-io reads it from a file."""
    read = json.loads(json.dumps(kcidb(records, link)))
    found: dict[str, Any] = LATEST.validate_exactly(read)
    return found


@pytest.fixture
def run(record: RunRecord) -> RunRecord:
    return replace(record, kernel=PACKAGE)


def test_it_is_the_schema_s_newest_version() -> None:
    assert (VERSION["major"], VERSION["minor"]) == (LATEST.major, LATEST.minor)


@pytest.mark.parametrize("kernel", [PACKAGE, TREE, PATCHED, DISTRIBUTION, FOREIGN])
@pytest.mark.parametrize("link", ["", "here", LINK, f"{LINK}/"])
def test_every_kernel_makes_a_valid_report(
    run: RunRecord, kernel: dict[str, Any], link: str
) -> None:
    report = checked({FOLDER: replace(run, kernel=kernel)}, link)
    (checkout,), (build,) = report["checkouts"], report["builds"]
    assert build["checkout_id"] == checkout["id"]
    assert {test["build_id"] for test in report["tests"]} == {build["id"]}
    assert "/home/me" not in json.dumps(report)


def test_every_object_has_an_id_of_its_own(run: RunRecord) -> None:
    elsewhere = replace(run, host={"name": "lab2"})
    records = {FOLDER: run, f"{FOLDER}-1": run}
    tests = checked(records)["tests"] + checked({FOLDER: elsewhere})["tests"]
    assert len({test["id"] for test in tests}) == len(tests)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_verdict_has_its_status(run: RunRecord, broken: TestRecord, verdict: Verdict) -> None:
    report = checked({FOLDER: replace(run, tests=(replace(broken, verdict=verdict),))})
    assert report["tests"][0]["status"] == STATUS[verdict]


def test_a_guest_that_crashed_is_the_kernel_s(run: RunRecord, broken: TestRecord) -> None:
    crashed = replace(broken, verdict=Verdict.GUEST_LOST, splats=("BUG: KASAN\x00",))
    (test, *_) = checked({FOLDER: replace(run, tests=(crashed,))})["tests"]
    assert test["status"] == "FAIL"
    assert test["log_excerpt"].startswith("BUG: KASAN\\x00\n")


def test_a_path_leads_from_the_suite_to_the_rule_s_test(run: RunRecord) -> None:
    paths = [test["path"] for test in checked({FOLDER: run})["tests"]]
    assert "vfio_lab.contract.OWN-3.test_second_bind_is_refused-iommufd" in paths
    assert "vfio_lab.selftests.dma" in paths


def test_a_commit_is_named_and_its_tree_is_not(run: RunRecord) -> None:
    (checkout,) = checked({FOLDER: replace(run, kernel=TREE)})["checkouts"]
    assert checkout["git_commit_hash"] == COMMIT
    assert checkout["git_repository_branch"] == "next"
    assert checkout["patchset_hash"] == ""


def test_a_series_is_another_checkout(run: RunRecord) -> None:
    patched = replace(run, kernel=PATCHED | {"key": "other"})
    report = checked({FOLDER: replace(run, kernel=TREE), f"{FOLDER}-s": patched}, LINK)
    base, series = report["checkouts"]
    assert series["git_commit_hash"] == base["git_commit_hash"]
    assert series["comment"].endswith("with vfio: mend it with vfio: and that")
    assert "patchset_hash" not in series
    assert series["patchset_files"][0]["url"].endswith("-vtd-contract-s/series.mbox")
    assert len(report["builds"]) == 2


def test_runs_of_the_same_bits_are_of_one_build(run: RunRecord) -> None:
    report = checked({FOLDER: run, "other": run})
    assert (len(report["checkouts"]), len(report["builds"])) == (1, 1)


def test_files_are_named_where_they_can_be_fetched(run: RunRecord) -> None:
    def files(link: str) -> list[Any]:
        tests = checked({FOLDER: run}, link)["tests"]
        return [file for test in tests for file in test.get("output_files", [])]

    assert files("") == []
    assert files(f"{LINK}/")[0] == {
        "name": "console.log",
        "url": f"{LINK}/20261128T210000Z/cells/v6.12%2Bkasan-vtd-contract/guests/002/console.log",
    }


def test_a_long_trace_is_cut(run: RunRecord, broken: TestRecord) -> None:
    long = replace(broken, detail="x" * 100_000)
    (test, *_) = checked({FOLDER: replace(run, tests=(long,))})["tests"]
    assert len(test["log_excerpt"]) == 16384


def test_a_known_deviation_is_an_issue_once(run: RunRecord, broken: TestRecord) -> None:
    known = replace(broken, verdict=Verdict.KNOWN, known="mended in 6.18 (commit; known.yaml:3)")
    report = checked({FOLDER: replace(run, tests=(known, known))})
    (issue,) = report["issues"]
    assert issue["comment"] == known.known
    assert [incident["issue_id"] for incident in report["incidents"]] == [issue["id"]] * 2
    assert [incident["test_id"] for incident in report["incidents"]] == [
        test["id"] for test in report["tests"][:2]
    ]


def test_trouble_outside_of_a_test_is_missed(run: RunRecord) -> None:
    report = checked({FOLDER: replace(run, tests=(), trouble=(Trouble("no QEMU"),))})
    trouble, _ = report["tests"]
    assert (trouble["path"], trouble["status"]) == ("vfio_lab.run", "MISS")
    assert trouble["comment"] == "no QEMU"


def test_figures_are_numbers_with_their_unit(run: RunRecord) -> None:
    (figure,) = [test for test in checked({FOLDER: run})["tests"] if test["status"] == "DONE"]
    assert figure["path"] == "vfio_lab.figures.boot_seconds"
    assert figure["number"] == {"value": 4.5, "unit": "s"}


def test_a_run_without_a_kernel_is_not_told(record: RunRecord) -> None:
    report = checked({FOLDER: replace(record, kernel={}), "other": replace(record, kernel=PACKAGE)})
    assert len(report["builds"]) == 1
    assert len(report["tests"]) == len(record.tests) + 1
