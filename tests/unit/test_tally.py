# SPDX-License-Identifier: GPL-2.0-only
"""What several processes have seen is added up."""

import json

from lab.errors import GuestLost, LabError
from lab.results.verdict import Verdict
from lab.tally import Tally


def test_json_carries_it() -> None:
    tally = Tally(accelerator="tcg", waited=1.5, repeats={"gw0-001": 1}, machines={"vtd": {"a": 1}})
    tally.note(GuestLost("gone", splat="BUG: x"))
    again = Tally.from_json(json.loads(json.dumps(tally.to_json())))
    assert again == tally
    assert again.trouble[0].verdict is Verdict.GUEST_LOST
    assert again.trouble[0].splats == ("BUG: x",)


def test_what_is_no_labs_error_is_named() -> None:
    tally = Tally()
    tally.note(KeyError("x"))
    tally.note(LabError("why", hint="do this"))
    assert [each.message for each in tally.trouble] == ["KeyError: 'x'", "why\n  do this"]
    assert {each.verdict for each in tally.trouble} == {Verdict.LAB_ERROR}


def test_figures_are_of_all_guests_and_of_the_first_process_to_say_when() -> None:
    whole = Tally()
    assert whole.figures == {}
    whole.add(Tally("kvm", first_seconds={"login": 2.0}, repeats={"gw0-001": 2}, waited=0.25))
    whole.add(Tally("kvm", first_seconds={"login": 3.0}, repeats={"gw1-001": 1}, waited=0.5))
    assert whole.accelerator == "kvm"
    assert whole.figures == {
        "login_seconds": 2.0,
        "guests": 2,
        "boots_repeated": 3,
        "waited_seconds": 0.75,
    }
