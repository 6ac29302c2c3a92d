# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's gdb stub, behind a door for as long as a debugger is there."""

import contextlib
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.debug.visit import monitor_of
from lab.errors import ConfigurationError, GuestLost
from lab.guest import doors
from lab.living import Living

_LOCK = "gdb.lock"


@contextmanager
def opened(guest: Living) -> Iterator[Path]:
    """The folder of the guest's doors, one of which leads to the stub. A guest that ran when the
    debugger came runs on when it has gone, however it went.

    Raises ConfigurationError while another debugger is there, and GuestLost.
    """
    with doors.reached(guest.folder) as place, (place / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another gdb is in {guest}") from None
        with monitor_of(guest) as monitor:
            ran = monitor.execute("query-status")["running"]
            monitor.human(doors.GDB_SERVER)
        try:
            yield place
        finally:
            # it may be gone: then nobody waits for it
            with contextlib.suppress(GuestLost), monitor_of(guest) as monitor:
                monitor.human("gdbserver none")
                if ran and monitor.execute("query-status")["status"] in ("debug", "paused"):
                    monitor.execute("cont")
