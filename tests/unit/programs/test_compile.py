# SPDX-License-Identifier: GPL-2.0-only
"""Which files become programs, against which headers: with the host's compiler."""

import io
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lab.errors import BuildError, ConfigurationError
from lab.kernel import Kernel
from lab.programs.compile import program
from lab.progress import Progress

KERNEL = Kernel(
    name="v1",
    bzimage=Path("bzImage"),
    config=None,
    vmlinux=None,
    headers=None,
    release=None,
    build_id=None,
    key="",
    provenance={},
)
SOURCE = """\
#include <stdio.h>
#include <linux/vfio.h>
int main(void) { return puts(NEW_IN_THIS_KERNEL) < 0; }
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel whose uAPI the host does not know."""
    headers = tmp_path / "include"
    (headers / "linux").mkdir(parents=True)
    (headers / "linux" / "vfio.h").write_text('#define NEW_IN_THIS_KERNEL "seen"\n')
    return replace(KERNEL, headers=headers)


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def progress(said: io.StringIO) -> Progress:
    return Progress(Console(file=said, width=200))


def test_c_is_compiled_statically_against_the_kernels_headers(
    kernel: Kernel, tmp_path: Path, progress: Progress
) -> None:
    (tmp_path / "repro.c").write_text(SOURCE)
    made = program(tmp_path / "repro.c", kernel, tmp_path, progress)
    assert subprocess.run([made], capture_output=True, text=True, check=True).stdout == "seen\n"
    assert program(made, kernel, tmp_path, progress) == made  # being static it is taken as it is


def test_without_headers_the_hosts_are_taken_and_that_is_told(
    tmp_path: Path, progress: Progress, said: io.StringIO
) -> None:
    (tmp_path / "repro.c").write_text("#include <linux/vfio.h>\nint main(void) { return 0; }\n")
    program(tmp_path / "repro.c", KERNEL, tmp_path, progress)
    assert "v1 comes without headers" in said.getvalue()
    assert "/usr/include/linux" in said.getvalue()


def test_errors_and_warnings_are_the_compilers(
    kernel: Kernel, tmp_path: Path, progress: Progress, said: io.StringIO
) -> None:
    (tmp_path / "bad.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(BuildError, match=r"bad\.c:1:\d+: error: .*nothing"):
        program(tmp_path / "bad.c", kernel, tmp_path, progress)
    (tmp_path / "warns.c").write_text("int main(void) { int unused; return 0; }\n")
    program(tmp_path / "warns.c", kernel, tmp_path, progress)
    assert "unused variable" in said.getvalue()


def test_what_cannot_run_there(kernel: Kernel, tmp_path: Path, progress: Progress) -> None:
    text = tmp_path / "notes"
    text.write_text("hello\n")
    with pytest.raises(ConfigurationError, match="is no program"):
        program(text, kernel, tmp_path, progress)
    with pytest.raises(ConfigurationError, match="is no file"):
        program(tmp_path / "nothing.c", kernel, tmp_path, progress)
    with pytest.raises(ConfigurationError, match="linked dynamically"):
        program(Path("/bin/ls"), kernel, tmp_path, progress)


def test_a_script_is_taken_as_it_is(kernel: Kernel, tmp_path: Path, progress: Progress) -> None:
    script = tmp_path / "look.sh"
    script.write_text("#!/bin/sh\nls /dev/vfio\n")
    assert program(script, kernel, tmp_path, progress) == script
