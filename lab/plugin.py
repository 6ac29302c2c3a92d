# SPDX-License-Identifier: GPL-2.0-only
"""pytest's side of the lab: options, fixtures, verdicts.

`pytest tests/contract --kernel v6.12 --machine vtd` and `vfio-lab run` meet here. The plugin wakes
up only for tests that lie in a suite of lab.yaml or in the folder of `--tests`; everything else
runs as if it were not there. The devices that tests drive are fixtures of `lab.fixtures`.
"""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.outcomes import Skipped  # pytest.skip.Exception, for those who check types
from rich.console import Console

from lab.agent.process import Process
from lab.cell import Choice, Testbed, series_of
from lab.config import Lab, Machine, known
from lab.contract import Mode, rule, rules
from lab.errors import ConfigurationError, LabError
from lab.guest import Guest, check_machine
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.judge import excused
from lab.results.record import TestRecord
from lab.results.terminal import report
from lab.results.verdict import Verdict
from lab.session import Session
from lab.testing import lacking, not_applicable
from lab.vfio.device import Device
from lab.watch import Watch

pytest_plugins = ["lab.fixtures"]

_SESSION = pytest.StashKey[Session]()
_SUITE = pytest.StashKey[str]()
_WATCH = pytest.StashKey[Watch]()
_REPETITION = "repetition"
# Its number, alone or among other parameters: a test that is repeated keeps its id.
_REPEATED = re.compile(r"\[#\d+\]$|(?<=\[)#\d+-|-#\d+(?=[-\]])")
_NOTHING_RAN = (pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.USAGE_ERROR)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vfio-lab", "a lab for the kernel's VFIO code")
    add = group.addoption
    add("--lab", type=Path, metavar="DIR", help="the lab's folder (default: found upwards)")
    add("--kernel", metavar="K", help="a kernel of lab.yaml, +fragments, or a path to a bzImage")
    add("--series", metavar="FILE", help="patches to put on it: an mbox, a maildir, a folder")
    add("--patches", type=int, metavar="N", help="of the series only the first N")
    add("--machine", metavar="M", help="a machine of lab.yaml")
    add("--image", metavar="I", help="an image of lab.yaml, or a path to an initramfs")
    add("--agent", type=Path, metavar="PATH", help="the agent, compiled (default: by the lab)")
    add("--mode", action="append", metavar="MODE", help="only this mode; may be repeated")
    add("--rule", action="append", metavar="RULE", help="only this rule; may be repeated")
    add("--failed", type=Path, metavar="DIR", help="only what failed in the run of this folder")
    add("--tests", type=_folder, metavar="DIR", help="more tests: those that a series brings")
    add("--repeat", type=int, default=1, metavar="N", help="all tests, N times in a row")
    add("--out", type=Path, metavar="DIR", help="the run's folder (default: a new one)")
    add("--qemu", type=Path, metavar="PATH", help="another QEMU")
    add("--qemu-arg", action="append", metavar="ARG", help="one more word for QEMU")
    add("--slow", action="store_true", help="tests that take minutes each, too")
    add("--boot-timeout", type=float, default=120.0, metavar="S", help="seconds (default: 120)")


def _folder(name: str) -> Path:
    path = Path(name).expanduser().absolute()
    if not path.is_dir():
        raise ArgumentTypeError(f"{name} is no folder")
    return path


def pytest_configure(config: pytest.Config) -> None:
    own = config.option.tests
    if own and all(Path(word).absolute() != own for word in config.args):
        config.args.append(str(own))
    config.addinivalue_line("markers", "contract(rule, *modes): the rule that a test checks")
    config.addinivalue_line("markers", "on_machine(name): the machine that a test needs")
    config.addinivalue_line(
        "markers", "program(name, mode): the C program that a test is a case of"
    )
    config.addinivalue_line("markers", "slow: takes minutes, and runs only with --slow")


def choice_of(config: pytest.Config) -> Choice:
    """What the options ask for. Raises ConfigurationError for a series that cannot be read."""
    option = config.option
    return Choice(
        kernel=option.kernel,
        series=series_of(option.series, option.patches),
        machine=option.machine,
        image=option.image,
        agent=option.agent,
        qemu=option.qemu,
        qemu_arguments=tuple(option.qemu_arg or ()),
        boot_timeout=option.boot_timeout,
    )


