# SPDX-License-Identifier: GPL-2.0-only
"""ftrace in a guest: turned on around something, and what it saw brought here.

Source: Documentation/trace/ftrace.rst and events.rst.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.agent import install
from lab.agent.errors import RemoteError, check
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm
from lab.agent.syscalls import Syscall
from lab.debug import chrome, tracedat
from lab.debug.tracedat import PAGE
from lab.errors import ConfigurationError
from lab.guest import Guest

EVENTS = ("iommu", "intel_iommu", "vfio")  # by default, those of them that the kernel has
TEXT, DAT, JSON = "trace.txt", "trace.dat", "trace.json"
_TRACEFS = "/sys/kernel/tracing"
# Seconds for a step: on a busy host it took 200 to list the 200,000 functions of a distribution's
# kernel, and more than 30 to have the tracer called in those that it can trace.
_PATIENCE = 300.0
_BUFFER, _OWN_BUFFER = 8192, 1408  # KiB for each CPU: ours, and the kernel's own choice
_PAGES = 64  # that are read in one round trip
_GRAPH = "function_graph"
# A line says when, on which CPU and in which process (`lab.debug.chrome` reads it), and none is of
# an interrupt that came meanwhile.
_GRAPH_OPTIONS = {
    "funcgraph-abstime": 1,
    "funcgraph-proc": 1,
    "funcgraph-tail": 1,
    "funcgraph-irqs": 0,
}
_REMEDY = "take one with ftrace: --kernel v6.12+trace, or one that Debian built"


@dataclass(frozen=True)
class Wish:
    """What is to be traced: events (`iommu`, `iommu/map`), and functions with all that they call.
    No events stand for `EVENTS`, where no functions are asked for."""

    events: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()

    @property
    def optional(self) -> bool:
        """Whether it is the default, of which a kernel may lack a part."""
        return not self.events and not self.functions

    def words(self) -> list[str]:
        """The same in pytest's options."""
        found = [word for event in self.events for word in ("--ftrace-event", event)]
        found += [word for name in self.functions for word in ("--ftrace-graph", name)]
        return ["--ftrace", *found]


@dataclass
class Saved:
    """Where a trace was written to, and how much it is; empty until the block has ended."""

    files: list[Path] = field(default_factory=list)
    lines: int = 0
    lost: int = 0  # events for which there was no room

    def __str__(self) -> str:
        lost = f" ({self.lost} more were lost)" if self.lost else ""
        where = f": {self.files[0]}" if self.files else ""
        return f"{self.lines} lines traced{lost}{where}"


@contextmanager
def traced(guest: Guest, wish: Wish, folder: Path, stretch: float) -> Iterator[Saved]:
    """Trace the block, and write what came to `folder`: as text, as trace-cmd's trace.dat, and as
    JSON for Perfetto.

    Raises ConfigurationError for what this kernel cannot trace.
    """
    saved = Saved()
    with install.start(guest, "tracer", stretch=stretch) as process:
        process.timeout = _PATIENCE
        tracer = _Tracer(guest, process)
        tracer.begin(wish)
        try:
            yield saved
        finally:
            tracer.stop()
            try:
                tracer.save(folder, saved)
            finally:
                tracer.reset()


