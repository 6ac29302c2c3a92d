# SPDX-License-Identifier: GPL-2.0-only
"""Bugs as tests: each bug.yaml in a suite is one item.

On a kernel that should be without, it must not show, however often its rate asks for attempts; with
`--affected` it must show on those that should have it. On all others it does not apply.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.bugs import check
from lab.bugs.bug import FILE, Bug
from lab.cache import Cache
from lab.errors import ConfigurationError
from lab.plugin.items import machine_for
from lab.plugin.options import SESSION, lab_of
from lab.plugin.selection import suite_of
from lab.progress import Progress
from lab.repro.attempt import CannotRun
from lab.repro.reproduce import Site, reproduce
from lab.testing import not_applicable

_MORE = 120.0  # seconds beside those of the attempts: the last of them may have begun just then


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "BugFile | None":
    if file_path.name != FILE:
        return None
    lab = lab_of(parent.config)
    if not lab or not suite_of(parent.config, lab, file_path):
        return None
    found: BugFile = BugFile.from_parent(parent, path=file_path)
    return found


class BugFile(pytest.File):
    """A bug.yaml."""

    def collect(self) -> Iterator["BugItem"]:
        try:
            bug = Bug.load(self.path)
        except ConfigurationError as error:
            raise self.CollectError(str(error)) from error
        yield BugItem.from_parent(self, name=bug.name, bug=bug)


class BugItem(pytest.Item):
    """A bug. Its attempts have guests of their own."""

    def __init__(self, *, bug: Bug, **given: Any) -> None:
        super().__init__(**given)
        self.bug = bug
        self.add_marker(pytest.mark.timeout(check.SECONDS + bug.content.timeout + _MORE))
        self.add_marker(pytest.mark.program(bug.name, bug.content.mode))  # a row of its own
        if bug.content.machine:
            self.add_marker(pytest.mark.on_machine(bug.content.machine))

    def runtest(self) -> None:
        run, bug = self.config.stash[SESSION], self.bug
        assert run.cell
        parts = run.cell.parts
        affected: bool = self.config.option.affected
        claim = check.claim_of(bug, parts.kernel, run.choice.series)
        if claim is None:
            raise not_applicable(f"nobody knows which version {parts.kernel.name} is")
        if claim.has != affected:
            hint = "" if affected else "; --affected has it show"
            raise not_applicable(f"{parts.kernel.name} {claim.why}{hint}")
        if missing := check.lacks_variant(bug, parts.kernel):
            raise not_applicable(f"it would show with --kernel {parts.kernel.name}{missing} only")
        machine = machine_for(self.config, self) or run.choice.machine
        site = Site(
            run.lab,
            replace(run.choice, machine=machine),
            parts,
            run.folder,
            Cache.of_user(),
            Progress(quiet=True),
            prefix="".join(f"{name}-" for name in (run.name, bug.name) if name),
        )
        order = replace(check.order_of(bug), jobs=max(1, site.jobs_at_most // run.workers))
        try:
            found = check.complete(reproduce(site, order))
        except CannotRun as error:
            raise not_applicable(error.message) from None
        self.user_properties.append(("attempts", check.told(bug, found)))
        if found.shown and not affected:
            pytest.fail(check.broken(bug, found), pytrace=False)
        if affected and not found.shown:
            pytest.fail(
                f"{bug.content.title}: {parts.kernel.name} {claim.why}, and yet "
                f"{check.told(bug, found)}",
                pytrace=False,
            )

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, self.bug.content.title
