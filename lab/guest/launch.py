# SPDX-License-Identifier: GPL-2.0-only
"""A running QEMU: its process, its console, its monitor. It ends with the `with` block."""

import asyncio
import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.deadline import Deadline
from lab.errors import GuestLost
from lab.guest.console import Console
from lab.guest.loop import Loop
from lab.guest.monitor import Monitor

_BREAK = 2.0  # seconds; QEMU has nothing to do for it
_LAST_WORDS = 2.0  # seconds to read what a dead QEMU left in its pipes
PANICKED = "GUEST_PANICKED"
ENDED = "SHUTDOWN"  # the guest reset itself, or was powered off; QEMU holds it as it was


@dataclass(frozen=True)
class Running:
    """One QEMU, from its start to its end."""

    process: subprocess.Popen[bytes]
    console: Console
    monitor: Monitor
    log: Path  # QEMU's own standard error, with its traces
    loop: Loop
    circling: threading.Event = field(default_factory=threading.Event)
    """The kernel oopses while it tells of an oops, and never comes to the panic."""

    @property
    def sign_of_death(self) -> str | None:
        """What has been heard of the guest's end, in words."""
        if self.monitor.saw(PANICKED):
            return "the kernel panicked"
        if self.monitor.saw(ENDED) or self.monitor.saw("RESET"):
            return "the guest reset itself or was powered off"
        if self.console.ended:
            return "QEMU ended"
        if self.circling.is_set():
            return "the kernel oopses again and again, and comes to no panic"
        return None

    def settle(self) -> None:
        """Return once all that QEMU has said until now has been read."""
        self.loop.settle()

    @property
    def over(self) -> bool:
        """The guest has come to its end: nothing more will be on its console."""
        return self.console.ended or self.monitor.saw(ENDED)

    def sysrq(self, key: str) -> None:
        """Send the guest's kernel a SysRq key: a break on its serial console, then the key.

        Raises GuestLost when QEMU is gone or does not answer.
        """
        assert self.process.stdin
        self.monitor.execute("chardev-send-break", {"id": "console"}, timeout=_BREAK)
        try:
            self.process.stdin.write(key.encode())
            self.process.stdin.flush()
        except OSError as error:
            raise GuestLost(f"QEMU reads no console any more: {error}") from error

    @property
    def stopped_inside(self) -> bool:
        """QEMU stopped the guest because its accelerator failed (run state internal-error)."""
        if not self.monitor.saw("STOP") or self.console.ended:
            return False
        return bool(self.monitor.execute("query-status")["status"] == "internal-error")

    def complaint(self) -> str:
        """What QEMU itself had to say, without its traces."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines if not line.startswith("vtd_"))


@contextmanager
def launch(loop: Loop, qemu: Path, options: Sequence[str], folder: Path) -> Iterator[Running]:
    """Start QEMU in `folder`, which gets console.log and qemu.log."""
    ours, theirs = socket.socketpair()
    log = folder / "qemu.log"
    with ours, theirs, log.open("wb") as errors:
        qmp = f"socket,id=qmp,fd={theirs.fileno()}"
        argv = ["setpriv", "--pdeathsig", "KILL", str(qemu), *options]
        argv += ["-chardev", qmp, "-mon", "chardev=qmp,mode=control"]
        # A guest that is at its end stays, so that its memory can be looked at. A panic has not
        # ended when QEMU hears of it: what it still has to print comes before it restarts.
        argv += ["-action", "panic=none,shutdown=pause"]
        process = loop.spawn(
            lambda: subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in a terminal goes to the whole foreground group; QEMU is ended by us
                start_new_session=True,
            )
        )
        theirs.close()
        try:
            console = Console(folder / "console.log")
            loop.submit(_read(process, console)).result()
            monitor = Monitor(loop, ours, on_event=console.wake)
            running = Running(process, console, monitor, log, loop)
            try:
                yield running
            finally:
                process.kill()
                console.wait_for_end(Deadline.after(_LAST_WORDS))
                monitor.close()
        finally:
            process.kill()
            process.wait()
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()


async def _read(process: subprocess.Popen[bytes], console: Console) -> None:
    await asyncio.get_running_loop().connect_read_pipe(lambda: console, process.stdout)
