# SPDX-License-Identifier: GPL-2.0-only
"""Compiling the agent."""

import shutil
from pathlib import Path

import pytest

from lab.agent import install
from lab.agent.build import compile_agent, compiler_path, find_compiler
from lab.agent.process import Process
from lab.cache import Cache
from lab.errors import BuildError

from .conftest import LocalTransport


@pytest.mark.parametrize("name", ["musl-gcc", "gcc"])
def test_each_compiler_makes_an_agent_that_needs_no_library(name: str, tmp_path: Path) -> None:
    path = shutil.which(name)
    if not path:
        pytest.skip(f"there is no {name}")
    compile_agent(tmp_path / "agent", find_compiler(Path(path)))
    assert b"/ld-" not in (tmp_path / "agent").read_bytes()  # no dynamic linker is asked for
    with Process(LocalTransport(tmp_path / "agent")) as process:
        assert process.pid > 0


def test_musl_gcc_is_preferred() -> None:
    expected = shutil.which("musl-gcc") or shutil.which("gcc")
    assert str(compiler_path()) == expected


def test_no_compiler_is_a_build_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match="musl-tools"):
        find_compiler()


def test_what_does_not_compile_is_shown_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(BuildError, match=r"main\.c:1:.*nothing"):
        compile_agent(tmp_path / "agent", find_compiler(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["main.c"]


def test_a_change_to_any_file_makes_another_agent(tmp_path: Path) -> None:
    cache, source = Cache(tmp_path / "cache"), tmp_path / "source"
    source.mkdir()
    (source / "status.h").write_text("#define STATUS 0\n")
    (source / "main.c").write_text('#include "status.h"\nint main(void) { return STATUS; }\n')
    made = {install.binary(cache, source), install.binary(cache, source)}
    assert len(made) == 1
    for name in ("status.h", "main.c"):
        with (source / name).open("a") as file:
            file.write("\n")
        made.add(install.binary(cache, source))
    assert len(made) == 3
