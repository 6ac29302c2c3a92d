# SPDX-License-Identifier: GPL-2.0-only
"""From a source tree and fragments to a kernel in a folder."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.cache import Cache
from lab.errors import BuildError, InfrastructureError
from lab.kernel import modules
from lab.kernel.configure import configure
from lab.kernel.fragment import Wish
from lab.kernel.sandbox import Sandbox, taken
from lab.kernel.toolchain import Toolchain
from lab.proc import CommandError, run
from lab.progress import Progress, Step

RECIPE = 2  # a new number makes every kernel anew
LOG = "build.log"
BZIMAGE = Path("arch/x86/boot/bzImage")  # in the folder of the objects
_NAMED = "/usr/src/linux/objects"
STEP = re.compile(r"^  [A-Z][A-Z0-9_]* +\S")  # "  CC      drivers/vfio/vfio_main.o"
_ERROR = re.compile(
    r"(: (fatal |internal compiler )?error: |: undefined reference to |^ld(\.lld)?: |Error: )"
)
MAKE = re.compile(r"^make(\[\d+\])?: ")
_LINES_SHOWN = 30
_RELEASE = re.compile(r"\w[\w.+~-]*", re.ASCII)
# What KCSAN watches, where a kernel has it: data races of the rest of the kernel, of which readers
# under RCU alone have many, are no answer to a series for VFIO, and watching it costs the most.
_WATCHED = "KCSAN_SANITIZE=$(if $(filter drivers/vfio% drivers/iommu%,$(obj)),y,n)"
CCACHE, CCACHE_OF_SERIES = "ccache", "ccache-of-series"  # folders in the cache


@dataclass(frozen=True)
class Build:
    """What is built of what. `source` says which source `tree` is, `expected` how many commands
    make will show, if known."""

    name: str
    source: Mapping[str, Any]
    tree: Path
    wishes: Sequence[Wish]
    toolchain: Toolchain
    expected: int | None
    cache: Cache
    progress: Progress
    sandbox: Sandbox
    patched: bool = False
    """It is foreign code on a base: what it leaves with the compile cache no base gets."""
    seconds: dict[str, float] = field(default_factory=dict)

    def into(self, folder: Path) -> Mapping[str, Any]:
        """Leave bzImage, vmlinux, config, headers/, build.log, and where a fragment asks for
        modules modules.cpio and symbols/; return what was seen.

        Raises ConfigurationError (fragments), BuildError (the compiler), InfrastructureError.
        """
        # The objects lie inside the tree, because then kbuild names every file relative to it:
        # what ccache keeps of one commit or variant also serves the next. The tree is one of
        # hard links, so that the one in the cache stays as it is.
        work = folder / "linux"
        run(["cp", "-al", self.tree, work])
        objects = work / "objects"
        objects.mkdir()
        make = self.make(work, objects)
        with self.timed("configure", f"configure {self.name}"):
            config = configure(work, objects, self.wishes, make)
        with self.timed("build", f"build {self.name}") as step:
            commands = self.compile(make, folder / LOG, step)
        with self.timed("headers", f"export headers of {self.name}"):
            shutil.copytree(self._headers(make, objects), folder / "headers")
        release = release_of(objects)
        taken(objects, BZIMAGE).rename(folder / "bzImage")
        taken(objects, "vmlinux").rename(folder / "vmlinux")
        self.pack_modules(work, objects, release, folder)
        config.rename(folder / "config")
        shutil.rmtree(work)
        return {
            "release": release,
            "build_id": build_id(folder / "vmlinux"),
            "commands": commands,
            "stages": self.seconds,
            "sandboxed": bool(self.sandbox.words),
            "make": run(["make", "--version"])[0],
        }

    @property
    def _modular(self) -> bool:
        return any(wish.value == "m" for wish in self.wishes)

    def pack_modules(self, work: Path, objects: Path, release: str, folder: Path) -> None:
        """Leave modules.cpio in `folder`, if there are any, and what only a debugger reads of them
        in symbols/."""
        if self._modular:
            root = folder / "modules"
            root.mkdir()
            make = self.make(work, objects, root)
            run([*make, f"INSTALL_MOD_PATH={root}", "INSTALL_MOD_STRIP=1", "modules_install"])
            installed = root / "lib" / "modules" / release
            (folder / modules.ARCHIVE).write_bytes(modules.archive(installed))
            symbols = folder / modules.SYMBOLS
            symbols.mkdir()
            for name in modules.with_symbols(installed):
                shutil.copyfile(taken(objects, name), symbols / Path(name).name)
            shutil.rmtree(root)

    @contextmanager
    def timed(self, stage: str, title: str) -> Iterator[Step]:
        """A step whose seconds go to the provenance."""
        with self.progress.step(title) as step:
            yield step
        self.seconds[stage] = round(step.seconds, 1)

    def _headers(self, make: Sequence[str], objects: Path) -> Path:
        """The user-space API. It is the source's alone and takes as long as linking a kernel."""

        def maker(folder: Path) -> None:
            export_headers(make, objects, folder / "include")

        inputs = {"recipe": RECIPE, **self.source}
        return self.cache.make("headers", inputs, maker).path / "include"

    def make(self, work: Path, objects: Path, *also: Path) -> list[str]:
        """The command up to its target; the environment is given as variables of make. It can
        write to `objects`, `also` and the compile cache, and reads `work` alone beside them: the
        tree's files are the cache's own."""
        # Debug information names the folder of the objects; a constant name makes the same
        # bits wherever they are built.
        prefix = f"-fdebug-prefix-map={objects}={_NAMED}"
        ccache = shutil.which("ccache") is not None
        compiled = self.cache.root / (CCACHE_OF_SERIES if self.patched else CCACHE)
        compiled.mkdir(parents=True, exist_ok=True)
        settings = {
            "CCACHE_DIR": compiled,
            "CCACHE_BASEDIR": self.cache.root,
            "CCACHE_NOHASHDIR": "true",
        }
        environment = [f"{name}={value}" for name, value in settings.items()] if ccache else []
        words = [
            *("env", *environment),
            *("make", "-C", str(work), f"O={objects}"),
            *("ARCH=x86_64", f"KCFLAGS={prefix}", f"KAFLAGS={prefix}"),
            *("KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970", "KBUILD_BUILD_VERSION=1"),
            *("KBUILD_BUILD_USER=vfio-lab", "KBUILD_BUILD_HOST=vfio-lab", _WATCHED),
            *self.toolchain.words(ccache),
        ]
        return self.sandbox.around(words, reads=[work], writes=[objects, compiled, *also])

    def compile(self, make: Sequence[str], log: Path, step: Step) -> int:
        """Make bzImage; returns how many commands it took. Raises BuildError."""
        done = 0

        def count(line: str) -> None:
            nonlocal done
            if STEP.match(line):
                done += 1
                step.advance(done, max(self.expected, done) if self.expected else None)

        try:
            targets = ["bzImage", "modules"] if self._modular else ["bzImage"]
            run([*make, f"-j{_jobs()}", *targets], log=log, on_line=count)
        except CommandError as error:
            raise self._failed(log) from error
        step.result(f"{done} commands")
        return done

    def _failed(self, log: Path) -> BuildError:
        kept = self.cache.root / "logs" / f"{log.parent.name}.log"
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(log, kept)
        shown = "\n".join(f"    {line}" for line in errors_in(kept.read_text(errors="replace")))
        return BuildError(f"{self.name} does not compile:\n{shown}", hint=f"the whole log: {kept}")


