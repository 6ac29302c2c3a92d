# SPDX-License-Identifier: GPL-2.0-only
"""Other people's programs, run so that none outlives the lab and none fails in silence."""

import contextlib
import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lab.errors import InfrastructureError, LabError

# tar says the latter when a write came to a part of its bytes
_FULL = re.compile(r"No space left on device|Wrote only \d+ of \d+ bytes|Disk quota exceeded")
_GRACE = 3.0  # seconds between a request to stop and the end


class CommandError(LabError):
    """A program exited with a status other than 0. `lines` are the last it printed."""

    def __init__(self, argv: Sequence[str], status: int, lines: Sequence[str]) -> None:
        tail = "\n".join(f"    {line}" for line in lines[-15:])
        super().__init__(f"`{shlex.join(argv)}` failed with status {status}:\n{tail}")
        self.status = status
        self.lines = tuple(lines)


@contextmanager
def _child(
    argv: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    output: int | IO[str] = subprocess.PIPE,
    grace: float = _GRACE,
) -> Iterator[subprocess.Popen[str]]:
    # A session of its own, because make and apt have children that must end with them; and the
    # kernel's parent-death signal for the case in which the lab itself is killed.
    leash = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    try:
        process = subprocess.Popen(
            [*leash, *argv],
            cwd=cwd,
            # Messages are read here and shown to people as they are: one language for all.
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise InfrastructureError(
            f"{argv[0]} is not installed", hint="`vfio-lab doctor` says how to install it"
        ) from error
    try:
        yield process
    finally:
        if process.poll() is None:
            _end_session(process, grace)
        if process.stdout:
            process.stdout.close()


@contextmanager
def _limit(process: subprocess.Popen[str], seconds: float | None) -> Iterator[threading.Event]:
    """End it when its time is up; the event says that this has come to pass."""
    late = threading.Event()

    def end() -> None:
        late.set()
        _end_session(process, _GRACE)

    timer = threading.Timer(seconds, end) if seconds is not None else None
    if timer:
        timer.start()
    try:
        yield late
    finally:
        if timer:
            timer.cancel()
            timer.join()


def _end_session(process: subprocess.Popen[str], grace: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)


@contextmanager
def background(
    argv: Sequence[str | Path], log: Path, *, grace: float = _GRACE
) -> Iterator[subprocess.Popen[str]]:
    """A program beside this one; what it prints goes to `log`.

    The end of the block asks it to end, and after `grace` seconds ends it with its children.
    """
    words = [str(word) for word in argv]
    with log.open("a") as sink, _child(words, None, None, sink, grace) as process:
        yield process


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    seconds: float | None = None,
) -> list[str]:
    """Run a program to its end and return the lines it printed (the last 10,000).

    `env` is added to this process's environment; `log` keeps everything it prints; `on_line`
    sees each line as it comes. Raises CommandError, or InfrastructureError when the program is
    missing, the disk is full, or it takes longer than `seconds`. On any exception the program and
    its children are ended.
    """
    words = [str(word) for word in argv]
    lines: deque[str] = deque(maxlen=10_000)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("a", errors="replace")) if log else None
        process = stack.enter_context(_child(words, cwd, env))
        late = stack.enter_context(_limit(process, seconds))
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.rstrip("\n")
            lines.append(line)
            if sink:
                sink.write(raw)
            if on_line:
                on_line(line)
        status = process.wait()
    if late.is_set():
        raise InfrastructureError(f"`{shlex.join(words)[:200]}` took longer than {seconds:g} s")
    if status:
        if full := next((line for line in lines if _FULL.search(line)), None):
            raise disk_full(full.strip())
        raise CommandError(words, status, list(lines))
    return list(lines)


@contextmanager
def room_in(place: Path) -> Iterator[None]:
    """The block writes there. Raises InfrastructureError on a full disk (ENOSPC, EDQUOT)."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(f"{place} ({error.strerror})") from error
        raise


def disk_full(detail: str) -> InfrastructureError:
    """The one message for a full disk, whoever met it."""
    return InfrastructureError(
        f"the disk is full: {detail}",
        hint="make room, or let `vfio-lab cache --clean` do it, and run the command again",
    )
