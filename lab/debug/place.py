# SPDX-License-Identifier: GPL-2.0-only
"""The guest that a command is about: one that lives, or a new one that ends with the command."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.living import Living, chosen, free_to_enter, living
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.testbed import Testbed


@dataclass(frozen=True)
class Place:
    """A guest, and all of it where this process booted it."""

    living: Living
    testbed: Testbed | None = None


@contextmanager
def at_hand(lab: Lab, name: str | None, choice: Choice | None, command: str) -> Iterator[Place]:
    """The living guest of this name, or without one the newest that is free to enter. Where there
    is none, and where a `choice` was made, a new one is booted for `command`, which others find.

    Raises ConfigurationError for a name of no guest, and what booting raises.
    """
    found = None if choice else chosen(name, living())
    progress = Progress()
    if found:
        progress.say(str(found))
        yield Place(found)
        return
    asked = replace(choice or Choice(), doors=True)
    with tempfile.TemporaryDirectory(prefix="vfio-lab-guest-") as folder:
        cell = Cell(lab, asked, Cache.of_user(), progress, RunFolder(Path(folder)))
        with cell:
            with progress.step("boot") as step:
                testbed = cell.testbed()
                step.result(
                    f"{cell.parts.kernel.release or cell.parts.kernel.name} on {cell.machine_name}"
                )
            with free_to_enter(testbed.guest.pid, command) as guest:
                progress.say(f"{guest}; it ends with this command")
                yield Place(guest, testbed)
