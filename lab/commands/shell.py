# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab shell`: a guest to try and look at things in, from Python or from its own shell."""

import code
import os
import readline
import rlcompleter
import select
import sys
from typing import Any

from lab.cell import Choice
from lab.config import Lab
from lab.contract import Mode
from lab.debug.place import at_hand
from lab.debug.terminal import raw
from lab.debug.visit import Visit, entered
from lab.guest.ssh import Channel, Connection
from lab.testbed import Testbed
from lab.vfio import uapi
from lab.vfio.edu import edu_of
from lab.vfio.files import Container, Iommufd
from lab.vfio.modes import joined_group, open_container, open_device

_EXAMPLE = """\
  with open_device(process, edu0, Mode.IOMMUFD) as opened, edu_of(opened.device) as edu:
      print(hex(edu.inverted(0)))
"""


def open_shell(lab: Lab, name: str | None, choice: Choice | None, *, sh: bool) -> int:
    """Talk until the user has enough, in the guest that `at_hand` finds or boots; returns the exit
    status."""
    with at_hand(lab, name, choice, "vfio-lab shell") as place:
        if place.testbed:
            testbed = place.testbed
            return _guest_shell(testbed.guest.ssh) if sh else _python(testbed, testbed.guest)
        with entered(place.living) as visit:
            return _guest_shell(visit.ssh) if sh else _python(visit, visit)


def _python(guests: Testbed | Visit, guest: object) -> int:
    with guests.start_process("shell") as process:
        names: dict[str, Any] = {
            "guest": guest,
            "process": process,
            "new_process": guests.start_process,
            "devices": guests.devices,
            **guests.devices,
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
        folder = guests.folder if isinstance(guests, Visit) else guests.guest.folder
        banner = (
            f"Here are: {', '.join(names)}.\n"
            f"For example:\n{_EXAMPLE}Ctrl-D leaves. The guest's folder: {folder}"
        )
        code.interact(banner, local=names, exitmsg="")
    return 0


def _guest_shell(ssh: Connection) -> int:
    terminal = os.environ.get("TERM", "linux") if sys.stdin.isatty() else None
    channel = ssh.start("exec /bin/sh", terminal=terminal)
    with raw():
        _relay(channel)
    channel.close()
    return max(channel.status, 0)


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
