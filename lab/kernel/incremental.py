# SPDX-License-Identifier: GPL-2.0-only
"""Series on a base: of a patched kernel only what the patches change is compiled.

A base has one work place in the cache, `work/KEY`: `linux` with the tree and in it the objects,
`git` with the base as a commit and the series on it. Nothing in it is worth keeping but time: who
comes next puts it back to a state that `make` can go on from, whatever was killed there.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.cache import Cache, Entry
from lab.config import Lab
from lab.errors import BuildError, ConfigurationError
from lab.kernel.build import (
    BZIMAGE,
    LOG,
    RECIPE,
    Build,
    build_id,
    export_headers,
    release_of,
)
from lab.kernel.configure import configure
from lab.kernel.kernel import Kernel
from lab.kernel.modules import SYMBOLS
from lab.kernel.patched import USER_API
from lab.kernel.prepare import Plan, kernel_of, prepare_from_source
from lab.kernel.repository import Commit, Repository
from lab.kernel.sandbox import put, taken
from lab.kernel.series import Series
from lab.kernel.warnings import new_warnings
from lab.proc import run
from lab.progress import Progress

_RECIPE = 1  # of what is kept of a patched kernel: a new number makes them anew, but no base
_KCONFIG = "*Kconfig*"
_UNDER_WAY = "under-way"


def patched(base: Kernel, series: Series, cache: Cache) -> Kernel | None:
    """What `Base.build` makes of a base with a series, where the cache has it already."""
    entry = cache.peek("patched", _inputs(base, series, symbols=True))
    return kernel_of(f"{base.name} with {series.name}", entry) if entry else None


def _inputs(base: Kernel, series: Series, *, symbols: bool) -> dict[str, Any]:
    return {
        "recipe": [RECIPE, _RECIPE],
        "base": base.key,
        "series": series.inputs,
        "symbols": symbols,
    }


@dataclass(frozen=True)
class Base:
    """A kernel that the lab builds from source, as what series stand on."""

    plan: Plan
    kernel: Kernel
    cache: Cache
    progress: Progress

    @classmethod
    def prepare(
        cls, spec: str, lab: Lab, cache: Cache, progress: Progress, *, update: bool = False
    ) -> "Base":
        """The kernel that `spec` names, built. Raises as `prepare` does, and ConfigurationError
        for one that is built already: nobody knows its source."""
        if spec not in lab.kernels and Path(spec).expanduser().is_file():
            raise ConfigurationError(
                f"{spec} is built already, and a series needs a source",
                hint="name a kernel of lab.yaml, or a git tree",
            )
        plan, kernel = prepare_from_source(spec, lab, cache, progress, update=update)
        return cls(plan, kernel, cache, progress)

    def build(self, series: Series, *, symbols: bool = True) -> Kernel:
        """The base with a series on it, from the cache or built into it.

        Without `symbols` no vmlinux is kept, which is many times as large as all the rest, and no
        module's. Raises ConfigurationError for a series that does not apply, or breaks a fragment's
        wish; BuildError that names the first patch that does not compile.

        Its provenance lists in `warnings` what the compiler warned of and did not for the base:
        each as CompilerWarning.to_json gives it. It is None where the base's own are not known.
        """
        inputs = _inputs(self.kernel, series, symbols=symbols)

        def maker(folder: Path) -> Mapping[str, Any]:
            with self._work_place() as place:
                seen = place.build(series, folder)
            if not symbols:
                (folder / "vmlinux").unlink()
                shutil.rmtree(folder / SYMBOLS, ignore_errors=True)
            return seen

        return kernel_of(f"{self.kernel.name} with {series.name}", self._made(inputs, maker))

    def make_alone(self, series: Series) -> float:
        """Seconds that `make` takes for what a series changes: the floor of `build`, which
        benchmarks ask for. Nothing of it is kept. Raises as `build` does."""
        with self._work_place() as place:
            return place.make_alone(series)

    def _made(self, inputs: Mapping[str, Any], maker: Any) -> Entry:
        return self.cache.make("patched", inputs, maker)

    @contextmanager
    def _work_place(self) -> Iterator["_WorkPlace"]:
        """The base's own, locked, with the base built in it."""

        def maker(folder: Path) -> Mapping[str, Any]:
            with self.progress.step(f"make a work place for series on {self.kernel.name}"):
                place = _WorkPlace(folder, self)
                run(["cp", "-al", self.plan.identity.tree(), place.tree])
                place.objects.mkdir()
                Repository.create(folder / "git", place.tree, self.plan.identity, self.cache)
            return {"name": self.kernel.name}

        inputs = {"recipe": RECIPE, "base": self.kernel.key}
        with self.cache.work_place(inputs, maker) as folder:
            place = _WorkPlace(folder, self)
            place.open()
            yield place


