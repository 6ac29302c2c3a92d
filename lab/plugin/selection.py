# SPDX-License-Identifier: GPL-2.0-only
"""Which tests run, in which modes, and in which order."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.config import Lab, known
from lab.contract import Mode, rule, rules
from lab.errors import ConfigurationError
from lab.plugin.items import SUITE, id_of, mode_of, own_machine, rule_of
from lab.plugin.options import lab_of
from lab.results.folder import RunFolder

_REPETITION = "repetition"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if (times := metafunc.config.option.repeat) > 1:
        # As pytest-repeat does it; of the session's scope, so that all tests come once, then again.
        metafunc.fixturenames.append(_REPETITION)
        metafunc.parametrize(
            _REPETITION, range(times), scope="session", ids=[f"#{n + 1}" for n in range(times)]
        )
    if "mode" in metafunc.fixturenames and _is_of_the_lab(metafunc.definition):
        mark = metafunc.definition.get_closest_marker("contract")
        modes = (mark.args[1:] or rule(mark.args[0]).modes) if mark else tuple(Mode)
        metafunc.parametrize("mode", modes, ids=str)


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    if not (lab := lab_of(config)):
        return
    for item in items:
        if suite := suite_of(config, lab, item.path):
            item.stash[SUITE] = suite
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
    kept: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        (kept if _is_wanted(item, failed) else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = kept
    _group_by_machine(config, lab, items)


def suite_of(config: pytest.Config, lab: Lab, file: Path) -> str | None:
    """The suite of a file with tests; each file in the folder of `--tests` is one."""
    if _is_of_a_series(config, file):
        return file.name
    folders = {name: lab.path(suite.tests) for name, suite in lab.suites.items()}
    found = [name for name, folder in folders.items() if file.is_relative_to(folder)]
    return found[-1] if found else None


def _is_of_the_lab(item: pytest.Item) -> bool:
    """Whether a test lies in a suite, or in the folder of `--tests`."""
    lab = lab_of(item.config)
    return bool(lab and suite_of(item.config, lab, item.path))


def _is_of_a_series(config: pytest.Config, file: Path) -> bool:
    """Whether a file lies in the folder of `--tests`."""
    folder = config.option.tests
    return bool(folder) and file.is_relative_to(folder)


def _add_tests_of_a_series(session: pytest.Session, items: Sequence[pytest.Item]) -> None:
    """Each of their files is a suite, and a row of the table where a test has no rule."""
    own = [item for item in items if _is_of_a_series(session.config, item.path)]
    if not own and session.config.option.tests and not session.testsfailed:
        raise pytest.UsageError(f"--tests: no test in {session.config.option.tests}")
    for item in own:
        names = getattr(item, "fixturenames", [])
        names[:] = ["applicable", *(name for name in names if name != "applicable")]


def _is_wanted(item: pytest.Item, failed: set[str] | None) -> bool:
    """Whether the options choose a test. Rules choose among the suites': a series' own run with
    all of them."""
    option, mode = item.config.option, mode_of(item)
    own = _is_of_a_series(item.config, item.path)
    return (
        (not option.mode or mode in option.mode or (own and not mode))
        and (not option.rule or own or rule_of(item) in option.rule)
        and (failed is None or id_of(item) in failed)
        and (not option.only or id_of(item) == option.only)
        and (option.slow or not item.get_closest_marker("slow"))
    )


def _failed(folder: Path | None) -> set[str] | None:
    """The tests that failed in a run; None where no run is named."""
    if not folder:
        return None
    return {test.id for test in RunFolder(folder).read().tests if test.verdict.is_trouble}


def _group_by_machine(config: pytest.Config, lab: Lab, items: list[pytest.Item]) -> None:
    """One guest lives at a time: each machine's tests follow each other, the run's own first."""
    order = [None, *lab.machines]
    items.sort(key=lambda item: order.index(own_machine(config, item)))