def errors_in(log: str) -> list[str]:
    """The compiler's errors with what it says around them, at most 30 lines."""
    shown: list[str] = []
    before: list[str] = []
    within = False
    for line in log.splitlines():
        if STEP.match(line) or MAKE.match(line):
            before, within = [], False
        elif _ERROR.search(line):
            shown += [*before, line]
            before, within = [], True
        elif within:
            shown.append(line)
        else:
            # "In file included from", "In function": they stand before their error
            before = [*before[-5:], line]
    return shown[:_LINES_SHOWN] or log.splitlines()[-_LINES_SHOWN:]


def export_headers(make: Sequence[str], objects: Path, include: Path) -> None:
    """Make the user-space API and move it to `include`."""
    run([*make, f"-j{_jobs()}", "headers"])
    made = Path("usr", "include")
    include.mkdir(exist_ok=True)  # a sandbox is told of it, also where there is no header
    for header in sorted((objects / made).rglob("*.h")):
        target = include / header.relative_to(objects / made)
        target.parent.mkdir(parents=True, exist_ok=True)
        taken(objects, header.relative_to(objects)).rename(target)


def release_of(objects: Path) -> str:
    """What `uname -r` of the kernel that was built there will say; it is a folder's name, too."""
    release = taken(objects, "include/config/kernel.release").read_text(errors="replace").strip()
    if not _RELEASE.fullmatch(release):
        raise BuildError(f"the build says that its release is {release[:80]!r}")
    return release


def build_id(vmlinux: Path) -> str | None:
    """The GNU build id, in hexadecimal digits, of an ELF file."""
    try:
        lines = run(["readelf", "-n", vmlinux])
    except CommandError as error:
        raise InfrastructureError(f"{vmlinux} is no ELF file: {error.lines[-1:]}") from error
    ids = (line.split(":", 1)[1].strip() for line in lines if "Build ID:" in line)
    return next(ids, None)


def _jobs() -> int:
    return len(os.sched_getaffinity(0))
