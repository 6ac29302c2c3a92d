# SPDX-License-Identifier: GPL-2.0-only
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.terminal import report
from lab.results.verdict import Verdict

FOLDER = Path("/state/runs/20251122T125900Z-1")


def rendered(record: RunRecord, *, width: int = 80, terminal: bool = False) -> str:
    file = io.StringIO()
    report(record, FOLDER, Console(file=file, width=width, force_terminal=terminal))
    return file.getvalue()


def row(text: str, subject: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(subject))


def test_a_cell_shows_the_worst_and_how_many(record: RunRecord, broken: TestRecord) -> None:
    kept = replace(broken, verdict=Verdict.KEPT)
    text = rendered(replace(record, tests=(*record.tests, kept)))
    assert row(text, "OWN-3").split()[-4:] == ["BROKEN", "1/2", "kept", "3"]
    assert row(text, "LIFE-4").split()[-1] == "LOST"
    assert row(text, "SRV-1").split()[-2:] == ["skip", "skip"]


def test_what_does_not_apply_is_no_share_of_a_cell(record: RunRecord, broken: TestRecord) -> None:
    kept = replace(broken, verdict=Verdict.KEPT)
    none = replace(broken, verdict=Verdict.NOT_APPLICABLE)
    assert row(rendered(replace(record, tests=(kept, none))), "OWN-3").split()[-1] == "kept"
    assert row(rendered(replace(record, tests=(none, none))), "OWN-3").split()[-2:] == ["n/a", "2"]


def test_rows_follow_the_contract(record: RunRecord) -> None:
    subjects = [line.split()[0] for line in rendered(record).splitlines()[3:10]]
    assert subjects == ["OWN-3", "MAP-6", "DMA-1", "LIFE-4", "NOIO-1", "SRV-1", "selftests"]


def test_a_column_is_a_mode_that_occurs(record: RunRecord, broken: TestRecord) -> None:
    text = rendered(replace(record, tests=(broken,)))
    assert "iommufd" in row(text, "rule")
    assert "type1" not in text
    assert "any" not in row(text, "rule")
    assert "any" in row(rendered(record), "rule")


def test_no_word_of_the_table_is_cut_but_titles(record: RunRecord) -> None:
    every = replace(record, tests=tuple(
        replace(record.tests[-1], mode=mode, rule="RST-2", verdict=verdict)
        for mode in {test.mode for test in record.tests}
        for verdict in (Verdict.BROKEN, Verdict.KEPT)
    ))  # fmt: skip
    text = rendered(every)
    assert row(text, "RST-2").count("BROKEN 1/2") == 4
    assert all(len(line) <= 80 for line in text.splitlines()[:4])


def test_a_program_has_a_row_of_counts(record: RunRecord, broken: TestRecord) -> None:
    case = replace(broken, id="a::case", suite="selftests", rule=None, program="iommufd_fail_nth")
    cases = [
        case,
        replace(case, verdict=Verdict.KEPT),
        replace(case, verdict=Verdict.KEPT, mode=None),
        replace(case, verdict=Verdict.SKIPPED, program="vfio_pci_device_test"),
    ]
    text = rendered(replace(record, tests=(*record.tests, *cases)))
    assert row(text, "program").split() == ["program", "kept", "skip", "BROKEN", "seconds"]
    assert row(text, "iommufd_fail").split() == ["iommufd_fail_nth", "2", "1", "3.8"]
    assert row(text, "vfio_pci_device_test").split() == ["vfio_pci_device_test", "1", "1.2"]
    assert row(text, "OWN-3") == row(rendered(record), "OWN-3")
    alone = rendered(replace(record, tests=tuple(cases)))
    assert not any(line.startswith("rule") for line in alone.splitlines())
    assert "BROKEN iommufd_fail_nth iommufd" in alone


def test_trouble_is_told_in_full(record: RunRecord) -> None:
    text = rendered(record)
    _, account = text.split("\nBROKEN OWN-3 iommufd: a second bind fails and disturbs nobody\n")
    account = account.split("\n\n")[0]
    lines = account.splitlines()
    assert lines[0].endswith("::test_second_bind_is_refused[iommufd]")
    assert lines[1] == "  BIND <again> gave 0 & not EINVAL"
    assert lines[2] == "  | test_ownership.py:10: in frame 10"
    assert lines[-2] == r"  | E  \x1b[31mFailed\x1b[0m \x00 \udc80"
    assert lines[-1] == "  see guests/001/console.log"
    assert len(lines) == 2 + 12 + 1
    assert "  splat: BUG: KASAN: use-after-free\n" in text
    assert "ERROR DMA-1 iommufd" in text


