# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own programs, of tools/testing/selftests/{iommu,vfio}, and the cases that they have.

They are built statically, from the tree under test. The vfio programs know the uAPI alone: those
that the tree has not come from the newest tree of lab.yaml. The iommu programs talk to the kernel's
own mock (drivers/iommu/iommufd/iommufd_test.h), which is another one in each tree.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import bootstrap
from lab.cache import Cache, Entry
from lab.config import Lab
from lab.contract import Mode
from lab.errors import BuildError, InfrastructureError
from lab.kernel import sandbox, toolchain
from lab.kernel.build import errors_in
from lab.kernel.headers import headers_of
from lab.kernel.patched import for_programs
from lab.kernel.prepare import source_of
from lab.kernel.sandbox import taken
from lab.kernel.series import Series
from lab.kernel.source import Identity
from lab.proc import CommandError, run
from lab.programs.ktap import Outcome
from lab.programs.run import SKIP, Ended
from lab.progress import Progress

IOMMU, VFIO = "iommu", "vfio"
NEWEST = "latest"  # the kernel of lab.yaml whose tree serves where another has no such program

TIMEOUT = 150  # seconds that a case may take before its harness ends it

_RECIPE = 2  # a new number builds all of them anew
_SELFTESTS = Path("tools", "testing", "selftests")
_CASES = "cases.json"
_NAME = re.compile(r"\w*", re.ASCII)
_PROGRAM = re.compile(r"\w[\w.-]*", re.ASCII)  # it is a path here and in the guest, and an id
_LOG = "build.log"
_HARNESS = "kselftest_harness.h"
_DEFAULT_TIMEOUT = re.compile(r"^(#define TEST_TIMEOUT_DEFAULT) \d+", re.MULTILINE)
# The harness keeps what a program can run in this list; its option -l is of no use here, as
# most of the vfio programs want their device first.
_LIST = "__fixture_list"
_LISTER = """\
#define main program_main
#include "%s"
#undef main

int main(void)
{
	struct __fixture_metadata *f;
	struct __test_metadata *t;

	for (f = __fixture_list; f; f = f->next) {
		struct __fixture_variant_metadata *v = f->variant;

		do {
			for (t = f->tests; t; t = t->next)
				printf("%%s\\t%%s\\t%%s\\n", f->name, v ? v->name : "", t->name);
			v = v ? v->next : NULL;
		} while (v);
	}
	return 0;
}
"""


@dataclass(frozen=True)
class Case:
    """One case of a program; `name` is what the program's option -r takes.

    `name` is empty for a program that is not written with kselftest_harness.h and runs as a whole.
    `needs_device` says that it wants the address of a device that vfio-pci has. `missing` says why
    there is no program to run.
    """

    program: Path
    name: str
    variant: str
    needs_device: bool
    missing: str = ""

    @property
    def id(self) -> str:
        return f"{self.program.name}-{self.name}" if self.name else self.program.name

    @property
    def mode(self) -> Mode | None:
        """The variants of the vfio programs begin with the name of the mode that they are for."""
        near = [mode for mode in Mode if f"{self.variant}_".startswith(f"{mode.value}_")]
        return max(near, key=lambda mode: len(mode.value), default=None)


def prepare(
    spec: str, lab: Lab, cache: Cache, progress: Progress, series: Series | None = None
) -> list[Case]:
    """Every case of the programs for a kernel, built if need be: those of its source, with what a
    series brings.

    A folder of which no program can be had is one case that says so. Raises InfrastructureError
    where the host lacks what they are built with, and what getting a source raises.
    """
    _check_host()
    own = source_of(spec, lab, cache, progress)
    own = own and for_programs(own, series)
    cases = [*_cases_of(IOMMU, own, cache, progress)]
    if not cases:
        cases.append(_none(IOMMU, own))
    for identity in _sources(own, lab, cache, progress):
        if found := [*_cases_of(VFIO, identity, cache, progress)]:
            return cases + found
    return [*cases, _none(VFIO, own)]


def look(spec: str, lab: Lab, cache: Cache, series: Series | None = None) -> list[Case]:
    """What of it is built; nothing is fetched or made for it."""
    quiet = Progress(quiet=True)
    own = source_of(spec, lab, cache, quiet, known_only=True)
    own = own and for_programs(own, series)
    cases = [*_cases_of(IOMMU, own, cache, None)]
    for identity in _sources(own, lab, cache, quiet, known_only=True):
        if found := [*_cases_of(VFIO, identity, cache, None)]:
            return cases + found
    return cases


