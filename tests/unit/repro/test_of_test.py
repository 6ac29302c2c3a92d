# SPDX-License-Identifier: GPL-2.0-only
"""Attempts of a test: where they are made, and what is left of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.errors import LabError
from lab.repro.of_test import TestHand
from lab.repro.order import Order
from lab.results.folder import RESULTS, RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.replay import PYTEST, Part, Replay
from lab.results.verdict import Verdict

ORDER = Order("tests/contract/test_x.py::test_y")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run on no machine of its own: a suite has one."""
    part = Part("any", tmp_path / "any", "abc", "make it")
    places: Mapping[str, Path] = dict.fromkeys(("lab", "package", "python", "cache"), tmp_path)
    run: dict[str, Any] = {"version": "0.1", "commit": None, "qemu_version": "10.0", **places}
    parts: dict[str, Any] = {"kernel": part, "image": part, "agent": part, "qemu": tmp_path}
    folder = RunFolder(tmp_path)
    folder.write_replay(
        Replay(
            **run,
            **parts,
            machine=None,
            qemu_arguments=(),
            boot_timeout=90.0,
            command=PYTEST,
            words=(),
        )
    )
    return folder


@pytest.fixture(autouse=True)
def _runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run breaks the rule, in words that name its machine."""

    @contextmanager
    def background(argv: Sequence[str], log: Path, **_: float) -> Iterator[Any]:
        asked = dict(pairwise(argv))
        said = f"on {asked.get('--machine', 'that of its suite')}"
        test = TestRecord(ORDER.what, "contract", Verdict.BROKEN, 0.5, message=said)
        out = Path(asked["--out"])
        out.mkdir()
        (out / RESULTS).write_text(
            json.dumps(RunRecord("0.1", "now", 1.0, tests=(test,)).to_json())
        )
        log.touch()
        yield SimpleNamespace(wait=lambda: 1, terminate=lambda: None)

    monkeypatch.setattr("lab.repro.of_test.background", background)


def test_two_bugs_of_one_run_leave_each_others_evidence_alone(folder: RunFolder) -> None:
    made = [TestHand.of(folder, ORDER, None, f"bug-{name}-").attempt(1) for name in "ab"]
    assert [each.evidence for each in made] == [
        ("attempts/bug-a-001/results.json",),
        ("attempts/bug-b-001/results.json",),
    ]
    assert all((folder.path / each.evidence[0]).exists() for each in made)


@pytest.mark.parametrize(
    ("machine", "said"), [("small", "on small"), (None, "on that of its suite")]
)
def test_it_runs_on_the_machine_that_was_asked_for(
    folder: RunFolder, machine: str | None, said: str
) -> None:
    made = TestHand.of(folder, ORDER, machine, "").attempt(1)
    assert [sign.title for sign in made.shown] == [said]


def test_of_one_that_is_ended_amid_an_attempt_nothing_stays(folder: RunFolder) -> None:
    hand = TestHand.of(folder, ORDER, None, "")
    hand.cut()
    with pytest.raises(LabError, match="ended amid an attempt"):
        hand.attempt(1)
    assert not [*(folder.path / "attempts").iterdir()]