def test_a_tests_own_folder_is_named_once(record: RunRecord, broken: TestRecord) -> None:
    own = tuple(f"tests/x/{name}" for name in ("detail.txt", "calls.txt"))
    test = replace(broken, folder="tests/x", evidence=(*broken.evidence, *own))
    lines = rendered(replace(record, tests=(test,))).split("\n\n")[2].splitlines()
    assert lines[-2:] == ["  see guests/001/console.log", "  see tests/x/: detail.txt, calls.txt"]


def test_skips_are_grouped_by_reason(record: RunRecord) -> None:
    text = rendered(record)
    assert "skipped 2: QEMU has no igb (SRV-1)\n" in text
    assert "known 1: EINVAL; mended in 6.18 (MAP-6)\n" in text


def test_the_end_says_what_ran_where(record: RunRecord) -> None:
    assert rendered(record).splitlines()[-3:] == [
        "11 tests: 1 lab-error, 1 guest-lost, 1 broken, 1 known, 2 skipped, 4 kept, "
        "1 not-applicable in 1 min 23 s",
        "kernel 6.12.57, machine vtd, QEMU 9.2.0, tcg",
        f"report: {FOLDER}",
    ]


def test_boots_that_tcg_spoilt_are_told(record: RunRecord) -> None:
    assert "TCG" not in rendered(replace(record, figures={"boots_repeated": 0}))
    assert "timer: 2" in rendered(replace(record, figures={"boots_repeated": 2}))


def test_another_machine_is_told(record: RunRecord, broken: TestRecord) -> None:
    odd = replace(broken, machine="no-iommu")
    text = rendered(replace(record, tests=(odd,), machines={"vtd": {}, "no-iommu": {}}))
    assert "\nBROKEN OWN-3 iommufd on no-iommu: a second bind" in text
    assert "kernel 6.12.57, machine vtd, a few tests on no-iommu, QEMU" in text


def test_a_deviation_that_is_kept_after_all_is_told(record: RunRecord, broken: TestRecord) -> None:
    kept = replace(broken, verdict=Verdict.KEPT, known="it does (a commit; known.yaml:2)")
    text = rendered(replace(record, tests=(kept,)))
    told = "\nmended recorded as known and kept after all: it does (a commit; known.yaml:2)\n"
    assert told in text
    known = replace(kept, verdict=Verdict.KNOWN, message="it does")
    assert "mended" not in rendered(replace(record, tests=(kept, known)))


def test_trouble_of_the_run_is_told(record: RunRecord) -> None:
    text = rendered(replace(record, tests=(), trouble=(Trouble("no QEMU", detail="why"),)))
    assert text.startswith("ERROR the run\n  no QEMU\n  | why\n")
    assert "no test was selected" in rendered(replace(record, tests=()))


def test_a_run_that_checked_nothing_says_so(record: RunRecord) -> None:
    skips = tuple(test for test in record.tests if test.verdict is Verdict.SKIPPED)
    assert "Nothing was checked" in rendered(replace(record, tests=skips))
    assert "Nothing was checked" not in rendered(record)


def test_markup_of_a_guest_is_text(record: RunRecord, broken: TestRecord) -> None:
    odd = replace(broken, message="[red]x[/red] [/bold]", id="a::b[bold]")
    assert "  [red]x[/red] [/bold]\n" in rendered(replace(record, tests=(odd,)))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_escape_sequence_in_a_log(record: RunRecord, width: int) -> None:
    assert "\x1b" not in rendered(record, width=width)


def test_no_colour_when_none_is_wanted(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1;31mBROKEN" in rendered(record, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1mBROKEN" in rendered(record, terminal=True)


def test_paths_and_numbers_are_not_coloured(record: RunRecord) -> None:
    assert f"\nreport: {FOLDER}\n" in rendered(record, terminal=True)


def test_a_test_that_was_repeated_says_how_often_it_passed(
    record: RunRecord, broken: TestRecord
) -> None:
    kept = replace(broken, verdict=Verdict.KEPT)
    steady = replace(kept, id="steady[iommufd]")
    text = rendered(replace(record, tests=(kept, broken, kept, steady, steady, steady)))
    assert f"{broken.id} passed 2 of 3 times" in text
    assert "1 tests passed each time, 3 times in a row" in text
