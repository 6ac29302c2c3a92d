# SPDX-License-Identifier: GPL-2.0-only
"""Which guest boots ahead, what a lost boot costs, and what is heard while no test runs."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab import room
from lab.cell import Choice
from lab.config import Lab, Machine
from lab.errors import GuestLost
from lab.guest import Accelerator, DmarFault
from lab.guest import guest as guests
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.verdict import Verdict
from lab.worker import FEW, Prospect, Worker

ROOT = Path(__file__).parents[2]
_WARNING = """\
[    1.5][    T1] ------------[ cut here ]------------
[    1.5][    T1] WARNING: CPU: 0 PID: 1 at lib/planted.c:1 plant+0x0/0x10
[    1.5][    T1] ---[ end trace 0000000000000000 ]---
"""


class Console:
    """`later` comes when somebody has read what was there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = ""
        self.later = ""

    @property
    def size(self) -> int:
        return len(self.content)

    def text(self, start: int = 0, end: int | None = None) -> str:
        text = self.content[start:end]
        self.content, self.later = self.content + self.later, ""
        return text


class Guest:
    """What a worker looks at of one."""

    hear = guests.Guest.hear

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.console = Console(folder / "console.log")
        self.accelerator = Accelerator.TCG
        self.seconds = {"login": 2.0}
        self.repeats = 0
        self.heard = 0
        self.faults_heard = 0
        self.blocked: list[DmarFault] = []
        self.alive = True
        self._running = SimpleNamespace(settle=lambda: None)

    def faults(self, start: int) -> list[DmarFault]:
        return self.blocked[start:]

    def why_lost(self, last_act: str) -> GuestLost:
        return GuestLost(f"{last_act}: QEMU ended")


@dataclass
class Cell:
    """Boots nothing."""

    folder: RunFolder
    said_at_boot: str = ""
    fails: int = 0
    off: dict[str, str] = field(default_factory=dict)
    expected: list[str | None] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    current: Any = None
    booted: int = 0

    def expect(self, machine: str | None) -> None:
        self.expected.append(machine)

    def testbed(self, machine: str | None = None) -> Any:
        name = machine or "vtd"
        if self.fails:
            self.fails -= 1
            raise GuestLost("boot: it went away")
        lives = self.current and self.current.guest.alive
        if not lives or self.current.machine_name != name:
            self.booted += 1
            guest = Guest(self.folder.guest(self.booted))
            guest.console.content = self.said_at_boot
            self.current = SimpleNamespace(
                guest=guest,
                machine_name=name,
                machine=Machine(),
                detectors=(),
                unused=SimpleNamespace(off=self.off),
            )
        return self.current

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    folder = RunFolder(tmp_path)
    worker = Worker(Lab.load(ROOT), Choice(machine="vtd"), folder, Progress(quiet=True))
    worker.cell = cast(Any, Cell(folder))
    return worker


@pytest.fixture
def cell(worker: Worker) -> Cell:
    return cast("Cell", worker.cell)


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "guests", lambda _: 9)


@pytest.mark.parametrize(
    ("prospect", "wanted"),
    [
        (Prospect(FEW + 1, None), "vtd"),
        (Prospect(FEW, None), None),  # the guest will do
        (Prospect(FEW, None, ("no-iommu",)), "no-iommu"),
        (Prospect(1, "no-iommu", (None,)), "no-iommu"),
        (None, None),
    ],
)
def test_what_boots_ahead(
    worker: Worker, cell: Cell, prospect: Prospect | None, wanted: str | None
) -> None:
    worker.testbed()
    worker.prepare_for(prospect)
    assert cell.expected == [wanted]


def test_a_guest_that_died_is_replaced_at_once(worker: Worker, cell: Cell) -> None:
    worker.testbed().guest.alive = False  # type: ignore[misc]
    worker.prepare_for(Prospect(1, None))
    cell.current = None
    worker.prepare_for(Prospect(1, None))
    assert cell.expected == ["vtd", "vtd"]


def test_of_several_workers_each_has_its_share_of_the_tests(worker: Worker, cell: Cell) -> None:
    worker.testbed()
    worker.workers = 4
    worker.prepare_for(Prospect(4 * FEW, None))
    worker.prepare_for(Prospect(4 * FEW + 1, None))
    assert cell.expected == [None, "vtd"]


def test_without_room_no_second_guest(
    worker: Worker, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "guests", lambda _: 0)
    worker.prepare_for(Prospect(99, None))
    worker.testbed()
    worker.prepare_for(Prospect(99, None))
    assert cell.expected == ["vtd", None]


