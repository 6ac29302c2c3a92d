# SPDX-License-Identifier: GPL-2.0-only
"""A living guest, entered by a process that did not boot it."""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.agent.install import PLACE
from lab.agent.process import Process
from lab.deadline import Deadline
from lab.errors import GuestLost, InfrastructureError
from lab.guest import doors
from lab.guest.keys import PRIVATE
from lab.guest.loop import Loop
from lab.guest.monitor import Monitor
from lab.guest.ssh import Admission, Connection
from lab.living import Living
from lab.vfio.device import Device

_LOGIN = 15.0  # seconds
_CONSOLE = "console.log"


@dataclass(frozen=True, repr=False)
class Visit:
    """A guest that somebody else booted, and may end at any moment."""

    living: Living
    ssh: Connection
    devices: Mapping[str, Device]

    def __repr__(self) -> str:
        return f"<{self.living}>"

    @property
    def folder(self) -> Path:
        """Where its console, its command line and its QEMU's log are."""
        return self.living.folder

    def console(self) -> str:
        """All that it has printed."""
        return (self.folder / _CONSOLE).read_text(errors="replace")

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """One QMP command. Raises GuestLost and InfrastructureError as a `Monitor` does."""
        with monitor_of(self.living) as monitor:
            return monitor.execute(command, arguments)

    def human(self, line: str) -> str:
        """A command of QEMU's human monitor; what it prints. Raises as `execute` does."""
        with monitor_of(self.living) as monitor:
            return monitor.human(line)

    def start_process(self, name: str = "agent") -> Process:
        """A new process in it. Close it, or use it in a `with`. Raises GuestLost, AgentDied."""
        return Process(self.ssh.start(PLACE), name=name, stretch=self.living.stretch)


@contextmanager
def entered(living: Living) -> Iterator[Visit]:
    """Log in. Raises GuestLost where nobody answers."""
    with monitor_of(living) as monitor:
        state = monitor.execute("query-status")
    if not state["running"]:
        raise GuestLost(
            f"{living} stands still: QEMU calls that {state['status']}",
            hint="its console, monitor, gdb and drgn can be had all the same",
        )
    try:
        private = (living.folder / PRIVATE).read_bytes()
    except OSError as error:
        raise InfrastructureError(f"{living}: no key: {error}") from error
    admission = Admission(living.port, private, bytes.fromhex(living.host_key))
    connection = Connection.login(admission, Deadline.after(_LOGIN * living.stretch))
    with contextlib.closing(connection):
        devices = {role: Device(role, address) for role, address in living.devices.items()}
        yield Visit(living, connection, devices)


@contextmanager
def monitor_of(living: Living) -> Iterator[Monitor]:
    """Its QMP, for a moment: others wait meanwhile. Raises GuestLost."""
    try:
        end = doors.connect(living.folder, doors.QMP)
    except OSError as error:
        raise GuestLost(f"{living} has no monitor any more: {error}") from error
    with end, Loop() as loop:
        monitor = Monitor(loop, end, on_event=lambda: None)
        try:
            yield monitor
        finally:
            monitor.close()
