# SPDX-License-Identifier: GPL-2.0-only
"""What is told of a test with trouble, in a folder of its own.

| in the folder | what it is                                                               |
|---------------|--------------------------------------------------------------------------|
| detail.txt    | what happened, with the traceback and the kernel's reports               |
| calls.txt     | what its processes asked of the kernel, and what that answered           |
| console.log   | what the guest printed meanwhile                                         |
| dmesg.txt     | the kernel's own log at the end, where the guest still answered          |
| versions.txt  | what it ran on                                                           |
| seeds.txt     | of what was random, where anything was                                   |
| replay.sh     | repeats this test                                                        |
| guest         | the folder of its guest: the console's every byte, QEMU's words, a dump  |

All of it is made fit for a terminal; what a guest said byte by byte is in the guest's folder.
"""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from lab.errors import LabError
from lab.results.folder import RunFolder
from lab.results.record import TestRecord
from lab.results.replay import SCRIPT
from lab.text import printable

Sources = Mapping[str, Callable[[], str]]
"""By the name of its file, what makes a text; where that is empty, there is none."""

_GUEST = "guest"


def keep(
    run: RunFolder, test: TestRecord, sources: Sources, guest: Path | None = None
) -> tuple[TestRecord, list[LabError]]:
    """Write it; the record that names it, and what could not be written.

    Nothing that goes wrong here is the test's: its verdict stands.
    """
    try:
        folder = run.test(test.id)
    except OSError as error:
        return test, [_trouble(test, "its folder", error)]
    written: list[str] = []
    troubles: list[LabError] = []
    for name, make in {"detail.txt": lambda: _detail(test), **sources}.items():
        try:
            if text := make():
                (folder / name).write_text(printable(text), encoding="utf-8")
                written.append(run.relative(folder / name))
        except Exception as error:  # a fault of the lab's own is one, too
            (folder / name).unlink(missing_ok=True)
            troubles.append(_trouble(test, name, error))
    try:
        if guest:
            (folder / _GUEST).symlink_to(os.path.relpath(guest, folder))
        script = folder / SCRIPT
        script.write_text(_script(test), encoding="utf-8", errors="surrogateescape")
        script.chmod(0o755)
        written.append(run.relative(script))
    except OSError as error:
        troubles.append(_trouble(test, SCRIPT, error))
    record = replace(test, folder=run.relative(folder), evidence=(*test.evidence, *written))
    return record, troubles


def _trouble(test: TestRecord, what: str, error: Exception) -> LabError:
    why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    return LabError(f"evidence of {test.id}: {what} cannot be written: {why}")


def _detail(test: TestRecord) -> str:
    facts = {
        "test": test.id,
        "rule": test.rule,
        "mode": test.mode,
        "machine": test.machine,
        "verdict": test.verdict,
        "seconds": f"{test.duration:.3f}",
    }
    head = "\n".join(f"{name:8} {value}" for name, value in facts.items() if value)
    return "\n\n".join(filter(None, (head, test.message, test.detail, *test.splats))) + "\n"


def _script(test: TestRecord) -> str:
    lines = [
        "#!/bin/sh",
        "# Repeats this one test as the run did; more words are pytest's.",
        'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 2',
        f'exec "$here/../../{SCRIPT}" --only {shlex.quote(test.id)} "$@"',
    ]
    return "\n".join(lines) + "\n"
