# SPDX-License-Identifier: GPL-2.0-only
"""A source with a series on it, for what is made of its files beside the kernel."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lab.cache import LINKED
from lab.kernel.repository import Repository
from lab.kernel.series import Series
from lab.kernel.source import Identity
from lab.proc import run

USER_API = ("include/uapi/", "arch/x86/include/uapi/")
_PROGRAMS = ("tools/", "scripts/", "usr/")
_NAMES = (".h", "Makefile", "Kbuild")


def for_programs(base: Identity, series: Series | None) -> Identity:
    """The source that programs for the kernel, and the headers for them, are made of.

    It is the base's, and so are the programs, where the series touches nothing that goes into them:
    neither a header of the kernel's, which some share with it, nor the tools.
    """
    if series and any(file.startswith(_PROGRAMS) or file.endswith(_NAMES) for file in series.files):
        return PatchedIdentity(base.cache, base.progress, base, series)
    return base


def for_headers(identity: Identity) -> Identity:
    """The source whose exported headers are those of `identity`."""
    if isinstance(identity, PatchedIdentity):
        files = identity.series.files
        return identity if any(file.startswith(USER_API) for file in files) else identity.base
    return identity


@dataclass(frozen=True)
class PatchedIdentity(Identity):
    """Its files are hard links to the base's, but for those that the series changes."""

    KIND: ClassVar = LINKED

    base: Identity
    series: Series

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {"base": dict(self.base.inputs), "series": dict(self.series.inputs)}

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"base": dict(self.base.provenance), "series": self.series.file}

    @property
    def title(self) -> str:
        return f"{self.base.title} with {self.series.name}"

    def _extract(self, tree: Path) -> None:
        git = tree.parent / "git"
        files = self.base.tree()
        with self.progress.step(f"apply {self.series.name} to the files of {self.base.title}"):
            run(["cp", "-al", f"{files}/.", tree])
            repository = Repository.create(git, tree, self.base, self.cache)
            repository.check_out(repository.apply(self.series)[-1].identity)
        run(["rm", "-rf", git])