@dataclass(frozen=True)
class _WorkPlace:
    """The folder in which series on one base are built, one at a time."""

    folder: Path
    base: Base

    @property
    def tree(self) -> Path:
        return self.folder / "linux"

    @property
    def objects(self) -> Path:
        return self.tree / "objects"  # inside the tree: see Build.into

    @property
    def _config(self) -> Path:
        """What make made of the base's configuration on this host: it asks the tools anew."""
        return self.folder / "config"

    @property
    def _repository(self) -> Repository:
        return Repository(self.folder / "git", self.tree)

    def open(self) -> None:
        """Make it fit for work, whatever was killed here."""
        self._repository.open(self.base.plan.identity, self.base.cache)
        marker = self.folder / _UNDER_WAY
        if marker.exists():
            # What a killed compiler left half-written looks up to date to the next make. The
            # configuration is written whole or not at all; without it all would be made anew.
            written = ["-type", "f", "-newer", str(marker)]
            kept = ["-not", "-path", f"{self.objects / 'include'}/*"]
            run(["find", self.objects, *written, *kept, "-delete"])
            marker.unlink()
        if not (self.objects / BZIMAGE).exists():
            self._repository.check_out()
            name = f"{self.base.kernel.name} as a base"
            # From nothing: tools that a series left would write to the compile cache of all bases,
            # which has what was compiled before somebody interrupted it.
            run(["rm", "-rf", self.objects])
            self.objects.mkdir()
            self._compile(self._build(name, patched=False), None, self.folder / LOG)
            shutil.copyfile(taken(self.objects, ".config"), self._config)

    def build(self, series: Series, folder: Path) -> Mapping[str, Any]:
        """Leave in `folder` what Build.into leaves."""
        build = self._build(series.name)
        with build.timed("apply", f"apply {series.name}"):
            commits = self._repository.apply(series)
        try:
            commands = self._compile(build, commits[-1], folder / LOG, afresh=True)
        except (BuildError, ConfigurationError) as error:
            if len(commits) == 1:
                raise
            raise self._blamed(series, commits, folder / LOG) or error from error
        self._take(build, commits[-1], folder)
        return {
            "name": series.name,
            "base": {"name": self.base.kernel.name, "key": self.base.kernel.key},
            "fragments": list(self.base.kernel.fragments),
            "source": dict(self.base.plan.identity.provenance),
            "series": {
                "file": series.file,
                "patches": [commit.subject for commit in commits],
                "files": self._repository.changed(commits[-1].identity),
            },
            "release": release_of(self.objects),
            "build_id": build_id(folder / "vmlinux"),
            "commands": commands,
            "warnings": self._new_warnings(folder / LOG),
            "stages": build.seconds,
            "sandboxed": bool(build.sandbox.words),
        }

    def make_alone(self, series: Series) -> float:
        """See Base.make_alone."""
        commits = self._repository.apply(series)
        build = self._build(series.name)
        log = self.folder / "alone.log"
        log.unlink(missing_ok=True)
        self._compile(build, commits[-1], log)
        return build.seconds["build"]

    def _build(self, name: str, *, patched: bool = True) -> Build:
        base = self.base
        build = base.plan.build(base.cache, base.progress, name=name, patched=patched)
        if patched and build.sandbox.obstacle:
            base.progress.say_once(
                f"no sandbox ({build.sandbox.obstacle}): the Makefiles of a series run with your "
                "rights; see SECURITY.md"
            )
        return build

    def _compile(
        self, build: Build, commit: Commit | None, log: Path, *, afresh: bool = False
    ) -> int:
        """Compile a commit, None for the base; returns how many commands that took.

        `afresh`: what the commit changes is compiled even if it was when last was compiled here.
        """
        make = build.make(self.tree, self.objects)
        marker = self.folder / _UNDER_WAY
        marker.touch()
        self._repository.check_out(commit.identity if commit else None)
        if commit and afresh:
            # An object that is up to date comes without its warnings.
            for name in self._repository.changed(commit.identity):
                file = self.tree / name
                if file.is_file() and not file.is_symlink():  # not one that was removed
                    file.touch()
        self._configure(build, commit, make)
        try:
            with build.timed("build", f"build {build.name}") as step:
                commands = build.compile(make, log, step)
        except BuildError:
            marker.unlink()  # make came to its own end, and removed what it could not finish
            raise
        marker.unlink()
        return commands

    def _configure(self, build: Build, commit: Commit | None, make: Sequence[str]) -> None:
        """The base's own configuration, but where patches touch Kconfig: then all wishes again."""
        config = self.objects / ".config"
        known = self._config if self._config.exists() else self.base.kernel.config
        assert known is not None
        wanted = known.read_bytes()
        if commit and self._repository.changed(commit.identity, _KCONFIG):
            with build.timed("configure", f"configure {build.name}"):
                configure(self.tree, self.objects, build.wishes, make)
        elif not config.exists() or taken(self.objects, ".config").read_bytes() != wanted:
            put(config, wanted)

    def _blamed(
        self, series: Series, commits: Sequence[Commit], log: Path
    ) -> BuildError | ConfigurationError | None:
        """The error of the first patch after which the tree does not compile."""
        for number, commit in enumerate(commits, 1):
            name = f"{series.name}: patch {number} of {len(commits)}, '{commit.subject}',"
            log.unlink(missing_ok=True)
            try:
                self._compile(self._build(name), commit, log)
            except (BuildError, ConfigurationError) as error:
                return error
        return None

    def _new_warnings(self, log: Path) -> list[dict[str, Any]] | None:
        """What is in the log of a patched kernel's build, and not in the base's."""
        known = self.base.kernel.bzimage.with_name(LOG)
        if not known.exists():
            return None
        texts = [file.read_text(errors="replace") for file in (log, known)]
        return [each.to_json() for each in new_warnings(*texts)]

    def _take(self, build: Build, commit: Commit, folder: Path) -> None:
        # Copies: the next make writes some of these files where they lie.
        copy = ["cp", "--reflink=auto"]
        run([*copy, taken(self.objects, BZIMAGE), folder / "bzImage"])
        run([*copy, taken(self.objects, "vmlinux"), folder / "vmlinux"])
        run([*copy, taken(self.objects, ".config"), folder / "config"])
        build.pack_modules(self.tree, self.objects, release_of(self.objects), folder)
        headers = self.base.kernel.headers
        if headers is None or self._repository.changed(commit.identity, *USER_API):
            make = build.make(self.tree, self.objects)
            export_headers(make, self.objects, folder / "headers")
        else:
            run(["cp", "-al", headers, folder / "headers"])
