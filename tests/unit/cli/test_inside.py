# SPDX-License-Identifier: GPL-2.0-only
"""Which guest a command is about: what is asked for in words comes to it as a choice."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lab.cell import Choice
from lab.cli import app
from lab.debug.ftrace import Wish

_OPENS = {
    "shell": "lab.commands.shell.open_shell",
    "console": "lab.commands.console.open_console",
    "monitor": "lab.commands.monitor.open_monitor",
    "gdb": "lab.commands.debugger.open_gdb",
    "drgn": "lab.commands.debugger.open_drgn",
}


def _called(monkeypatch: pytest.MonkeyPatch, function: str, *words: str) -> tuple[Any, ...]:
    """What a command calls its function with, but for the lab."""
    calls: list[tuple[Any, ...]] = []

    def note(*arguments: Any, **more: Any) -> int:
        calls.append((*arguments[1:], *more.values()))
        return 3

    monkeypatch.setattr(function, note)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3, done.output
    (found,) = calls
    return found


@pytest.mark.parametrize("command", _OPENS)
def test_a_living_guest_unless_a_new_one_is_described(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def given(*words: str) -> tuple[Any, ...]:
        return _called(monkeypatch, _OPENS[command], command, *words)[:2]

    assert given() == (None, None)
    assert given("4711") == ("4711", None)
    assert given("--new") == (None, Choice())
    words = ("--kernel", "v6.12", "--machine", "vtd", "--qemu-arg", "-s")
    assert given(*words) == (None, Choice(kernel="v6.12", machine="vtd", qemu_arguments=("-s",)))


@pytest.mark.parametrize("command", ["gdb", "drgn"])
def test_commands_for_a_debugger(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    words = ("--exec", "bt", "--exec", "info threads")
    assert _called(monkeypatch, _OPENS[command], command, *words)[2] == ["bt", "info threads"]


def test_a_trace_of_a_test_or_of_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = ("--kernel", "v6.12+trace", "--event", "iommu/map", "--graph", "vfio_df_open")
    choice, wish = Choice(kernel="v6.12+trace"), Wish(("iommu/map",), ("vfio_df_open",))
    found = _called(monkeypatch, "lab.commands.trace.trace_test", "trace", "test_x", *asked)
    assert found == (choice, "test_x", (), wish, None)
    program = tmp_path / "repro.c"
    program.touch()
    words = ("trace", str(program), "-v", *asked, "--device", "edu0", "--mode", "iommufd")
    found = _called(monkeypatch, "lab.commands.trace.trace_program", *words[:2], *words[3:])
    assert (found[0], found[2]) == (choice, wish)
    assert (found[1].program, found[1].devices, found[1].mode) == (program, ("edu0",), "iommufd")
