# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of each test."""

from collections.abc import Generator

import pytest

from lab.expected import Announced
from lab.plugin.hold import stop_afterwards
from lab.plugin.items import SUITE, id_of, mode_of, own_machine, program_of, rule_of
from lab.plugin.options import SESSION
from lab.plugin.sessions import PROSPECT
from lab.plugin.workers import attach
from lab.results.judge import excused
from lab.results.record import TestRecord
from lab.results.verdict import Verdict
from lab.testbed import Testbed
from lab.text import printable
from lab.watch import Watch
from lab.worker import Worker

_WATCH = pytest.StashKey[Watch]()


@pytest.fixture
def expected(request: pytest.FixtureRequest, testbed: Testbed) -> Announced:
    """Where a test announces what it provokes: see `lab.expected`."""
    announced = request.node.stash[_WATCH].announcements()
    # A test that found another machine's guest than its own is skipped, and announces nothing.
    return announced or Announced(testbed)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    run = item.config.stash.get(SESSION, None)
    if not run or SUITE not in item.stash:
        return (yield)
    name = own_machine(item.config, item) or run.machine_name
    then = nextitem and (own_machine(item.config, nextitem) or run.machine_name)
    item.stash[_WATCH] = Watch(run, id_of(item), name, last=then != name)
    try:
        result = yield
    finally:
        del item.stash[_WATCH]  # with all that it saw: pytest keeps its items to the end
    if run.cell:
        follows = nextitem and not (item.session.shouldstop or item.session.shouldfail)
        run.prepare_for(nextitem.stash.get(PROSPECT, None) if nextitem and follows else None)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    if watch := item.stash.get(_WATCH, None):
        watch.begin()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    result = yield
    watch = item.stash.get(_WATCH, None)
    if not watch:
        return result
    watch.see(call, result)
    _make_printable(result)
    run = item.config.stash[SESSION]
    known = _known(item, run, watch)
    if call.excinfo and excused(watch.so_far, known).verdict is Verdict.KNOWN:
        result.outcome, result.wasxfail = "skipped", known  # pytest's way of saying the same
    if call.when == "teardown":
        verdict = excused(watch.end(None if known else stop_afterwards(item)), known)
        record = TestRecord(
            id=id_of(item),
            suite=item.stash[SUITE],
            verdict=verdict.verdict,
            duration=round(watch.seconds, 4),
            rule=rule_of(item),
            mode=mode_of(item),
            message=verdict.message or _noted(item),
            detail=watch.detail,
            splats=verdict.splats,
            evidence=watch.evidence(),
            machine=watch.machine,
            known=known,
            program=program_of(item),
        )
        record = watch.keep(record, item.user_properties)
        run.add(record)
        attach(item.config, result, record)
        if watch.found_afterwards and verdict.verdict.is_trouble:
            # pytest's own count must say so, too: the test itself had passed
            result.outcome = "failed"
            result.longrepr = printable(verdict.message)
    return result


def _make_printable(report: pytest.TestReport) -> None:
    """pytest writes to the terminal what a guest may have said."""
    if report.failed and (clean := printable(report.longreprtext)) != report.longreprtext:
        report.longrepr = clean
    report.sections = [(name, printable(content)) for name, content in report.sections]


def _known(item: pytest.Item, run: Worker, watch: Watch) -> str:
    """What is recorded in kernels/known.yaml of this test, on this machine and kernel."""
    rule = rule_of(item)
    name = getattr(item, "originalname", None) or item.name
    return run.known(rule, mode_of(item), name, watch.machine) if rule else ""


def _noted(item: pytest.Item) -> str:
    """What a test that kept its rule has to say: a race's counts, for one."""
    return "; ".join(f"{name}: {value}" for name, value in item.user_properties)
