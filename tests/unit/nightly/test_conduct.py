# SPDX-License-Identifier: GPL-2.0-only
"""A night under way: whose turn it is, what is run again, what an end costs."""

import json
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from lab.errors import ConfigurationError, InfrastructureError
from lab.history.model import CellKey
from lab.history.store import History
from lab.nightly import carrier
from lab.nightly.carrier import LocalCarrier, Order, Outcome
from lab.nightly.night import Night, State, alone, nights
from lab.page.running import NIGHT
from lab.results.folder import RunFolder
from lab.results.record import Trouble
from lab.results.verdict import Verdict
from tests.unit.nightly.conftest import BUGS, CONTRACT, NEXT, Script, Stage, a_run

KEPT, BROKEN = Verdict.KEPT, Verdict.BROKEN


def states(night: Night) -> list[State]:
    return [each.state for each in night.cells]


def test_each_cell_is_run_and_its_verdicts_are_kept(stage: Stage) -> None:
    night = stage.night(CONTRACT, BUGS)
    script = Script({CONTRACT: [a_run(KEPT)], BUGS: [a_run(KEPT, KEPT, cell=BUGS)]})
    stage.conduct(night, script)
    assert states(night) == [State.TESTED, State.TESTED]
    assert [(row.cell, row.verdict) for row in stage.history.tests(night.name)] == [
        (BUGS, KEPT), (BUGS, KEPT), (CONTRACT, KEPT),
    ]  # fmt: skip
    assert script.carried[0].words == ("--machine", "vtd", "--suite", "contract")


def test_what_fails_is_run_again_on_its_own(stage: Stage) -> None:
    night = stage.night(CONTRACT, BUGS)
    records = [a_run(KEPT, BROKEN), a_run(BROKEN), a_run(KEPT)]
    script = Script({CONTRACT: list(records), BUGS: [a_run(KEPT, cell=BUGS)]})
    stage.conduct(night, script)
    whole, other = "v6.12--vtd--contract", "v6.12--vtd--bugs"
    assert script.names == [whole, f"{whole}-1", f"{whole}-2", other]
    assert script.carried[1].words[-2:] == ("-k", "test_1")
    assert [run.attempt for run in stage.history.runs(night.name)] == [0, 0, 1, 2]
    assert [each.status for each in night.cells] == [1, 0]


def test_a_cell_that_leaves_nothing_does_not_end_the_night(stage: Stage) -> None:
    night = stage.night(CONTRACT, NEXT)
    stage.conduct(night, Script({NEXT: [a_run(KEPT, cell=NEXT)]}))
    assert states(night) == [State.FAILED, State.TESTED]
    assert [each.status for each in night.cells] == [2, 0]
    assert night.cells[0].why == "the run left no results"


def test_a_kernel_that_does_not_come_up_costs_one_cell(stage: Stage) -> None:
    night = stage.night(CONTRACT, BUGS, NEXT)
    crash = Trouble("boot: the kernel panicked", Verdict.GUEST_LOST, splats=("Oops",))
    says = {
        CONTRACT: [replace(a_run(), trouble=(crash,))],
        BUGS: [a_run(KEPT, cell=BUGS)],
        NEXT: [a_run(KEPT, cell=NEXT)],
    }
    script = Script(says)
    stage.conduct(night, script)
    assert script.names == ["v6.12--vtd--contract", "next--vtd--contract"]
    assert states(night) == [State.FAILED, State.FAILED, State.TESTED]
    assert night.cells[1].why == f"as in {CONTRACT}: boot: the kernel panicked"
    assert [each.status for each in night.cells] == [1, 1, 0], "it is the kernel's fault"


def test_a_kernel_that_was_seen_to_boot_is_not_given_up(stage: Stage) -> None:
    night = stage.night(CONTRACT, BUGS, CellKey("v6.12", "narrow", "contract"))
    narrow = night.cells[2].cell
    says = {CONTRACT: [a_run(KEPT)], narrow: [a_run(KEPT, cell=narrow)]}
    stage.conduct(night, Script(says))
    assert states(night) == [State.TESTED, State.FAILED, State.TESTED]


def test_a_new_kernel_is_first_tried_in_one_cell(stage: Stage) -> None:
    night = stage.night(CONTRACT, BUGS, NEXT)
    seen: list[tuple[str, int]] = []

    def note(order: Order) -> None:
        seen.append((order.name, len(stage.history.runs(night.name))))

    says = {
        CONTRACT: [a_run(KEPT)],
        BUGS: [a_run(KEPT, cell=BUGS)],
        NEXT: [a_run(KEPT, cell=NEXT)],
    }
    stage.conduct(night, Script(says, jobs=3, before=note))
    assert seen[:2] == [("v6.12--vtd--contract", 0), ("next--vtd--contract", 0)]
    assert seen[2][0] == "v6.12--vtd--bugs"
    assert seen[2][1] > 0, "one cell of the kernel has ended by then"


def test_what_would_not_end_in_time_is_left(stage: Stage) -> None:
    night = stage.night(CONTRACT, BUGS, budget=100.0, seconds=10.0)
    night.cells[0].seconds = 1000.0
    stage.conduct(night, Script({BUGS: [a_run(KEPT, cell=BUGS)]}))
    assert states(night) == [State.LEFT, State.TESTED]
    assert night.cells[0].why == "the night's time was up"