def test_a_boot_is_tried_once_more(worker: Worker, cell: Cell) -> None:
    cell.fails = 1
    worker.testbed()
    (trouble,) = worker.tally.trouble
    assert trouble.verdict is Verdict.GUEST_LOST
    cell.fails, cell.current = 2, None
    with pytest.raises(GuestLost):
        worker.testbed()


def test_only_waits_for_later_guests_count(worker: Worker, cell: Cell) -> None:
    worker.testbed()
    assert worker.tally.figures["waited_seconds"] == 0
    assert worker.tally.figures["guests"] == 1
    cell.current = None
    worker.testbed()
    assert worker.tally.waited > 0
    assert worker.tally.figures["guests"] == 2


def test_what_comes_again_and_again_is_one_entry_with_its_count(worker: Worker, cell: Cell) -> None:
    cell.said_at_boot = "[    0.1] Linux version 6.12\n" + 3 * _WARNING
    worker.testbed()
    (trouble,) = worker.tally.trouble
    assert trouble.message.endswith("WARNING in plant (3 times)")
    assert len(trouble.splats) == 1


def test_what_the_kernel_says_while_no_test_runs_is_the_runs(worker: Worker, cell: Cell) -> None:
    cell.said_at_boot = "[    0.1] Linux version 6.12\n" + _WARNING
    guest = worker.testbed().guest
    worker.testbed()  # it is told once
    (booting,) = worker.tally.trouble
    assert booting.message == "guest 001: while it booted the kernel reported: WARNING in plant"
    assert (booting.verdict, booting.exit_status) == (Verdict.BROKEN, 1)
    assert booting.evidence == ("guests/001/console.log",)
    assert "lib/planted.c:1" in booting.splats[0]
    guest.console.content += _WARNING  # type: ignore[attr-defined]
    worker.testbed("no-iommu")
    later = worker.tally.trouble[1]
    assert later.message == "guest 001: after its last test the kernel reported: WARNING in plant"
    cell.current.guest.console.content += _WARNING
    worker.end()
    assert worker.tally.trouble[3].message.startswith("guest 002: after its last test")
    assert len(worker.tally.trouble) == 4


def test_what_comes_while_somebody_looks_is_heard_the_next_time(worker: Worker, cell: Cell) -> None:
    worker.testbed()
    cell.current.guest.console.later = _WARNING
    worker.leave_unused(cell.current)
    assert not worker.tally.trouble
    worker.leave_unused(cell.current)
    (late,) = worker.tally.trouble
    assert late.message.endswith("the kernel reported: WARNING in plant")


def test_a_guest_that_is_lost_while_no_test_runs_is_the_runs(worker: Worker, cell: Cell) -> None:
    worker.testbed().guest.alive = False  # type: ignore[misc]
    worker.testbed()
    assert cell.booted == 2
    cell.current.guest.alive = False
    worker.end()
    assert [trouble.message for trouble in worker.tally.trouble] == [
        "guest 001: after its last test: QEMU ended",
        "guest 002: after its last test: QEMU ended",
    ]
    assert {trouble.verdict for trouble in worker.tally.trouble} == {Verdict.GUEST_LOST}


def test_dma_that_is_blocked_while_no_test_runs_is_the_runs(worker: Worker, cell: Cell) -> None:
    worker.testbed()
    guest = cell.current.guest
    guest.blocked += [DmarFault(0x10, 0x1000, True)]
    guest.faults_heard = 1  # a test has answered for it
    guest.blocked += [DmarFault(0x10, 0x2000, True)]
    worker.testbed("no-iommu")
    worker.end()
    (trouble,) = worker.tally.trouble
    assert trouble.message == "guest 001: after its last test the IOMMU blocked DMA: 1"
    assert (trouble.verdict, trouble.evidence) == (Verdict.BROKEN, ("guests/001/qemu.log",))


def test_what_a_guest_that_nobody_used_said_is_the_runs(worker: Worker, cell: Cell) -> None:
    quiet, loud, lost = (worker.testbed() for cell.current in (None, None, None))
    loud.guest.console.content = _WARNING  # type: ignore[attr-defined]
    lost.guest.alive = False  # type: ignore[misc]
    for testbed in (quiet, loud, lost):
        worker.leave_unused(testbed)
    assert [trouble.message for trouble in worker.tally.trouble] == [
        "guest 002: while it booted and waited the kernel reported: WARNING in plant",
        "guest 003: while it booted and waited: QEMU ended",
    ]


def test_a_detector_that_is_off_when_a_guest_is_new_is_the_runs(worker: Worker, cell: Cell) -> None:
    cell.off = {"lockdep": "lockdep is off"}
    worker.testbed()
    worker.testbed()
    (trouble,) = worker.tally.trouble
    assert trouble.message == "guest 001: when it had booted lockdep is off"
    assert trouble.verdict is Verdict.BROKEN
