# SPDX-License-Identifier: GPL-2.0-only
"""What is known of one test before it runs."""

import re

import pytest
from _pytest.outcomes import Skipped  # pytest.skip.Exception, for those who check types

from lab.contract import Mode
from lab.errors import LabError
from lab.guest import check_machine
from lab.plugin.options import SESSION, lab_of
from lab.testing import lacking, not_applicable

SUITE = pytest.StashKey[str]()
# Its number, alone or among other parameters: a test that is repeated keeps its id.
_REPEATED = re.compile(r"\[#\d+\]$|(?<=\[)#\d+-|-#\d+(?=[-\]])")


def id_of(item: pytest.Item) -> str:
    """A test's id, the same in each repetition."""
    return _REPEATED.sub("", item.nodeid)


def rule_of(item: pytest.Item) -> str | None:
    mark = item.get_closest_marker("contract")
    return str(mark.args[0]) if mark else None


def mode_of(item: pytest.Item) -> Mode | None:
    callspec = getattr(item, "callspec", None)
    if callspec and "mode" in callspec.params:
        return Mode(callspec.params["mode"])
    if program := item.get_closest_marker("program"):
        return Mode(program.args[1]) if program.args[1] else None
    mark = item.get_closest_marker("contract")
    return mark.args[1] if mark and len(mark.args) == 2 else None


def program_of(item: pytest.Item) -> str | None:
    mark = item.get_closest_marker("program")
    return str(mark.args[0]) if mark else None


def own_machine(config: pytest.Config, item: pytest.Item) -> str | None:
    """The machine that a test gets for itself; None: that of the run, or none at all."""
    try:
        return machine_for(config, item)
    except Skipped:
        return None


def machine_for(config: pytest.Config, item: pytest.Item) -> str | None:
    """As `own_machine`, but raises Skipped where the run has no such machine for it."""
    mark = item.get_closest_marker("on_machine")
    lab = lab_of(config) if mark else None
    if not mark or not lab:
        return None
    wanted = str(mark.args[0])
    session = config.stash.get(SESSION, None)
    asked = session.choice.machine if session else config.option.machine
    own = session.machine_name if session else lab.run.machine
    if wanted == (asked or own):
        return None
    if asked:
        raise not_applicable(f"this is about machine {wanted}, and the run is on {asked} alone")
    if wanted not in lab.machines:
        raise lacking(f"a machine {wanted} in lab.yaml")
    if session and session.cell:
        try:
            check_machine(lab.machine(wanted), session.cell.parts.qemu)
        except LabError as error:
            raise lacking(f"a QEMU that can do machine {wanted}: {error.message}") from None
    return wanted
