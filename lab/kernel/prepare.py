# SPDX-License-Identifier: GPL-2.0-only
"""From a word on the command line to a kernel that can boot."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lab import config
from lab.cache import Cache, Entry, key_of
from lab.config import DebSource, Lab, known
from lab.debian import ListsTooOld
from lab.errors import ConfigurationError
from lab.kernel import distribution, fragment, modules, sandbox, source, toolchain, versions
from lab.kernel.build import RECIPE, Build
from lab.kernel.kernel import Kernel
from lab.kernel.prebuilt import of_bzimage, provenance_in
from lab.kernel.source import Identity
from lab.kernel.toolchain import Toolchain
from lab.progress import Progress

Made = TypeVar("Made")


@dataclass(frozen=True)
class Plan:
    """All that decides the bits of one kernel."""

    name: str
    identity: Identity
    fragments: Mapping[str, Path]
    wishes: Sequence[fragment.Wish]
    toolchain: Toolchain

    @property
    def inputs(self) -> dict[str, Any]:
        # What the fragments say, not how: a comment moves no bit.
        return {
            "recipe": RECIPE,
            "source": self.identity.inputs,
            "config": sorted(str(wish) for wish in self.wishes),
            "toolchain": self.toolchain.inputs,
        }

    def build(
        self, cache: Cache, progress: Progress, *, name: str | None = None, patched: bool = False
    ) -> Build:
        """The same as what a compiler is told. `name` is for messages; `patched` is a build with a
        series on it: only a part will be done, nobody knows how much."""
        return Build(
            name=name or self.name,
            source=self.identity.inputs,
            tree=self.identity.tree(),
            wishes=self.wishes,
            toolchain=self.toolchain,
            expected=None if patched else _expected(self.identity, cache),
            cache=cache,
            progress=progress,
            sandbox=sandbox.find(),
            patched=patched,
        )


def prepare(
    spec: str, lab: Lab, cache: Cache, progress: Progress, *, update: bool = False
) -> Kernel:
    """The kernel that `spec` names, from the cache or built into it.

    `spec` is a name in lab.yaml or the path of a git tree, which may have `@REF` after it, each
    with `+FRAGMENT` behind it as often as one likes, the path of a bzImage, `deb:` and the name of
    a package or a version, or `src:` and a version, with fragments, too. With `update` a package's
    newest version is looked up anew. Raises ConfigurationError, BuildError, InfrastructureError.
    """
    base, extra = _split(spec, lab)
    if base not in lab.kernels and Path(base).expanduser().is_file():
        if extra:
            raise _built_already(spec, base)
        return of_bzimage(spec, Path(base).expanduser().absolute())
    origin = _described(base, lab).source
    if isinstance(origin, DebSource):
        if extra:
            raise _built_already(spec, base)
        fetched = partial(distribution.prepare, spec, origin, lab, cache, progress)
        return _with_new_lists(fetched, update=update)
    return prepare_from_source(spec, lab, cache, progress, update=update)[1]


def prepare_from_source(
    spec: str, lab: Lab, cache: Cache, progress: Progress, *, update: bool = False
) -> tuple[Plan, Kernel]:
    """The same for what is built from a source, with all that decided its bits."""
    base, extra = _split(spec, lab)
    kernel = _described(base, lab)
    origin = kernel.source
    if isinstance(origin, DebSource):
        raise ConfigurationError(
            f"{spec} is built already, and a source is needed here",
            hint="name a kernel of lab.yaml that is built from one, or a git tree",
        )
    fragments = _fragments(spec, (*kernel.fragments, *extra), lab)
    tools = toolchain.find(kernel.compiler, cache)

    def attempt(*, update: bool) -> tuple[Plan, Kernel]:
        identity = source.identify(origin, lab, cache, progress, update=update)
        wishes = fragment.merge(fragment.read(file) for file in fragments.values())
        plan = Plan(spec, identity, fragments, wishes, tools)
        return plan, _made(plan, cache, progress)

    return _with_new_lists(attempt, update=update)


def _with_new_lists(attempt: Callable[..., Made], *, update: bool) -> Made:
    """Once more, where the mirror has newer packages than its lists on disk say."""
    try:
        return attempt(update=update)
    except ListsTooOld:
        return attempt(update=True)


def _built_already(spec: str, base: str) -> ConfigurationError:
    return ConfigurationError(f"{spec}: {base} is built already and takes no fragment")


@dataclass(frozen=True)
class State:
    """What is known of a kernel with neither network nor compiler."""

    source: str | None
    """Its source with its version, in a few words; None while nobody has looked it up."""
    built: Kernel | None


def look(spec: str, lab: Lab, cache: Cache) -> State:
    """What `prepare` would find. Fast: nothing is fetched, built, or counted as used.

    Raises ConfigurationError, and InfrastructureError where the compiler is missing.
    """
    base, extra = _split(spec, lab)
    progress = Progress(quiet=True)
    if base not in lab.kernels and Path(base).expanduser().is_file():
        return State(base, prepare(spec, lab, cache, progress))
    kernel = _described(base, lab)
    if isinstance(kernel.source, DebSource):
        return State(*distribution.look(spec, kernel.source, lab, cache))
    fragments = _fragments(spec, (*kernel.fragments, *extra), lab)
    identity = source.recall(kernel.source, lab, cache, progress)
    if identity is None:
        return State(None, None)
    wishes = fragment.merge(fragment.read(file) for file in fragments.values())
    plan = Plan(spec, identity, fragments, wishes, toolchain.find(kernel.compiler, cache))
    entry = cache.peek("kernel", plan.inputs)
    return State(identity.title, kernel_of(spec, entry) if entry else None)


def refresh(spec: str, lab: Lab, cache: Cache, progress: Progress) -> None:
    """Look up anew which version a package's name means; of what is named to the bit nothing.

    Raises ConfigurationError, and InfrastructureError where the mirror cannot be asked.
    """
    base, _ = _split(spec, lab)
    if base not in lab.kernels and Path(base).expanduser().is_file():
        return
    origin = _described(base, lab).source
    if isinstance(origin, DebSource):
        distribution.refresh(origin, lab, cache, progress)
    else:
        source.identify(origin, lab, cache, progress, update=True)


def source_of(
    spec: str, lab: Lab, cache: Cache, progress: Progress, *, known_only: bool = False
) -> Identity | None:
    """The source of the kernel that `spec` names; None for one that was built elsewhere.

    With `known_only` nothing is looked up: None also where that would be needed.
    """
    base, _ = _split(spec, lab)
    if base not in lab.kernels and Path(base).expanduser().is_file():
        made = provenance_in(Path(base).expanduser().absolute().parent) or {}
        return source.again(made["source"], lab, cache, progress) if "source" in made else None
    origin = _described(base, lab).source
    if isinstance(origin, DebSource):
        return None
    if known_only:
        return source.recall(origin, lab, cache, progress)
    return source.identify(origin, lab, cache, progress)


def _split(spec: str, lab: Lab) -> tuple[str, list[str]]:
    """A base and the fragments behind it. A path, or a package, may have a "+" of its own."""
    if spec.startswith(distribution.PREFIX) and spec not in lab.kernels:
        return spec, []
    if Path(spec).expanduser().exists() and spec not in lab.kernels:
        return spec, []
    start = len(_place(spec))
    base, *extra = spec[start:].split("+")
    return spec[:start] + base, extra


def _place(spec: str) -> str:
    """The longest path that it begins with and that is there: one may have "@" and "+", too."""
    ends = [len(spec), *(found.start() for found in re.finditer("[@+]", spec))]
    paths = [spec[:end] for end in sorted(ends, reverse=True) if end]
    return next((path for path in paths if Path(path).expanduser().exists()), "")


def _described(base: str, lab: Lab) -> config.Kernel:
    if base in lab.kernels:
        return lab.kernels[base]
    if base.startswith(distribution.PREFIX):
        return config.Kernel(source=DebSource(deb=base.removeprefix(distribution.PREFIX)))
    if base.startswith(prefix := versions.Kind.SOURCE.prefix):
        version = base.removeprefix(prefix)
        if not versions.is_version(version):
            raise ConfigurationError(f"{base}: expected a version, such as {prefix}6.12.8")
        return lab.kernel_of(version)
    place = _place(base) or base.partition("@")[0]
    path, ref = Path(place).expanduser(), base[len(place) + 1 :]
    if "/" not in base and not path.exists():
        known("kernel", base, lab.kernels)
    if not path.exists():
        raise ConfigurationError(
            f"{path} does not exist; expected a bzImage or a git tree of the kernel"
        )
    default = lab.kernels[lab.run.kernel.split("+")[0]]
    tree = config.GitSource(git=path.absolute(), ref=ref or "HEAD")
    return default.model_copy(update={"source": tree})


def _fragments(spec: str, names: Sequence[str], lab: Lab) -> dict[str, Path]:
    try:
        return {known("fragment", name, lab.fragments()): lab.fragment(name) for name in names}
    except ConfigurationError as error:
        raise ConfigurationError(f"{spec}: {error.message}", hint=error.hint) from None


def _made(plan: Plan, cache: Cache, progress: Progress) -> Kernel:
    def maker(folder: Path) -> Mapping[str, Any]:
        seen = plan.build(cache, progress).into(folder)
        return {
            "name": plan.name,
            "source": dict(plan.identity.provenance),
            "fragments": {
                name: key_of({"text": file.read_text()}) for name, file in plan.fragments.items()
            },
            "toolchain": dict(plan.toolchain.inputs),
            **seen,
        }

    return kernel_of(plan.name, cache.make("kernel", plan.inputs, maker))


def kernel_of(name: str, entry: Entry) -> Kernel:
    """The kernel that an entry of the cache holds."""
    provenance = entry.provenance
    return Kernel(
        name=name,
        bzimage=entry.path / "bzImage",
        config=entry.path / "config",
        vmlinux=vmlinux if (vmlinux := entry.path / "vmlinux").is_file() else None,
        headers=entry.path / "headers",
        release=provenance["release"],
        build_id=provenance["build_id"],
        key=entry.key,
        provenance=provenance,
        modules=archive if (archive := entry.path / modules.ARCHIVE).is_file() else None,
        symbols=symbols if (symbols := entry.path / modules.SYMBOLS).is_dir() else None,
    )


def _expected(identity: Identity, cache: Cache) -> int | None:
    """How many commands a build of this source took before."""
    source_of = dict(identity.inputs)
    for entry in cache.entries():
        if entry.kind == "kernel":
            seen = entry.provenance
            if seen["inputs"].get("source") == source_of:
                count: int = seen["commands"]
                return count
    return None