def asked_for(config: pytest.Config) -> tuple[Lab, Choice]:
    """The lab, and what was asked of it. Raises ConfigurationError where there is no lab."""
    if session := config.stash.get(_SESSION, None):
        return session.lab, session.choice
    return Lab.find(config.option.lab), choice_of(config)


def adopt(config: pytest.Config, session: Session) -> None:
    """Let the tests run in a session that somebody else has made and will close."""
    config.stash[_SESSION] = session


# Which tests, in which modes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if (times := metafunc.config.option.repeat) > 1:
        # As pytest-repeat does it; of the session's scope, so that all tests come once, then again.
        metafunc.fixturenames.append(_REPETITION)
        metafunc.parametrize(
            _REPETITION, range(times), scope="session", ids=[f"#{n + 1}" for n in range(times)]
        )
    if "mode" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("contract")
        modes = (mark.args[1:] or rule(mark.args[0]).modes) if mark else tuple(Mode)
        metafunc.parametrize("mode", modes, ids=str)


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    if not (lab := _lab(config)):
        return
    for item in items:
        if suite := _suite_of(item, lab):
            item.stash[_SUITE] = suite
    _add_tests_of_a_series(session, items)
    modes, wanted_rules = config.option.mode, config.option.rule
    try:
        for name in modes or ():
            known("mode", name, list(Mode))
        for name in wanted_rules or ():
            known("rule", name, rules())
        failed = _failed(config.option.failed)
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from error
    kept = [item for item in items if _is_wanted(item, failed)]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
    _group_by_machine(config, lab, items)


def _suite_of(item: pytest.Item, lab: Lab) -> str | None:
    folders = {name: lab.path(suite.tests) for name, suite in lab.suites.items()}
    found = [name for name, folder in folders.items() if item.path.is_relative_to(folder)]
    return found[-1] if found else None


def _is_of_a_series(item: pytest.Item) -> bool:
    """Whether a test lies in the folder of `--tests`."""
    folder = item.config.option.tests
    return bool(folder) and item.path.is_relative_to(folder)


def _add_tests_of_a_series(session: pytest.Session, items: Sequence[pytest.Item]) -> None:
    """Each of their files is a suite, and a row of the table where a test has no rule."""
    own = [item for item in items if _is_of_a_series(item)]
    if not own and session.config.option.tests and not session.testsfailed:
        raise pytest.UsageError(f"--tests: no test in {session.config.option.tests}")
    for item in own:
        item.stash[_SUITE] = item.path.name
        names = getattr(item, "fixturenames", [])
        names[:] = ["applicable", *(name for name in names if name != "applicable")]


def _is_wanted(item: pytest.Item, failed: set[str] | None) -> bool:
    """Whether the options choose a test. Rules choose among the suites': a series' own run with
    all of them."""
    option, own, mode = item.config.option, _is_of_a_series(item), _mode_of(item)
    return (
        (not option.mode or mode in option.mode or (own and not mode))
        and (not option.rule or own or _rule_of(item) in option.rule)
        and (failed is None or _id(item) in failed)
        and (option.slow or not item.get_closest_marker("slow"))
    )


def _failed(folder: Path | None) -> set[str] | None:
    """The tests that failed in a run; None where no run is named."""
    if not folder:
        return None
    return {test.id for test in RunFolder(folder).read().tests if test.verdict.is_trouble}


def _id(item: pytest.Item) -> str:
    """A test's id, the same in each repetition."""
    return _REPEATED.sub("", item.nodeid)


def _words(config: pytest.Config, lab: Lab) -> list[str]:
    """Which tests were asked for, in words that say the same in the lab's folder."""
    option = config.option
    words = [_from_root(word, config.invocation_params.dir, lab) for word in config.args]
    for name in ("rule", "mode", "deselect"):
        words += [word for value in getattr(option, name) or () for word in (f"--{name}", value)]
    words += ["-k", option.keyword] if option.keyword else []
    words += ["-m", option.markexpr] if option.markexpr else []
    words += ["--tests", str(option.tests)] if option.tests else []
    words += ["--failed", str(option.failed.absolute())] if option.failed else []
    words += ["--slow"] if option.slow else []
    words += ["--repeat", str(option.repeat)] if option.repeat != 1 else []
    return words + ([f"--maxfail={option.maxfail}"] if option.maxfail else [])


