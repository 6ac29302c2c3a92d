# SPDX-License-Identifier: GPL-2.0-only
"""What this host can and cannot do, what that costs, and how to mend it."""

import json
import shutil
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lab import image, kernel
from lab.cache import Cache
from lab.config import Lab
from lab.deadline import Deadline
from lab.errors import LabError
from lab.guest import AcceleratorMemory, Boot, Hypervisor, Loop, Qemu, boot, find_qemu
from lab.host import Finding, Mark, findings
from lab.progress import Progress
from lab.results.folder import runs
from lab.results.layout import line

_SIGNS = {
    Mark.OK: ("✓", "green"),
    Mark.COSTS: ("!", "yellow"),
    Mark.MISSING: ("✗", "red"),
    Mark.UNKNOWN: ("?", "yellow"),
}
_BOOT = 120.0  # seconds that the guest of a probe may take


def examine(lab: Lab, qemu: Path | None, *, probe: bool, as_json: bool) -> int:
    """Print what was found. Returns 0 when `vfio-lab run` can work, else 2.

    With `probe` what is known of KVM is forgotten, and a guest boots to find out anew.
    """
    cache = Cache.of_user()
    guest = [_probe(lab, qemu, cache, Progress())] if probe else []
    found = [*findings(lab, qemu, cache), *guest]
    status = 2 if any(finding.mark is Mark.MISSING for finding in found) else 0
    if as_json:
        print(json.dumps(_json(found, status), indent=1))
    else:
        _show(Console(), found)
    return status


def _probe(lab: Lab, given: Path | None, cache: Cache, progress: Progress) -> Finding:
    """Boot the lab's default guest, with KVM unless it cannot even be tried."""
    name = lab.run.kernel
    try:
        found = find_qemu(given, cache)
        built = kernel.look(name, lab, cache).built
        if not built:
            return Finding(
                "probe",
                Mark.UNKNOWN,
                f"no guest was booted: kernel {name} is not built, and the doctor builds none",
                mend="`vfio-lab run` builds it, and tries KVM with its first guest",
            )
        return _booted(lab, found, built, cache, progress)
    except LabError as error:
        return Finding(
            "probe", Mark.MISSING, error.message, "no guest can be tested", error.hint or ""
        )


def _booted(
    lab: Lab, qemu: Qemu, built: kernel.Kernel, cache: Cache, progress: Progress
) -> Finding:
    initramfs = image.prepare(lab.run.image, lab, cache, progress).initramfs
    variant = lab.variant(built.fragments)
    order = Boot(lab.machine(lab.run.machine).fit_for(variant), built.bzimage, initramfs)
    memory = AcceleratorMemory(cache, qemu)
    memory.forget()
    runs().parent.mkdir(parents=True, exist_ok=True)
    # It stays when the guest does not boot: the error points into it.
    folder = Path(tempfile.mkdtemp(prefix="probe-", dir=runs().parent))
    title = f"boot {lab.run.machine} with {built.name}"
    with progress.step(title), Loop() as loop:
        hypervisor = Hypervisor(qemu, memory, loop)
        deadline = Deadline.after(_BOOT * variant.slower)
        with boot(order, hypervisor, folder, deadline) as guest:
            seconds, accelerator = guest.seconds, guest.accelerator.value
    shutil.rmtree(folder)
    return Finding(
        "probe",
        Mark.OK,
        f"a guest booted with {accelerator}: {seconds['ready']:.1f} s until its SSH server "
        f"listened, {seconds['login']:.1f} s until the lab was logged in",
    )


# For a person


def _show(console: Console, found: Sequence[Finding]) -> None:
    width = max(len(finding.name) for finding in found)
    for finding in found:
        sign, style = _SIGNS[finding.mark]
        head = Text.assemble((sign, style), f" {finding.name:{width}}  ")
        rows = [finding.found]
        rows += [f"cost: {finding.cost}"] if finding.cost else []
        rows += [f"mend: {finding.mend}"] if finding.mend else []
        for row in rows:
            for words in _folded(row, console.width - width - 4):
                line(console, head + Text(words))
                head = Text(" " * (width + 4))
    marks = [finding.mark for finding in found]
    if missing := marks.count(Mark.MISSING):
        line(console, Text(f"\n`vfio-lab run` cannot work: {missing} missing", "bold red"))
    else:
        costs = marks.count(Mark.COSTS)
        line(console, Text(f"\n`vfio-lab run` can work; {costs} cost something", "bold"))


def _folded(text: str, width: int) -> list[str]:
    # A path or a command's word stays whole: one that is cut cannot be copied.
    return [
        words
        for row in text.splitlines()
        for words in textwrap.wrap(
            row, max(width, 20), break_long_words=False, break_on_hyphens=False
        )
    ]


# For a program


def _json(found: Sequence[Finding], status: int) -> dict[str, object]:
    return {
        "status": status,
        "capabilities": [
            {
                "name": finding.name,
                "mark": finding.mark.value,
                "found": finding.found,
                "cost": finding.cost,
                "mend": finding.mend,
            }
            for finding in found
        ],
    }
