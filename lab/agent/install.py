# SPDX-License-Identifier: GPL-2.0-only
"""The agent on its way into a guest: compiled once, pushed once a guest, started at will."""

from pathlib import Path

from lab.agent import build
from lab.agent.build import FLAGS, SOURCE, compile_agent, compiler_path, find_compiler
from lab.agent.process import Process
from lab.agent.trace import Trace
from lab.cache import Cache, hash_of_file
from lab.guest import Guest

PLACE = "/run/agent"  # in the guest


def binary(cache: Cache, source: Path = SOURCE) -> Path:
    """The agent, compiled of the C files of `source`. Raises BuildError."""
    path = compiler_path()
    status = path.stat()
    # The compiler is told by its file: asking for its version costs more than the whole look-up.
    inputs = {
        "source": {file.name: hash_of_file(file) for file in source.glob("*.[ch]")},
        "build": hash_of_file(Path(build.__file__)),
        "compiler": [str(path), status.st_size, status.st_mtime_ns],
    }

    def make(folder: Path) -> dict[str, object]:
        compiler = find_compiler()
        compile_agent(folder / "agent", compiler, source)
        return {"compiler": compiler.version, "flags": FLAGS}

    return cache.make("agent", inputs, make).path / "agent"


def push(guest: Guest, program: Path) -> None:
    """Put the agent into a guest. Raises GuestLost."""
    guest.ssh.push(program, PLACE)


def start(
    guest: Guest, name: str = "agent", trace: Trace | None = None, *, stretch: float = 1.0
) -> Process:
    """A new process in the guest; close it, or use it in a `with`. `stretch` is that of its
    timeouts. Raises GuestLost, AgentDied."""
    return Process(
        guest.ssh.start(PLACE, near=True),
        name=name,
        whereabouts=guest.whereabouts,
        trace=trace,
        stretch=stretch,
    )
