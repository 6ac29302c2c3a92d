# SPDX-License-Identifier: GPL-2.0-only
"""What a program's end and its KTAP make of it."""

from pathlib import Path
from typing import cast

import pytest

from lab.cell import Choice
from lab.commands.execute import Order, execute, judge
from lab.config import Lab
from lab.errors import ConfigurationError
from lab.programs.run import Ended
from lab.results.verdict import Verdict

ORDER = Order(Path("here/repro.c"))
HEAD = "TAP version 13\n"


def verdicts(status: int, output: str = "") -> dict[str, tuple[Verdict, str]]:
    records = judge(ORDER, Ended(status, output))
    return {record.id: (record.verdict, record.message) for record in records}


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (0, "", (Verdict.KEPT, "")),
        (3, "hello\n", (Verdict.BROKEN, "it exited with status 3")),
        (4, "no KTAP: a status like any other\n", (Verdict.BROKEN, "it exited with status 4")),
        (139, "", (Verdict.BROKEN, "SIGSEGV ended it")),
        (4, "1..0 # SKIP no iommufd\n", (Verdict.SKIPPED, "no iommufd")),
        (0, HEAD + "1..2\n", (Verdict.BROKEN,
            "it announced 2 tests and reported 0; it exited with status 0")),
    ],
)  # fmt: skip
def test_a_program_as_a_whole(status: int, output: str, expected: tuple[Verdict, str]) -> None:
    assert verdicts(status, output) == {"repro.c": expected}


def test_each_test_of_its_ktap() -> None:
    output = HEAD + "1..4\nok 1 a\nnot ok 2 b # why\nok 3 c # SKIP no page\nok 4 d # XFAIL known\n"
    assert verdicts(1, output) == {
        "repro.c::a": (Verdict.KEPT, ""),
        "repro.c::b": (Verdict.BROKEN, "why"),
        "repro.c::c": (Verdict.SKIPPED, "no page"),
        "repro.c::d": (Verdict.KNOWN, "known"),
    }


def test_an_end_that_no_test_explains() -> None:
    assert verdicts(1, HEAD + "1..1\nok 1 a\n") == {
        "repro.c::a": (Verdict.KEPT, ""),
        "repro.c": (Verdict.BROKEN, "it exited with status 1"),
    }


def test_a_program_that_dies_in_the_middle() -> None:
    assert verdicts(134, HEAD + "1..3\nok 1 a\nnot ok 2 b\n") == {
        "repro.c::a": (Verdict.KEPT, ""),
        "repro.c::b": (Verdict.BROKEN, ""),
        "repro.c": (
            Verdict.BROKEN,
            "it announced 3 tests and reported 2; SIGABRT ended it",
        ),
    }


def test_no_guest_boots_for_what_is_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.commands.execute.Session", None)  # it would boot one
    order = Order(tmp_path / "gone.c")
    with pytest.raises(ConfigurationError, match=r"gone\.c is no file; expected C"):
        execute(cast(Lab, None), Choice(), order, out=None, as_json=False)
