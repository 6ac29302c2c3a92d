# SPDX-License-Identifier: GPL-2.0-only
"""A session of pytest from its first test to the run's report."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from lab.errors import LabError
from lab.plugin.items import SUITE, own_machine
from lab.plugin.options import SESSION, choice_of, lab_of, words_of
from lab.progress import Progress
from lab.results.terminal import report
from lab.session import Session
from lab.worker import Prospect

PROSPECT = pytest.StashKey[Prospect]()  # of the tests from this one on
_NOTHING_RAN = (pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.USAGE_ERROR)


class Unread:
    """Files whose tests pytest could not collect: a run that goes on without them says so."""

    def __init__(self) -> None:
        self.errors: list[LabError] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            words = f"{report.nodeid} cannot be read:\n{report.longreprtext}"
            self.errors.append(LabError(words))


_UNREAD = pytest.StashKey[Unread]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_UNREAD] = Unread()
    config.pluginmanager.register(config.stash[_UNREAD])


@dataclass(frozen=True)
class Role:
    """What this process is where pytest-xdist shares the tests out."""

    worker: bool
    controller: bool

    @classmethod
    def of(cls, config: pytest.Config) -> "Role":
        """Both are false where one process does everything."""
        return cls(hasattr(config, "workerinput"), config.pluginmanager.hasplugin("dsession"))


def session_of(config: pytest.Config) -> Session | None:
    """The run that this process reports, if it does."""
    found = config.stash.get(SESSION, None)
    return found if isinstance(found, Session) else None


def start(config: pytest.Config, suites: Iterable[str], *, guests: bool = True) -> bool:
    """Begin a run of these suites; whether it could be prepared. What hindered it is told there."""
    lab = lab_of(config)
    assert lab is not None
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
        run.prepare(guests=guests)
    except LabError as error:
        run.add_trouble(error)
        return False
    return True


def look_ahead(session: pytest.Session) -> None:
    """Note at each test what follows it, so that its guest can boot meanwhile."""
    prospect: Prospect | None = None
    for item in reversed(session.items):
        if SUITE not in item.stash:
            continue
        machine = own_machine(session.config, item)
        if prospect and prospect.machine == machine:
            prospect = replace(prospect, tests=prospect.tests + 1)
        else:
            prospect = Prospect(1, machine, (prospect.machine,) if prospect else ())
        item.stash[PROSPECT] = prospect


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    config, role = session.config, Role.of(session.config)
    if role.worker or role.controller:
        return None  # see `lab.plugin.workers`
    if config.option.collectonly or not any(SUITE in item.stash for item in session.items):
        return None
    if session.testsfailed and not config.option.continue_on_collection_errors:
        return None  # pytest is about to say so; a kernel would be built in vain
    if SESSION not in config.stash:
        suites = dict.fromkeys(i.stash[SUITE] for i in session.items if SUITE in i.stash)
        if not start(config, suites):
            return True
    look_ahead(session)
    return None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    if run := session_of(config):
        for error in config.stash[_UNREAD].errors:
            run.add_trouble(error)
        if exitstatus == pytest.ExitCode.USAGE_ERROR:
            run.add_trouble(LabError("pytest refused these words: it says why above"))
        interrupted = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        if Role.of(config).controller and config.option.maxfail:
            # pytest-xdist calls it an interruption when as many tests have failed as may
            interrupted &= session.testsfailed < config.option.maxfail
        record = run.close(finished=not interrupted or not run.parts)
        # Tests that lie in no suite are not in the record, and count here.
        others_failed = exitstatus == pytest.ExitCode.TESTS_FAILED
        session.exitstatus = record.status or int(others_failed)
    elif exitstatus in _NOTHING_RAN and _asked_for_a_suite(config):
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
    if run := session_of(config):
        report(run.record(), run.folder.path, Console())
