# SPDX-License-Identifier: GPL-2.0-only
"""What attempts add up to, and who makes them."""

import errno
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.agent.errors import RemoteError
from lab.errors import ConfigurationError, GuestLost, LabError
from lab.progress import Progress
from lab.repro import reproduce
from lab.repro.attempt import Attempt, Tools
from lab.repro.of_test import judged
from lab.repro.order import Limits, Order
from lab.repro.reproduce import Counter, Failed, GuestHand, Hands, Site
from lab.repro.reproduction import Reproduction
from lab.repro.show import percent, seconds, show
from lab.repro.sign import Expectation, Kind, Sign
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

SIGN = Sign(Kind.REPORT, "WARNING in f", "WARNING: CPU: 0", "WARNING: CPU: 0\nand so on")
OTHER = Sign(Kind.STATUS, "it exited with status 1")
ORDER = Order("tests/contract/test_x.py::test_y")


def attempt(number: int, *shown: Sign) -> Attempt:
    return Attempt(number, 0.5, shown, since=2.0 * number)


def reproduction(*attempts: Attempt) -> Reproduction:
    return Reproduction(
        Order("repro.c"), "v6.12 (6.12.1)", "vtd", attempts, (), seconds=200.0, jobs=2
    )


def test_how_often_and_after_how_long(tmp_path: Path) -> None:
    quiet = [attempt(number) for number in range(4, 101)]
    found = reproduction(attempt(3, SIGN), attempt(1, SIGN), attempt(2, OTHER), *quiet)
    assert found.status == 1
    assert {title: len(group) for title, group in found.groups().items()} == {
        "WARNING in f": 2,
        "it exited with status 1": 1,
    }
    console = Console(record=True, width=100)
    show(found, tmp_path, console)
    assert console.export_text().split("\n\n")[0] == (
        "\nSHOWN 3 of 100 on v6.12 (6.12.1), machine vtd, first after 2.0 s (attempt 1, 0.5 s into "
        "it)\n"
        "  rate 3 % (0.62 % to 8.5 % with 95 % confidence), 3 min 20 s, 2 guests at once\n"
        "    2  WARNING in f (attempt 1, 3)\n"
        "    1  it exited with status 1 (attempt 2)"
    )


def test_it_is_read_as_it_was_written() -> None:
    found = reproduction(attempt(1, SIGN), replace(attempt(2), others=(OTHER,)))
    written = found.to_json()
    assert Reproduction.from_json(written) == found
    assert written["summary"]["of"] == 2
    assert written["summary"]["besides"] == {"it exited with status 1": 1}


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (reproduction(attempt(1)), 0),
        (reproduction(attempt(1), attempt(2, SIGN)), 1),
        (reproduction(), 2),
        (replace(reproduction(attempt(1)), finished=False), 2),
        (replace(reproduction(attempt(1, SIGN)), finished=False), 1),
    ],
)
def test_the_exit_status(found: Reproduction, status: int) -> None:
    assert found.status == status


def test_numbers_for_people() -> None:
    assert [percent(share) for share in (0, 0.0062, 0.085, 1)] == [
        "0 %",
        "0.62 %",
        "8.5 %",
        "100 %",
    ]
    assert [seconds(number) for number in (0.84, 12.3, 200)] == ["0.8 s", "12 s", "3 min 20 s"]


# Who makes them


class Hand:
    """Does what it is told for each number."""

    def __init__(self, deed: Callable[[int], Attempt]) -> None:
        self._deed = deed
        self.ended = threading.Event()

    def attempt(self, number: int) -> Attempt:
        return self._deed(number)

    def cut(self) -> None:
        self.ended.set()

    def close(self) -> None:
        assert self.ended.is_set()


def made_by(
    deed: Callable[[int], Attempt], limits: Limits, hands: int = 2
) -> list[Attempt | Failed]:
    counter = Counter(limits)
    with Hands(ORDER, [Hand(deed) for _ in range(hands)]).working(counter) as results:
        return list(results)