def _from_root(word: str, here: Path, lab: Lab) -> str:
    """A path, perhaps with a test behind it."""
    place, *test = word.split("::")
    path = (here / place).resolve()
    inside = path.relative_to(lab.root) if path.is_relative_to(lab.root) else path
    return "::".join([str(inside), *test])


def _group_by_machine(config: pytest.Config, lab: Lab, items: list[pytest.Item]) -> None:
    """One guest lives at a time: each machine's tests follow each other, the run's own first."""
    order = [None, *lab.machines]
    items.sort(key=lambda item: order.index(_own_machine(config, item)))


def _own_machine(config: pytest.Config, item: pytest.Item) -> str | None:
    """The machine that a test gets for itself; None: that of the run, or none at all."""
    try:
        return _machine_for(config, item)
    except Skipped:
        return None


def _machine_for(config: pytest.Config, item: pytest.Item) -> str | None:
    """As `_own_machine`, but raises Skipped where the run has no such machine for it."""
    mark = item.get_closest_marker("on_machine")
    lab = _lab(config) if mark else None
    if not mark or not lab:
        return None
    wanted = str(mark.args[0])
    session = config.stash.get(_SESSION, None)
    asked = session.choice.machine if session else config.option.machine
    own = session.cell.machine_name if session and session.cell else lab.run.machine
    if wanted == (asked or own):
        return None
    if asked:
        raise not_applicable(f"this is about machine {wanted}, and the run is on {asked} alone")
    if wanted not in lab.machines:
        raise lacking(f"a machine {wanted} in lab.yaml")
    if session and session.cell:
        try:
            check_machine(lab.machine(wanted), session.cell.qemu)
        except LabError as error:
            raise lacking(f"a QEMU that can do machine {wanted}: {error.message}") from None
    return wanted


def _lab(config: pytest.Config) -> Lab | None:
    """The lab whose suites these tests may lie in, or None."""
    if session := config.stash.get(_SESSION, None):
        return session.lab
    try:
        return Lab.find(config.option.lab)
    except ConfigurationError as error:
        if config.option.lab or "no lab.yaml" not in str(error):
            raise pytest.UsageError(str(error)) from error
        return None


def _rule_of(item: pytest.Item) -> str | None:
    mark = item.get_closest_marker("contract")
    return str(mark.args[0]) if mark else None


def _mode_of(item: pytest.Item) -> Mode | None:
    callspec = getattr(item, "callspec", None)
    if callspec and "mode" in callspec.params:
        return Mode(callspec.params["mode"])
    if program := item.get_closest_marker("program"):
        return Mode(program.args[1]) if program.args[1] else None
    mark = item.get_closest_marker("contract")
    return mark.args[1] if mark and len(mark.args) == 2 else None


def _program_of(item: pytest.Item) -> str | None:
    mark = item.get_closest_marker("program")
    return str(mark.args[0]) if mark else None


# What they run on


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    config = session.config
    if config.option.collectonly or not any(_SUITE in item.stash for item in session.items):
        return None
    if _SESSION in config.stash:
        return None
    lab = _lab(config)
    assert lab is not None
    suites = dict.fromkeys(i.stash[_SUITE] for i in session.items if _SUITE in i.stash)
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
            words=_words(config, lab),
        )
    except LabError as error:
        pytest.exit(str(error), returncode=2)
    config.stash[_SESSION] = run
    try:
        run.prepare()
    except LabError as error:
        run.add_trouble(error)
        return True
    return None


@pytest.fixture
def testbed(request: pytest.FixtureRequest) -> Testbed:
    """The living guest, and what the lab has in it."""
    machine = _machine_for(request.config, request.node)
    try:
        return request.config.stash[_SESSION].testbed(machine)
    except LabError:
        # It was tried twice: no later test will fare better.
        request.session.shouldstop = "no guest boots"
        raise


