# SPDX-License-Identifier: GPL-2.0-only
"""A session from its first test to its report, and what becomes of each test."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lab.errors import LabError
from lab.plugin.items import SUITE, id_of, mode_of, own_machine, program_of, rule_of
from lab.plugin.options import SESSION, choice_of, lab_of, words_of
from lab.progress import Progress
from lab.results.judge import excused
from lab.results.record import TestRecord
from lab.results.terminal import report
from lab.results.verdict import Verdict
from lab.session import Session
from lab.watch import Watch

_WATCH = pytest.StashKey[Watch]()
_NOTHING_RAN = (pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.USAGE_ERROR)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    config = session.config
    if config.option.collectonly or not any(SUITE in item.stash for item in session.items):
        return None
    if SESSION in config.stash:
        return None
    if session.testsfailed and not config.option.continue_on_collection_errors:
        return None  # pytest is about to say so; a kernel would be built in vain
    lab = lab_of(config)
    assert lab is not None
    suites = dict.fromkeys(i.stash[SUITE] for i in session.items if SUITE in i.stash)
    try:
        choice = choice_of(config)
        if not choice.machine:
            named = [name for name in suites if name in lab.suites]
            choice = replace(choice, suites_machine=lab.machine_for(named))
        run = Session(
            lab,
            choice,
            Progress(),
            out=config.option.out,
            selection=config.invocation_params.args,
            words=words_of(config, lab),
        )
    except LabError as error:
        pytest.exit(str(error), returncode=2)
    config.stash[SESSION] = run
    try:
        run.prepare()
    except LabError as error:
        run.add_trouble(error)
        return True
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    run = item.config.stash.get(SESSION, None)
    if run and SUITE in item.stash:
        name = run.cell.machine_name if run.cell else None
        item.stash[_WATCH] = Watch(run, own_machine(item.config, item) or name)
    return (yield)


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
    run = item.config.stash[SESSION]
    known = _known(item, run, watch)
    if call.excinfo and excused(watch.so_far, known).verdict is Verdict.KNOWN:
        result.outcome, result.wasxfail = "skipped", known  # pytest's way of saying the same
    if call.when == "teardown":
        verdict = excused(watch.end(), known)
        run.add(
            TestRecord(
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
        )
        if watch.found_afterwards and verdict.verdict.is_trouble:
            # pytest's own count must say so, too: the test itself had passed
            result.outcome = "failed"
            result.longrepr = verdict.message
    return result


def _known(item: pytest.Item, run: Session, watch: Watch) -> str:
    """What is recorded in kernels/known.yaml of this test, on this machine and kernel."""
    rule = rule_of(item)
    name = getattr(item, "originalname", None) or item.name
    return run.known(rule, mode_of(item), name, watch.machine) if rule else ""


def _noted(item: pytest.Item) -> str:
    """What a test that kept its rule has to say: a race's counts, for one."""
    return "; ".join(f"{name}: {value}" for name, value in item.user_properties)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    run = session.config.stash.get(SESSION, None)
    if run:
        interrupted = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        record = run.close(finished=not interrupted)
        session.exitstatus = record.status
    elif exitstatus in _NOTHING_RAN and _asked_for_a_suite(session.config):
        session.exitstatus = 2


def _asked_for_a_suite(config: pytest.Config) -> bool:
    lab = lab_of(config)
    if not lab or config.option.tests:
        return bool(lab)
    asked = [Path(word.partition("::")[0]).absolute() for word in config.args]
    folders = [lab.path(suite.tests) for suite in lab.suites.values()]
    return any(path.is_relative_to(folder) for path in asked for folder in folders)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    del terminalreporter  # rich writes, after everything that pytest had to say
    if run := config.stash.get(SESSION, None):
        report(run.record(), run.folder.path, Console())
