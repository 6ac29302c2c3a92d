# SPDX-License-Identifier: GPL-2.0-only
"""A guest is held: it is told how to get in, and waited until somebody has had enough."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lab import deadline
from lab.living import Living, free_to_enter

FILE = "held"  # in the guest's folder: until it is removed, where nobody can be asked
_LOOKS = 0.2  # seconds between two


def ways_in(guest: Living) -> str:
    """The commands for a second terminal."""
    # fmt: off
    ways = {
        f"vfio-lab shell --sh {guest.pid}": "a shell in it",
        f"vfio-lab shell {guest.pid}": "Python's prompt, with its devices",
        f"vfio-lab gdb {guest.pid}": "its kernel in gdb, and in drgn: vfio-lab drgn",
        f"vfio-lab console {guest.pid}": "its serial console",
        f"vfio-lab monitor {guest.pid}": "QEMU's monitor",
    }
    # fmt: on
    width = max(map(len, ways))
    lines = [f"  {command:{width}}  {what}" for command, what in ways.items()]
    return "\n".join([f"{guest}, {guest.folder}", *lines])


def hold(pid: int, why: str, prompt: Callable[[], object] | None) -> None:
    """Return when the user lets it go on: from the prompt, or where there is none, by removing a
    file. Deadlines do not come nearer meanwhile."""
    with deadline.held(), free_to_enter(pid, f"held: {why}") as guest:
        words = f"held: {why}\n{ways_in(guest)}"
        if prompt:
            print(f"\n{words}", flush=True)
            prompt()
            return
        file = guest.folder / FILE
        until = f"It goes on when {file} is removed."
        draft = file.with_suffix(".new")
        draft.write_text(f"{words}\n{until}\n")
        draft.replace(file)  # whoever sees it sees all of it
        print(f"\n{words}\n{until}", file=sys.__stderr__, flush=True)
        try:
            while file.exists():
                time.sleep(_LOOKS)
        finally:
            file.unlink(missing_ok=True)


def somebody_is_there() -> bool:
    """Whether a person can be asked: standard input and error are a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.__stdin__, sys.__stderr__))


@contextmanager
def also_known(frame: FrameType, names: Mapping[str, Any]) -> Iterator[None]:
    """More names for a prompt in a frame, where it has none of its own that are so called."""
    added = {name: each for name, each in names.items() if name not in frame.f_globals}
    frame.f_globals.update(added)
    try:
        yield
    finally:
        for name in added:
            frame.f_globals.pop(name, None)


@contextmanager
def on_terminal() -> Iterator[None]:
    """Standard output is the terminal's, whatever it was made: only there a line can be edited."""
    terminal = sys.__stdout__ if os.isatty(1) else sys.__stderr__
    with contextlib.redirect_stdout(terminal):
        yield
