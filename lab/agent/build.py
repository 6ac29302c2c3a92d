# SPDX-License-Identifier: GPL-2.0-only
"""Compiles the agent: one static binary that runs in any guest of this architecture."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BuildError

SOURCE = Path(__file__).with_name("source")
"""A folder of C files and their headers."""
FLAGS = ("-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-pthread", "-D_GNU_SOURCE")

_SECONDS = 120


@dataclass(frozen=True)
class Compiler:
    """A C compiler: its path, and what it says its version is."""

    path: Path
    version: str


def compiler_path() -> Path:
    """musl-gcc when there is one, since it makes the smaller binary, else gcc.

    Starts no process. Raises BuildError when there is neither.
    """
    for name in ("musl-gcc", "gcc"):
        if path := shutil.which(name):
            return Path(path)
    raise BuildError(
        "there is no C compiler for the agent",
        hint="apt-get install musl-tools, or gcc with libc6-dev",
    )


def find_compiler(path: Path | None = None) -> Compiler:
    """The compiler at `path`, else at `compiler_path()`. Raises BuildError."""
    path = path or compiler_path()
    return Compiler(path, _run([str(path), "--version"]).partition("\n")[0])


def compile_agent(destination: Path, compiler: Compiler, source: Path = SOURCE) -> None:
    """Compile the C files of `source` to `destination`, whose folder exists.

    Raises BuildError with the compiler's lines; `destination` is untouched then.
    """
    files = [str(file) for file in sorted(source.glob("*.c"))]
    unfinished = destination.with_name(f"{destination.name}.unfinished")
    try:
        _run([str(compiler.path), *FLAGS, "-o", str(unfinished), *files])
        unfinished.replace(destination)
    finally:
        unfinished.unlink(missing_ok=True)


def _run(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{argv[0]} did not run: {error}") from error
    if done.returncode:
        raise BuildError(f"{' '.join(argv)} failed:\n{done.stderr.strip()}")
    return done.stdout
