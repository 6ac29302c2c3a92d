# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own programs, each of their cases one test.

Collecting builds them, once a source; `--collect-only` shows what is built already.
"""

import contextlib
from pathlib import Path

import pytest

from lab.cache import Cache
from lab.errors import LabError
from lab.plugin.options import asked_for
from lab.programs import selftests
from lab.programs.selftests import Case
from lab.progress import Progress

# Minutes where the processor is emulated; the others take seconds.
SLOW = {"vfio_pci_driver_test"}
_CASES = pytest.StashKey[list[Case]]()


def _cases(config: pytest.Config) -> list[Case]:
    if _CASES not in config.stash:
        lab, choice = asked_for(config)
        spec, cache = choice.kernel or lab.run.kernel, Cache.of_user()
        if config.option.collectonly:
            config.stash[_CASES] = []
            with contextlib.suppress(LabError):  # no compiler, no git tree: a run will say so
                config.stash[_CASES] = selftests.look(spec, lab, cache, choice.series)
        else:
            progress = Progress()
            config.stash[_CASES] = selftests.prepare(spec, lab, cache, progress, choice.series)
    return config.stash[_CASES]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Nothing is there while nothing is built, and that is no error of a mere look."""
    if collection_path.suffix == ".py" and config.option.collectonly and not _cases(config):
        return True
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    try:
        cases = _cases(metafunc.config)
    except LabError as error:
        raise pytest.Collector.CollectError(str(error)) from error
    metafunc.parametrize("case", [_parameter(case) for case in cases])


def _parameter(case: Case) -> object:
    name = case.program.name
    slow = name in SLOW
    marks = [pytest.mark.program(name, case.mode), pytest.mark.timeout(1200 if slow else 300)]
    marks += [pytest.mark.slow] if slow else []
    return pytest.param(case, id=case.id, marks=marks)
