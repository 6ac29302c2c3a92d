# SPDX-License-Identifier: GPL-2.0-only
"""A guest without the lab: what its folder's qemu.sh starts, and a plain SSH client."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import paramiko

from lab.errors import InfrastructureError
from lab.guest.guest import READY
from lab.guest.keys import PRIVATE


@dataclass(frozen=True)
class ByHand:
    """Seconds from QEMU's start until init was ready, and until a login was served."""

    init: float
    login: float


def login_by_hand(folder: Path) -> ByHand:
    """Start the guest of that folder, log in, and end it. Raises InfrastructureError."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [folder / "qemu.sh"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout
    try:
        _await_ready(process.stdout)
        init = time.perf_counter() - started
        with paramiko.Transport(("127.0.0.1", _port(folder / "qmp.sock"))) as transport:
            key = paramiko.Ed25519Key(filename=str(folder / PRIVATE))
            transport.connect(username="root", pkey=key)
            return ByHand(init, time.perf_counter() - started)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def _await_ready(console: IO[bytes]) -> None:
    for line in console:
        if READY.encode() in line:
            return
    raise InfrastructureError("a guest that was started by hand did not come up")


def _port(place: Path) -> int:
    """The port of its SSH, asked of QEMU's monitor."""
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(os.fspath(place))
        with end.makefile("rw") as monitor:
            monitor.readline()  # its greeting
            for command in (
                {"execute": "qmp_capabilities"},
                {
                    "execute": "human-monitor-command",
                    "arguments": {"command-line": "info usernet"},
                },
            ):
                monitor.write(json.dumps(command) + "\n")
                monitor.flush()
                answer = json.loads(monitor.readline())
    match = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", answer["return"])
    if not match:
        raise InfrastructureError(f"QEMU does not say which port SSH has: {answer}")
    return int(match[1])
