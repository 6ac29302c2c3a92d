# SPDX-License-Identifier: GPL-2.0-only
"""A running QEMU: its process, its console, its monitor. It ends with the `with` block."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.deadline import Deadline
from lab.guest.console import Console
from lab.guest.loop import Loop
from lab.guest.monitor import Monitor

_LAST_WORDS = 2.0  # seconds to read what a dead QEMU left in its pipes


@dataclass(frozen=True)
class Running:
    """One QEMU, from its start to its end."""

    process: subprocess.Popen[bytes]
    console: Console
    monitor: Monitor
    log: Path  # QEMU's own standard error, with its traces

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
        process = loop.spawn(
            lambda: subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
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
            running = Running(process, console, monitor, log)
            try:
                yield running
            finally:
                process.kill()
                console.wait_for_end(Deadline.after(_LAST_WORDS))
                monitor.close()
        finally:
            process.kill()
            process.wait()


async def _read(process: subprocess.Popen[bytes], console: Console) -> None:
    await asyncio.get_running_loop().connect_read_pipe(lambda: console, process.stdout)