def judge(case: Case, ended: Ended) -> tuple[Outcome, str]:
    """What a run of a case says, and why: it has passed when it says so and nothing contradicts.

    A case of which nothing is reported has failed, however the program ended.
    """
    report = ended.report
    words = said(ended.output)
    leaves = [leaf for result in report.results for leaf in result.leaves()] if report else []
    if not leaves and ended.status == SKIP:
        return Outcome.SKIPPED, (report and report.skipped) or words
    if not report or report.trouble or not leaves:
        missing = report.trouble if report and report.trouble else "it reported no result"
        return Outcome.FAILED, f"{missing}; {ended.how}\n{words}"
    names = [leaf.name for leaf in leaves]
    if case.name and names != [case.name]:
        return Outcome.FAILED, f"it was to report on {case.name}, and did on {', '.join(names)}"
    if ended.status or any(leaf.outcome is Outcome.FAILED for leaf in leaves):
        return Outcome.FAILED, f"{words}\n{ended.how}"
    if all(leaf.outcome is Outcome.SKIPPED for leaf in leaves):
        return Outcome.SKIPPED, leaves[0].reason or words
    return Outcome.PASSED, ""


def said(output: str) -> str:
    """What a program said besides the harness's own lines."""
    own = ("TAP version", "KTAP version", "1..", "ok ", "not ok ", "# Starting", "# Totals:",
           "#  RUN ", "#          FAIL ", "#            OK ", "# FAILED:", "# PASSED:")  # fmt: skip
    lines = [line.strip() for line in output.splitlines()]
    kept = [line.removeprefix("# ") for line in lines if line and not line.startswith(own)]
    return "\n".join(kept) or "it said nothing else"


def _check_host() -> None:
    """A tree is told that its programs do not compile only where they can."""
    for need in bootstrap.NEEDS:
        if need.purpose == bootstrap.SELFTESTS and not need.present:
            raise InfrastructureError(f"{need.package} is not installed", hint=need.mend)


def _sources(
    own: Identity | None,
    lab: Lab,
    cache: Cache,
    progress: Progress,
    *,
    known_only: bool = False,
) -> Iterator[Identity]:
    """The source of the kernel, and when that is not enough the newest one."""
    if own:
        yield own
    if NEWEST in lab.kernels:
        newest = source_of(NEWEST, lab, cache, progress, known_only=known_only)
        if newest and newest != own:
            yield newest


def _none(folder: str, own: Identity | None) -> Case:
    title = own.title if own else "a kernel that was built elsewhere"
    missing = f"programs of selftests/{folder} that compile, which {title} has not"
    return Case(Path(folder), "", "", False, missing)


def _cases_of(
    folder: str, identity: Identity | None, cache: Cache, progress: Progress | None
) -> Iterator[Case]:
    """What one source has; without `progress` what of it is built."""
    if not identity:
        return
    entry = (
        _built(folder, identity, cache, progress)
        if progress
        else cache.peek("selftests", _inputs(folder, identity, cache))
    )
    if not entry:
        return
    built = json.loads((entry.path / _CASES).read_text())
    if progress and (error := built["error"]):
        first = next((line for line in error.splitlines() if "error:" in line), error)
        progress.say(f"selftests/{folder} of {identity.title} does not compile: {first.strip()}")
    for program, found in built["cases"].items():
        for fixture, variant, test in found:
            name = ".".join(filter(None, (fixture, variant, test)))
            yield Case(entry.path / program, name, variant, folder == VFIO)


def _inputs(folder: str, identity: Identity, cache: Cache) -> dict[str, Any]:
    tools = toolchain.find("gcc", cache)
    return {
        "recipe": _RECIPE,
        "folder": folder,
        "source": dict(identity.inputs),
        "toolchain": tools.inputs,
    }