def test_each_number_is_attempted_once() -> None:
    made = made_by(attempt, Limits(times=20), hands=3)
    assert sorted(each.number for each in made if isinstance(each, Attempt)) == [*range(1, 21)]


def test_where_the_lab_fails_it_is_attempted_again() -> None:
    failing = {3: 2}  # twice

    def deed(number: int) -> Attempt:
        if failing.get(number):
            failing[number] -= 1
            raise GuestLost("SSH is gone")
        return attempt(number)

    made = made_by(deed, Limits(times=5), hands=1)
    assert [each.number for each in made if isinstance(each, Attempt)] == [1, 2, 3, 4, 5]
    assert sum(isinstance(each, Failed) for each in made) == 2


def test_where_it_always_fails_that_is_the_end() -> None:
    def deed(_: int) -> Attempt:
        raise GuestLost("no login", splat="Kernel panic")

    with pytest.raises(GuestLost, match="no login"):
        made_by(deed, Limits(times=5))


def test_what_is_wrong_with_the_order_is_told_at_once() -> None:
    def deed(_: int) -> Attempt:
        raise ConfigurationError("it does not apply")

    with pytest.raises(ConfigurationError, match="does not apply"):
        made_by(deed, Limits(times=5))


def test_one_is_made_however_short_the_time() -> None:
    assert len(made_by(attempt, Limits(seconds=0.0), hands=1)) == 1


class Cell:
    """In its guests vfio-pci takes no device."""

    def __init__(self, *_: object, **__: object) -> None:
        self.discarded = 0

    def __enter__(self) -> "Cell":
        return self

    def testbed(self) -> None:
        raise RemoteError(errno.ENODEV, "vfio-pci did not take edu0")

    def discard(self) -> None:
        self.discarded += 1


def test_what_the_kernel_refuses_the_lab_itself_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cell = Cell()
    monkeypatch.setattr(reproduce, "Cell", lambda *_, **__: cell)
    nothing: Any = None
    site = Site(nothing, nothing, nothing, RunFolder(tmp_path), nothing, Progress(quiet=True))
    hand = GuestHand(site, ORDER, Tools(tmp_path / "repro"), "g0")
    with pytest.raises(LabError, match=r"own process: .*vfio-pci did not take edu0"):
        hand.attempt(1)
    assert cell.discarded == 1


# A test's run


def run_of(verdict: Verdict, message: str = "", *splats: str) -> RunRecord:
    test = TestRecord("a::b", "contract", verdict, 0.5, message=message, splats=splats)
    return RunRecord("0.1", "now", 1.0, tests=(test,))


def test_a_test_that_breaks() -> None:
    made = judged(run_of(Verdict.BROKEN, "assert 1 == 2\nand more"), 1, ORDER)
    assert [sign.title for sign in made.shown] == ["assert 1 == 2"]


def test_a_test_during_which_the_kernel_reports() -> None:
    text = "[    2.0] WARNING: CPU: 0 PID: 1 at lib/planted.c:1 plant+0x0/0x10"
    order = replace(ORDER, expected=Expectation("WARNING in plant"))
    made = judged(run_of(Verdict.BROKEN, "the kernel reported: WARNING in plant", text), 1, order)
    assert [sign.kind for sign in made.shown] == [Kind.REPORT]
    assert not made.others


def test_a_run_in_which_the_lab_failed_is_no_attempt() -> None:
    with pytest.raises(LabError, match="no QEMU"):
        judged(run_of(Verdict.LAB_ERROR, "no QEMU"), 1, ORDER)
    with pytest.raises(LabError, match="SSH broke"):
        judged(run_of(Verdict.GUEST_LOST, "SSH broke"), 1, ORDER)


def test_a_test_that_does_not_apply() -> None:
    with pytest.raises(ConfigurationError, match="does not apply here: no cdev"):
        judged(run_of(Verdict.NOT_APPLICABLE, "no cdev"), 1, ORDER)
