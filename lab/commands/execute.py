# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab exec`: a program of the user's own in a guest, and what became of it."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from lab.cell import Choice, machine_of
from lab.config import Lab, known
from lab.contract import Mode
from lab.deadline import Deadline
from lab.errors import GuestLost, LabError
from lab.programs import compile as compiling
from lab.programs import run as running
from lab.programs.ktap import Outcome
from lab.programs.run import SKIP, Ended, TimedOut
from lab.progress import Progress
from lab.results.record import TestRecord
from lab.results.replay import EXEC
from lab.results.terminal import report
from lab.results.verdict import Verdict
from lab.session import Session
from lab.splats import Kind, find
from lab.testbed import Testbed

SUITE = "exec"
Around = Callable[[Session, Testbed], AbstractContextManager[object]]

_VERDICTS = {
    Outcome.PASSED: Verdict.KEPT,
    Outcome.FAILED: Verdict.BROKEN,
    Outcome.SKIPPED: Verdict.SKIPPED,
    Outcome.XFAILED: Verdict.KNOWN,
}


@dataclass(frozen=True)
class Order:
    """What is to be run, and what it is told."""

    program: Path
    arguments: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()  # roles of the machine
    mode: Mode | None = None
    timeout: float = 300.0  # seconds

    def words(self) -> list[str]:
        """The same for the command line."""
        found = [word for role in self.devices for word in ("--device", role)]
        found += ["--mode", self.mode.value] if self.mode else []
        found += ["--timeout", f"{self.timeout:g}"]
        return [*found, "--", str(self.program.absolute()), *self.arguments]


def execute(
    lab: Lab,
    choice: Choice,
    order: Order,
    *,
    out: Path | None,
    as_json: bool,
    around: Around | None = None,
) -> int:
    """Run it, show what it prints as it comes, and report; returns the exit status.

    The program's output goes to standard output and the report to standard error; with `as_json`
    it is the other way round. It runs within what `around` makes of its guest. Raises
    ConfigurationError where there is no such program or device.
    """
    compiling.check(order.program)  # before a guest boots for it
    machine = lab.machine(machine_of(lab, choice))
    for role in order.devices:
        known("device", role, machine.devices)
    words = [str(order.program), *order.arguments]
    session = Session(
        lab, choice, Progress(), out=out, selection=words, words=order.words(), command=EXEC
    )
    finished = True
    try:
        session.prepare()
        _run(session, order, sys.stderr.fileno() if as_json else sys.stdout.fileno(), around)
    except LabError as error:
        session.add_trouble(error)
    except KeyboardInterrupt:
        finished = False
    record = session.close(finished=finished)
    if as_json:
        print(json.dumps(record.to_json(), indent=1))
    else:
        report(record, session.folder.path, Console(stderr=True))
    return record.status


def _run(session: Session, order: Order, show: int, around: Around | None) -> None:
    assert session.cell is not None
    cell = session.cell
    program = compiling.program(
        order.program, cell.parts.kernel, session.folder.path, session.progress
    )
    with session.progress.step("boot"):
        testbed = session.testbed()
    devices = [testbed.devices[known("device", role, testbed.devices)] for role in order.devices]
    environment = running.environment(devices, order.mode, testbed.hands)
    argv = [running.push(testbed.guest, testbed.hands, program), *order.arguments]
    start = testbed.guest.console.size
    session.called()
    began = time.monotonic()
    with around(session, testbed) if around else contextlib.nullcontext():
        records = list(_attempt(order, testbed, argv, environment, show))
    seconds = time.monotonic() - began
    printed = testbed.guest.printed_since(start)
    # A program has no way to announce the DMA that it lets the IOMMU block.
    reports = [s for s in find(printed, stamped=True) if s.kind is not Kind.DMA_FAULT]
    if reports and not any(record.verdict.is_trouble for record in records):
        words = "; ".join(f"the kernel reported: {splat.title}" for splat in reports)
        records = [record for record in records if record.id != order.program.name]
        records.append(_whole(order, Verdict.BROKEN, words))
    names = ("console.log", running.OUTPUT, "qemu.log", "qemu.sh")
    for record in records:
        texts = tuple(splat.text for splat in reports) if record.verdict.is_trouble else ()
        session.add(
            replace(
                record,
                duration=round(seconds / len(records), 4),  # one clock for all of its tests
                splats=session.with_lines(record.splats or texts),
                evidence=tuple(
                    session.folder.relative(testbed.guest.folder / name) for name in names
                ),
            )
        )


def _attempt(
    order: Order,
    testbed: Testbed,
    argv: Sequence[str],
    environment: Mapping[str, str],
    show: int,
) -> Iterator[TestRecord]:
    try:
        ended = running.run(
            testbed.guest,
            argv,
            Deadline.after(order.timeout),
            environment=environment,
            on_output=lambda data: os.write(show, data),
        )
    except TimedOut as error:
        yield _whole(order, Verdict.BROKEN, str(error))
    except GuestLost as error:
        lost = testbed.guest.why_lost(error.message)
        found = (lost.splat,) if lost.splat else ()
        yield replace(_whole(order, Verdict.GUEST_LOST, str(lost)), splats=found)
    else:
        yield from judge(order, ended)


def judge(order: Order, ended: Ended) -> Iterator[TestRecord]:
    """One record for each test of its KTAP, and one for the program where there is none, or where
    the program's end says what no test of it said."""
    report = ended.report
    leaves = [leaf for result in report.results for leaf in result.leaves()] if report else []
    for leaf in leaves:
        name = f"{order.program.name}::{leaf.name}"
        yield replace(_whole(order, _VERDICTS[leaf.outcome], leaf.reason), id=name)
    failed = any(leaf.outcome is Outcome.FAILED for leaf in leaves)
    if report and report.trouble:
        yield _whole(order, Verdict.BROKEN, f"{report.trouble}; {ended.how}")
    elif report and not leaves and (report.skipped is not None or ended.status == SKIP):
        yield _whole(order, Verdict.SKIPPED, report.skipped or ended.how)
    elif ended.status and not failed:
        yield _whole(order, Verdict.BROKEN, ended.how)
    elif not leaves:
        yield _whole(order, Verdict.KEPT, "")


def _whole(order: Order, verdict: Verdict, message: str) -> TestRecord:
    name = order.program.name
    return TestRecord(name, SUITE, verdict, 0.0, mode=order.mode, message=message, program=name)
