# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab shell`: a guest to try things in, from Python or from its own shell."""

import code
import contextlib
import os
import readline
import rlcompleter
import select
import sys
import tempfile
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.contract import Mode
from lab.guest.ssh import Channel
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.testbed import Testbed
from lab.vfio import uapi
from lab.vfio.edu import edu_of
from lab.vfio.files import Container, Iommufd
from lab.vfio.modes import joined_group, open_container, open_device

_EXAMPLE = """\
  with open_device(process, edu0, Mode.IOMMUFD) as opened, edu_of(opened.device) as edu:
      print(hex(edu.inverted(0)))
"""


def open_shell(lab: Lab, choice: Choice, *, sh: bool) -> int:
    """Boot, talk until the user has enough, and end the guest; returns the exit status."""
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="vfio-lab-shell-") as folder:
        cell = Cell(lab, choice, Cache.of_user(), progress, RunFolder(Path(folder)))
        with cell:
            with progress.step("boot") as step:
                testbed = cell.testbed()
                step.result(
                    f"{cell.parts.kernel.release or cell.parts.kernel.name} on {cell.machine_name}"
                )
            return _guest_shell(testbed) if sh else _python(testbed)


def _python(testbed: Testbed) -> int:
    with testbed.start_process() as process:
        names: dict[str, Any] = {
            "guest": testbed.guest,
            "process": process,
            "new_process": testbed.start_process,
            "devices": testbed.devices,
            **testbed.devices,
            "Mode": Mode,
            "open_device": open_device,
            "open_container": open_container,
            "joined_group": joined_group,
            "edu_of": edu_of,
            "Iommufd": Iommufd,
            "Container": Container,
            "uapi": uapi,
        }
        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
        banner = (
            f"Here are: {', '.join(names)}.\n"
            f"For example:\n{_EXAMPLE}Ctrl-D ends the guest. Its console: {testbed.guest.folder}"
        )
        code.interact(banner, local=names, exitmsg="")
    return 0


def _guest_shell(testbed: Testbed) -> int:
    terminal = os.environ.get("TERM", "linux") if sys.stdin.isatty() else None
    channel = testbed.guest.ssh.start("exec /bin/sh", terminal=terminal)
    with _raw(terminal is not None):
        _relay(channel)
    channel.close()
    return max(channel.status, 0)


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Let every key, Ctrl-C too, go to the guest."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _relay(channel: Channel) -> None:
    """Both ways, until the guest's side has ended."""
    ours = sys.stdin.fileno()
    reading = [ours, channel.fileno()]
    while True:
        ready, _, _ = select.select(reading, [], [])
        if channel.fileno() in ready:
            data = channel.take()
            if not data:
                return
            os.write(sys.stdout.fileno(), data)
        if ours in ready:
            typed = os.read(ours, 4096)
            if typed:
                channel.send(typed)
            else:
                channel.end_input()
                reading.remove(ours)