@pytest.fixture
def column(request: pytest.FixtureRequest) -> Mode | None:
    """The mode that this test belongs to, whether it takes the fixture `mode` or not."""
    return _mode_of(request.node)


@pytest.fixture
def guest(testbed: Testbed) -> Guest:
    """The guest under test, seen from the host."""
    return testbed.guest


@pytest.fixture
def machine(testbed: Testbed) -> Machine:
    """The machine under test, as lab.yaml describes it: what a test may expect of it."""
    return testbed.machine


@pytest.fixture
def release(testbed: Testbed) -> tuple[int, int]:
    """Major and minor version of the kernel under test."""
    major, minor = testbed.hands.read_text("/proc/sys/kernel/osrelease").split(".")[:2]
    return int(major), int(minor.partition("-")[0])


@pytest.fixture
def devices(testbed: Testbed) -> Mapping[str, Device]:
    """The devices under test by their role in the machine."""
    return testbed.devices


@pytest.fixture
def hands(testbed: Testbed) -> Process:
    """The lab's own process in the guest: for sysfs, not for what is under test."""
    return testbed.hands


@pytest.fixture
def new_process(testbed: Testbed) -> Iterator[Callable[[], Process]]:
    """Starts processes under test, which end with the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(testbed.start_process())


@pytest.fixture
def process(new_process: Callable[[], Process]) -> Process:
    """A process under test."""
    return new_process()


# What became of them


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    run = item.config.stash.get(_SESSION, None)
    if run and _SUITE in item.stash:
        name = run.cell.machine_name if run.cell else None
        item.stash[_WATCH] = Watch(run, _own_machine(item.config, item) or name)
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
    run = item.config.stash[_SESSION]
    known = _known(item, run, watch)
    if call.excinfo and excused(watch.so_far, known).verdict is Verdict.KNOWN:
        result.outcome, result.wasxfail = "skipped", known  # pytest's way of saying the same
    if call.when == "teardown":
        verdict = excused(watch.end(), known)
        run.add(
            TestRecord(
                id=_id(item),
                suite=item.stash[_SUITE],
                verdict=verdict.verdict,
                duration=round(watch.seconds, 4),
                rule=_rule_of(item),
                mode=_mode_of(item),
                message=verdict.message or _noted(item),
                detail=watch.detail,
                splats=verdict.splats,
                evidence=watch.evidence(),
                machine=watch.machine,
                known=known,
                program=_program_of(item),
            )
        )
        if watch.found_afterwards and verdict.verdict.is_trouble:
            # pytest's own count must say so, too: the test itself had passed
            result.outcome = "failed"
            result.longrepr = verdict.message
    return result


def _known(item: pytest.Item, run: Session, watch: Watch) -> str:
    """What is recorded in kernels/known.yaml of this test, on this machine and kernel."""
    rule = _rule_of(item)
    name = getattr(item, "originalname", None) or item.name
    return run.known(rule, _mode_of(item), name, watch.machine) if rule else ""


def _noted(item: pytest.Item) -> str:
    """What a test that kept its rule has to say: a race's counts, for one."""
    return "; ".join(f"{name}: {value}" for name, value in item.user_properties)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    run = session.config.stash.get(_SESSION, None)
    if run:
        interrupted = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        record = run.close(finished=not interrupted)
        session.exitstatus = record.status
    elif exitstatus in _NOTHING_RAN and _asked_for_a_suite(session.config):
        session.exitstatus = 2


def _asked_for_a_suite(config: pytest.Config) -> bool:
    lab = _lab(config)
    if not lab or config.option.tests:
        return bool(lab)
    asked = [Path(word.partition("::")[0]).absolute() for word in config.args]
    folders = [lab.path(suite.tests) for suite in lab.suites.values()]
    return any(path.is_relative_to(folder) for path in asked for folder in folders)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    del terminalreporter  # rich writes, after everything that pytest had to say
    if run := config.stash.get(_SESSION, None):
        report(run.record(), run.folder.path, Console())