def test_the_budget_ends_what_runs(stage: Stage) -> None:
    night = stage.night(CONTRACT, BUGS, budget=0.1)
    stage.conduct(night, Script({CONTRACT: [None]}))
    assert states(night) == [State.LEFT, State.LEFT]
    assert night.spent >= 0.1


def test_what_is_cut_while_it_is_run_again_has_its_verdicts(stage: Stage) -> None:
    night = stage.night(CONTRACT, budget=0.3)
    stage.conduct(night, Script({CONTRACT: [a_run(KEPT, BROKEN), None]}))
    assert [(each.state, each.status, each.why) for each in night.cells] == [(State.TESTED, 1, "")]


@pytest.mark.parametrize(("finished", "why"), [(True, ""), (False, "the night's time was up")])
def test_what_a_run_found_until_the_end_counts(stage: Stage, finished: bool, why: str) -> None:
    class Late(Script):
        """Ends what runs as the night ends."""

        def carry(self, order: Order) -> Future[Outcome]:
            self.order, self.future = order, super().carry(order)
            return self.future

        def __exit__(self, *_: object) -> None:
            folder = nights() / self.order.night / "cells" / self.order.name
            folder.mkdir()
            RunFolder(folder).write(replace(a_run(KEPT), finished=finished))
            self.future.set_result(Outcome(self.order))

    night = stage.night(CONTRACT, budget=0.1)
    stage.conduct(night, Late({CONTRACT: [None]}))
    assert [(each.state, each.why) for each in night.cells] == [(State.TESTED, why)]
    assert night.cells[0].status == 0
    assert [row.verdict for row in stage.history.tests(night.name)] == [KEPT]


def test_who_is_ended_without_results_is_nobodys_fault(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that is still being built, for one."""
    monkeypatch.setattr(
        carrier, "run_of", lambda *_: nullcontext(Mock(**{"poll.return_value": None}))
    )
    night = stage.night(CONTRACT, BUGS, budget=0.1)
    stage.conduct(night, LocalCarrier(stage.lab, nights(), 1))
    assert states(night) == [State.LEFT, State.LEFT]
    assert [each.status for each in night.cells] == [0, 0]


def test_an_interruption_while_verdicts_are_kept_loses_none(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    night = stage.night(CONTRACT, NEXT)
    says = {CONTRACT: [a_run(KEPT)], NEXT: [a_run(KEPT, cell=NEXT)]}
    with monkeypatch.context() as patched:
        patched.setattr(stage.history, "add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            stage.conduct(night, Script(says, jobs=2))
    rest = Night.unfinished()
    stage.conduct(rest, Script(says, jobs=2))
    assert states(rest) == [State.TESTED, State.TESTED]
    assert len(stage.history.tests(night.name)) == 2


def test_an_interruption_loses_only_what_was_under_way(stage: Stage) -> None:
    night = stage.night(CONTRACT, BUGS)

    def interrupt(order: Order) -> None:
        if order.cell == BUGS:
            (night.run_folder(order).path / "half").mkdir(parents=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.conduct(night, Script({CONTRACT: [a_run(KEPT)]}, before=interrupt))
    rest = Night.unfinished()
    assert rest.name == night.name
    script = Script({BUGS: [a_run(KEPT, cell=BUGS)]})
    stage.conduct(rest, script)
    assert script.names == ["v6.12--vtd--bugs"]
    assert states(rest) == [State.TESTED, State.TESTED]


def test_it_goes_on_with_what_failed_and_was_not_run_again_yet(stage: Stage) -> None:
    night = stage.night(CONTRACT)

    def interrupt(order: Order) -> None:
        if order.attempt == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.conduct(night, Script({CONTRACT: [a_run(BROKEN)] * 2}, before=interrupt))
    script = Script({CONTRACT: [a_run(BROKEN)]})
    stage.conduct(Night.unfinished(), script)
    assert [order.attempt for order in script.carried] == [2]


def test_a_night_at_its_end_is_not_resumed(stage: Stage) -> None:
    with pytest.raises(ConfigurationError, match="there was no night yet"):
        Night.unfinished()
    night = stage.night(CONTRACT)
    night.finish()
    with pytest.raises(ConfigurationError, match="no night was interrupted"):
        Night.unfinished()


def test_another_night_that_cannot_be_read_hinders_none(stage: Stage) -> None:
    for name, text in (("20200101T000000Z", "{"), ("20200102T000000Z", "{}")):
        (nights() / name).mkdir()
        (nights() / name / NIGHT).write_text(text)
        with pytest.raises(ConfigurationError, match=f"{name}/{NIGHT}: "):
            Night.unfinished()
    night = stage.night(CONTRACT)
    assert Night.unfinished() == night


def test_its_file_is_read_as_it_was_written(stage: Stage) -> None:
    night = stage.night(CONTRACT)
    stage.conduct(night, Script({CONTRACT: [a_run(KEPT)]}))
    assert Night.from_json(json.loads((night.folder / NIGHT).read_text())) == night


@pytest.mark.usefixtures("stage")
def test_two_nights_at_once_are_refused() -> None:
    with alone(), pytest.raises(ConfigurationError, match="a night runs already"), alone():
        pass
    with alone():
        pass


def test_a_state_folder_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="file/nights: Not a directory"), alone():
        pass
    with pytest.raises(InfrastructureError, match="file: File exists"), History.opened():
        pass