class _Tracer:
    def __init__(self, guest: Guest, process: Process) -> None:
        self._guest = guest
        self._process = process
        self._enabled: list[str] = []  # events
        self._functions = False

    def _write(self, name: str, text: str) -> None:
        self._process.write_text(f"{_TRACEFS}/{name}", text)

    def _read(self, name: str) -> str:
        return self._process.read_text(f"{_TRACEFS}/{name}")

    def begin(self, wish: Wish) -> None:
        """Everything is set before anything is traced."""
        self._mount()
        self._enabled = self._events(wish)
        if wish.functions and _GRAPH not in self._read("available_tracers").split():
            raise ConfigurationError("this kernel traces no functions", hint=_REMEDY)
        self.reset()
        self._write("buffer_size_kb", f"{_BUFFER}\n")
        self._write("trace_clock", "mono\n")
        try:
            for event in self._enabled:
                self._write(f"events/{event}/enable", "1\n")
            for name in wish.functions:
                self._append("set_graph_function", name)
            self._functions = bool(wish.functions)
            if wish.functions:
                for option, value in _GRAPH_OPTIONS.items():
                    if self._exists(f"options/{option}"):
                        self._write(f"options/{option}", f"{value}\n")
                self._write("current_tracer", f"{_GRAPH}\n")
            self._write("tracing_on", "1\n")
        except BaseException:
            self.reset()
            raise

    def _mount(self) -> None:
        if not self._process.exists(f"{_TRACEFS}/trace"):
            self._guest.ssh.run("mount", "-t", "tracefs", "tracefs", _TRACEFS)
        if not self._process.exists(f"{_TRACEFS}/trace"):
            raise ConfigurationError("this kernel has no ftrace (CONFIG_FTRACE)", hint=_REMEDY)

    def _events(self, wish: Wish) -> list[str]:
        wanted = EVENTS if wish.optional else wish.events
        found = [each for each in wanted if self._process.exists(f"{_TRACEFS}/events/{each}")]
        missing = sorted(set(wanted) - set(found))
        if missing and not (wish.optional and found):
            there = ", ".join(self._systems())
            raise ConfigurationError(
                f"this kernel has no event {', '.join(missing)}", hint=f"there are: {there}"
            )
        return found

    def _systems(self) -> list[str]:
        names = self._process.listdir(f"{_TRACEFS}/events")
        return [name for name in names if self._process.exists(f"{_TRACEFS}/events/{name}/enable")]

    def _append(self, name: str, word: str) -> None:
        try:
            with self._process.open(f"{_TRACEFS}/{name}", os.O_WRONLY | os.O_APPEND) as file:
                data = f"{word}\n".encode()
                self._process.syscall(Syscall.WRITE, file.fd, data, len(data), what=name)
        except RemoteError as error:
            if error.errno != errno.EINVAL:
                raise
            raise ConfigurationError(
                f"this kernel can trace no function {word}",
                hint="it is inlined, of a module that is not loaded, or misspelt: the guest's "
                f"{_TRACEFS}/available_filter_functions has all",
            ) from error

    def stop(self) -> None:
        self._write("tracing_on", "0\n")

    def reset(self) -> None:
        """Nothing is traced, and the buffer is as small as kernels have it."""
        self._write("tracing_on", "0\n")
        self._write("current_tracer", "nop\n")
        self._write("events/enable", "0\n")
        for name in ("set_graph_function", "trace"):  # to open them so empties them
            if self._process.exists(f"{_TRACEFS}/{name}"):
                self._process.open(f"{_TRACEFS}/{name}", os.O_WRONLY | os.O_TRUNC).close()
        self._write("buffer_size_kb", f"{_OWN_BUFFER}\n")

    def save(self, folder: Path, saved: Saved) -> None:
        text = self._guest.ssh.run("cat", f"{_TRACEFS}/trace", timeout=_PATIENCE).output
        cpus = self._process.listdir(f"{_TRACEFS}/per_cpu")
        cpus.sort(key=lambda name: int(name.removeprefix("cpu")))
        saved.lines = sum(not line.startswith("#") for line in text.splitlines())
        saved.lost = sum(_lost(self._read(f"per_cpu/{cpu}/stats")) for cpu in cpus)
        raw = [self._raw(cpu) for cpu in cpus]  # this empties the buffer
        contents = {
            TEXT: text.encode(),
            DAT: tracedat.encode(self._description(), raw),
            JSON: chrome.from_text(text).encode(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            (folder / name).write_bytes(data)
            saved.files.append(folder / name)

    def _raw(self, cpu: str) -> bytes:
        """The pages of one CPU's buffer that hold anything."""
        pages = bytearray()
        with self._process.open(
            f"{_TRACEFS}/per_cpu/{cpu}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK
        ) as file:
            read = Call(Syscall.READ, (Imm(file.fd), Buf(size=PAGE), Imm(PAGE)))
            while True:
                for result in self._process.batch([read] * _PAGES):
                    if result.errno == errno.EAGAIN or not check(result, f"read {cpu}").value:
                        return bytes(pages)
                    pages += result.data[: result.value].ljust(PAGE, b"\0")

    def _description(self) -> tracedat.Description:
        """What a reader must know of this kernel."""
        systems = {
            system: [
                self._read(path)
                for event in self._process.listdir(f"{_TRACEFS}/events/{system}")
                if self._exists(path := f"events/{system}/{event}/format")
            ]
            for system in {*(event.partition("/")[0] for event in self._enabled), "ftrace"}
        }
        return tracedat.Description(
            header_page=self._read("events/header_page"),
            header_event=self._read("events/header_event"),
            systems=systems,
            symbols=self._symbols() if self._functions else "",
            formats=self._read("printk_formats"),
            commands=self._read("saved_cmdlines"),
        )

    def _symbols(self) -> str:
        """The functions among the kernel's symbols; an emulated CPU takes seconds to list them."""
        listed = self._guest.ssh.run("grep", "-i", " [tw] ", "/proc/kallsyms", timeout=_PATIENCE)
        return listed.output

    def _exists(self, name: str) -> bool:
        return self._process.exists(f"{_TRACEFS}/{name}")


def _lost(stats: str) -> int:
    """Events that a CPU's buffer had no room for: those that were written over."""
    found = re.findall(r"^(?:overrun|dropped events): (\d+)$", stats, re.MULTILINE)
    return sum(map(int, found))
