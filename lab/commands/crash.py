# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab crash`: the memory of a guest that its kernel lost, in a debugger."""

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.commands.bundle import find_run
from lab.debug.debugger import Debugger, choose, run, vmlinux_of
from lab.errors import ConfigurationError
from lab.guest.vmcore import VMCORE
from lab.kernel.prebuilt import of_bzimage
from lab.progress import Progress
from lab.results.folder import LATEST, RESULTS, RunFolder, runs
from lab.vmcore import elf
from lab.vmcore.kdump import Kdump


@dataclass(frozen=True)
class Crash:
    """A dump, and whose it is."""

    vmcore: Path
    run: RunFolder

    def vmlinux(self) -> Path:
        """Of the kernel that the guest ran. Raises ConfigurationError where it is gone."""
        part = self.run.read_replay().kernel
        part.check()
        return vmlinux_of(of_bzimage(part.title, part.path))


def open_crash(
    target: str, debugger: Debugger | None, commands: Sequence[str], words: Sequence[str]
) -> int:
    """Open the dump of RUN/TEST, or of RUN if it has a single one; returns the debugger's status.

    With `commands` it runs these and ends; `words` are more of the debugger's own. Raises
    ConfigurationError.
    """
    crash = find(target)
    vmlinux = crash.vmlinux()
    chosen, program = choose([debugger] if debugger else list(Debugger))
    with tempfile.TemporaryDirectory(prefix="vfio-lab-crash-") as folder:
        core = Path(folder) / "core"
        with Progress().step(f"read {crash.vmcore}"):
            elf.write(Kdump.read(crash.vmcore), core)
        return run([program, *words, *chosen.on_core(core, vmlinux, commands)])


def find(target: str) -> Crash:
    """`target` is a run's folder or name; behind it may stand a test's id, or a part of it.

    Raises ConfigurationError where that leads to no dump, or to several.
    """
    run, test = _run_and_test(target)
    if test is None:
        found = sorted(run.path.glob(f"guests/*/{VMCORE}"))
        if len(found) == 1:
            return Crash(found[0], run)
        told = ", ".join(path.parent.name for path in found) or "none"
        raise ConfigurationError(
            f"{run.path} has {len(found)} dumps; those of its guests: {told}",
            hint=_told_by_tests(run) or "a guest's memory is kept when its kernel loses it",
        )
    ids = {each.id for each in run.read().tests if test in each.id}
    exact = {id_ for id_ in ids if test in (id_, id_.rpartition("::")[2])}
    with_dump = {id_: dump for id_ in exact or ids if (dump := _dump_of(run, id_))}
    if len(with_dump) == 1:
        (dump,) = with_dump.values()
        return Crash(dump, run)
    if not ids:
        raise ConfigurationError(
            f"{run.path} has no test {test}", hint=_told_by_tests(run) or "it has no dump at all"
        )
    if not with_dump:
        raise ConfigurationError(
            f"{test} lost no guest by its kernel's fault: there is no dump",
            hint=_told_by_tests(run) or "the run has no dump at all",
        )
    raise ConfigurationError(
        f"{test} may be {len(with_dump)} tests", hint=f"name one: {', '.join(sorted(with_dump))}"
    )


def _run_and_test(target: str) -> tuple[RunFolder, str | None]:
    """The longest beginning that is a run; what follows is the test."""
    parts = target.split("/")
    for number in range(len(parts), 0, -1):
        with contextlib.suppress(ConfigurationError):
            run = find_run("/".join(parts[:number]) or "/")
            if (run.path / RESULTS).is_file():
                return run, "/".join(parts[number:]) or None
    raise ConfigurationError(
        f"there is no run {target}",
        hint=f"expected a run's folder, {LATEST}, or a name in {runs()}",
    )


def _dump_of(run: RunFolder, id_: str) -> Path | None:
    """The dump of the guest on which a test ran."""
    for test in run.read().tests:
        for name in test.evidence:
            dump = run.path / Path(name).parent / VMCORE
            if test.id == id_ and test.verdict.is_trouble and dump.is_file():
                return dump
    return None


def _told_by_tests(run: RunFolder) -> str | None:
    found = [test.id for test in run.read().tests if _dump_of(run, test.id)]
    return f"these tests have one: {', '.join(found)}" if found else None
