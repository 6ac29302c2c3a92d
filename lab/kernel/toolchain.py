# SPDX-License-Identifier: GPL-2.0-only
"""The compiler: which one it is, and how make is told of it."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.cache import Cache
from lab.errors import InfrastructureError
from lab.proc import CommandError, run

_LINKERS = {"gcc": "ld", "clang": "ld.lld"}
# What Kconfig asks a compiler for, by the fragment that needs it: lib/Kconfig.{kasan,kcsan,ubsan}.
_SANITIZERS = {
    "gcc": {
        "kasan": ["-fsanitize=kernel-address"],
        "kcsan": ["-fsanitize=thread", "--param", "tsan-distinguish-volatile=1"],
        "ubsan": ["-fsanitize=bounds-strict", "-fsanitize=shift,bool,enum"],
    },
    "clang": {
        "kasan": ["-fsanitize=kernel-address"],
        "kcsan": ["-fsanitize=thread", "-mllvm", "-tsan-distinguish-volatile=1"],
        "ubsan": ["-fsanitize=array-bounds", "-fsanitize=shift,bool,enum"],
    },
}


@dataclass(frozen=True)
class Toolchain:
    """A compiler and its linker by the lines that they call themselves."""

    compiler: str
    compiler_version: str
    linker_version: str

    @property
    def inputs(self) -> Mapping[str, str]:
        """What the cache's key is made of."""
        return asdict(self)

    def words(self, ccache: bool) -> list[str]:
        """Variables for make's command line."""
        own = f"ccache {self.compiler}" if ccache else self.compiler
        words = [f"CC={own}", f"HOSTCC={own}"]
        return ["LLVM=1", *words] if self.compiler == "clang" else words


def find(compiler: str, cache: Cache) -> Toolchain:
    """The host's compiler. Its version is remembered until its binary, or its linker's, changes.

    Raises InfrastructureError when one of them is missing.
    """
    linker = _LINKERS[compiler]
    files = {name: _file(name) for name in (compiler, linker)}
    asked = {name: _identity(file) for name, file in files.items()}
    if known := cache.recall("toolchain", asked):
        return Toolchain(**known)
    toolchain = Toolchain(compiler, _version(files[compiler]), _version(files[linker]))
    cache.remember("toolchain", asked, asdict(toolchain))
    return toolchain


def sanitizers(compiler: str) -> Mapping[str, bool]:
    """Whether the host's compiler can do what a fragment needs, by the fragment's name."""
    return {name: _can(compiler, words) for name, words in _SANITIZERS[compiler].items()}


def _can(compiler: str, words: Sequence[str]) -> bool:
    try:
        run([compiler, *words, "-x", "c", "-c", "/dev/null", "-o", "/dev/null"])
    except CommandError:
        return False
    return True


def _file(name: str) -> Path:
    if found := shutil.which(name):
        return Path(found)
    raise InfrastructureError(
        f"{name} is not installed", hint="`vfio-lab doctor` says how to install it"
    )


def _identity(file: Path) -> list[str | int]:
    real = Path(os.path.realpath(file))
    status = real.stat()
    return [str(file), str(real), status.st_mtime_ns, status.st_size]


def _version(file: Path) -> str:
    try:
        return run([file, "--version"])[0]
    except CommandError as error:
        raise InfrastructureError(f"{file} does not say its version: {error.message}") from error
