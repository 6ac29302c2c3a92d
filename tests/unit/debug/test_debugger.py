# SPDX-License-Identifier: GPL-2.0-only
"""What debuggers are told, and what is said where they are missing."""

from pathlib import Path

import pytest

from lab.debug import debugger
from lab.debug.debugger import Debugger, Help
from lab.errors import ConfigurationError
from lab.kernel import Kernel

VMLINUX = Path("/kernel/vmlinux")
DOOR = Path("/proc/self/fd/7/gdb")


def test_gdb_is_told_where_sources_are_before_it_connects_and_of_modules_after() -> None:
    words = Debugger.GDB.on_guest(DOOR, VMLINUX, ["bt"], Help(("set a b",), ("lx-symbols",)))
    told = [words.index(word) for word in ("set a b", f"target remote {DOOR}", "lx-symbols", "bt")]
    assert told == sorted(told)
    assert "-batch" not in Debugger.GDB.on_guest(DOOR, VMLINUX, [])


def test_with_commands_it_runs_these_and_ends() -> None:
    words = Debugger.GDB.on_guest(DOOR, VMLINUX, ["bt", "info threads"])
    assert words[-4:] == ["-ex", "bt", "-ex", "info threads"]
    assert "-batch" in words
    words = Debugger.DRGN.on_guest(DOOR, VMLINUX, ["a = 1", "print(a)"])
    assert words[-2:] == ["-e", "a = 1\nprint(a)"]


def test_the_first_that_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ConfigurationError, match="drgn or gdb is not installed") as refused:
        debugger.choose(list(Debugger))
    assert "apt-get install gdb" in str(refused.value)
    assert f"{tmp_path}/python -m pip install drgn" in str(refused.value)
    program = tmp_path / "gdb"
    program.write_text("")
    program.chmod(0o755)
    assert debugger.choose(list(Debugger)) == (Debugger.GDB, str(program))


def test_a_drgn_that_is_too_old(tmp_path: Path) -> None:
    program = tmp_path / "drgn"
    program.write_text("#!/bin/sh\necho usage: drgn -c PATH\n")
    program.chmod(0o755)
    with pytest.raises(ConfigurationError, match="too old"):
        debugger.must_know_guests(str(program))
    program.write_text("#!/bin/sh\necho usage: drgn --qemu ADDRESS\n")
    debugger.must_know_guests(str(program))


def test_a_kernel_without_vmlinux() -> None:
    kernel = Kernel("k", Path("/k/bzImage"), None, None, None, "6.12", None, "0", {})
    with pytest.raises(ConfigurationError, match="has no vmlinux beside it"):
        debugger.vmlinux_of(kernel)