def _built(folder: str, identity: Identity, cache: Cache, progress: Progress) -> Entry:
    """The programs of one folder of one source.

    That a source has no such folder, or that it does not compile, is kept like all else.
    """

    def maker(place: Path) -> Mapping[str, Any]:
        tree = identity.tree()
        cases: dict[str, list[list[str]]] = {}
        error = ""
        if (tree / _SELFTESTS / folder / "Makefile").is_file():
            headers = headers_of(identity, cache, progress)
            with progress.step(f"build selftests/{folder} of {identity.title}") as step:
                try:
                    cases = _Build(tree, folder, headers, place, sandbox.find()).programs()
                except BuildError as failed:
                    error = failed.message
                step.result(f"{len(cases)} programs, {sum(map(len, cases.values()))} cases")
        content = {"cases": cases, "error": error}
        (place / _CASES).write_text(json.dumps(content, indent=1) + "\n")
        return {"source": dict(identity.provenance)}

    return cache.make("selftests", _inputs(folder, identity, cache), maker)


@dataclass(frozen=True)
class _Build:
    """One folder of a tree on its way to programs in `place`."""

    tree: Path
    folder: str
    headers: Path
    place: Path
    sandbox: sandbox.Sandbox

    def programs(self) -> dict[str, list[list[str]]]:
        """Build them; each program's cases as fixture, variant and test, in the program's order.

        Raises BuildError with the compiler's lines.
        """
        # The tree in the cache stays as it is: what is changed here are hard links of our own.
        work = self.place / "work"
        work.mkdir()
        try:
            return self._programs(work)
        finally:
            run(["rm", "-rf", work])

    def _programs(self, work: Path) -> dict[str, list[list[str]]]:
        for part in self.tree.iterdir():
            if part.name == "tools":
                run(["cp", "-al", part, work])
            else:
                (work / part.name).symlink_to(part)
        sources = work / _SELFTESTS / self.folder
        if sources.resolve() != work.resolve() / _SELFTESTS / self.folder:
            raise BuildError(f"    {_SELFTESTS / self.folder} is a link")
        self._take_time(taken(sources.parent, _HARNESS))
        built = self._make(sources, "built")
        for program in built:
            if not _PROGRAM.fullmatch(program.name) or (self.place / program.name).exists():
                raise BuildError(f"    {program.name!r} is no name of a program")
            program.rename(self.place / program.name)
        names = [program.name for program in built]
        listed = [name for name in names if _LIST in "\n".join(run(["nm", self.place / name]))]
        for name in listed:
            (sources / f"{name}.c").rename(sources / f"{name}.program.c")
            (sources / f"{name}.c").write_text(_LISTER % f"{name}.program.c")
        listers = {lister.name: lister for lister in self._make(sources, "listers")}
        cases = {name: [["", "", ""]] for name in names}
        cases |= {name: self._listed(listers[name]) for name in listed}
        return cases

    def _listed(self, lister: Path) -> list[list[str]]:
        """What the program's list holds, as it says itself."""
        lines = run(self.sandbox.around([lister], reads=[lister.parent]))
        found = [line.split("\t") for line in lines]
        if not all(len(row) == 3 and all(map(_NAME.fullmatch, row)) for row in found):
            raise BuildError(f"    {lister.name} lists what are no names of C: {found}")
        return found

    @staticmethod
    def _take_time(harness: Path) -> None:
        """The harness allows 30 s: a huge page of 1 GiB has taken longer on an emulated processor,
        which says nothing of the kernel."""
        text = harness.read_text()
        harness.unlink()  # the link of the cached tree's file, not the file
        harness.write_text(_DEFAULT_TIMEOUT.sub(rf"\1 {TIMEOUT}", text))

    def _make(self, sources: Path, name: str) -> Sequence[Path]:
        output = self.place / "work" / name
        output.mkdir()
        words = [
            "make",
            "-C",
            str(sources),
            f"OUTPUT={output}",
            f"-j{len(os.sched_getaffinity(0))}",
        ]
        # both Makefiles take these flags as they come, and overwrite or extend all others
        words += [f"KHDR_INCLUDES=-isystem {self.headers}", "LDFLAGS=-static"]
        log = self.place / _LOG
        try:
            # Of the tree that is in the cache some are links, the others have a name here, too.
            reads = [self.tree, self.place / "work", self.headers]
            run(self.sandbox.around(words, reads=reads, writes=[output]), log=log)
        except CommandError as error:
            shown = errors_in(log.read_text(errors="replace"))
            raise BuildError("\n".join(f"    {line}" for line in shown)) from error
        return sorted(
            taken(output, file.name)
            for file in output.iterdir()
            if file.is_file() and os.access(file, os.X_OK)
        )
