# SPDX-License-Identifier: GPL-2.0-only
"""gdb and drgn: where they are, and what they are told."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lab.errors import ConfigurationError
from lab.kernel import Kernel

# gdb's threads are CPUs, from 1 on. The one that panicked is shown, if one did (kernel/panic.c).
_GDB_BEGIN = 'eval "thread %d", panic_cpu.counter < 0 ? 1 : panic_cpu.counter + 1'
_LIVE = "--qemu"  # drgn's option for a guest that lives


@dataclass(frozen=True)
class Help:
    """What gdb is told of a guest's kernel `before` it connects, and `after`."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


NO_HELP = Help()


class Debugger(Enum):
    """What opens a kernel; the value is its program."""

    DRGN = "drgn"
    GDB = "gdb"

    def find(self) -> str | None:
        """Its program, on the path or beside our Python."""
        return shutil.which(self.value) or shutil.which(
            self.value, path=Path(sys.executable).parent
        )

    @property
    def remedy(self) -> str:
        """How it comes onto a host that has it not."""
        if self is Debugger.DRGN:
            return f"{sys.executable} -m pip install drgn"
        return "apt-get install gdb"

    def on_core(self, core: Path, vmlinux: Path, commands: Sequence[str]) -> list[str]:
        """Its words for a dump. With `commands` it runs these and ends."""
        # fmt: off
        if self is Debugger.DRGN:
            return [
                "-q",
                "-c", str(core),
                "-s", str(vmlinux),
                *_evaluated(commands),
            ]
        return [
            "-q",
            *_batch(commands),
            "-ex", _GDB_BEGIN,
            *_each(commands),
            str(vmlinux), str(core),
        ]
        # fmt: on

    def on_guest(
        self, door: Path, vmlinux: Path, commands: Sequence[str], helped: Help = NO_HELP
    ) -> list[str]:
        """Its words for a guest that lives, behind its own `door`; only gdb wants to be helped."""
        # fmt: off
        if self is Debugger.DRGN:
            return [
                "-q",
                _LIVE, str(door),
                "-s", str(vmlinux),
                *_evaluated(commands),
            ]
        return [
            "-q",
            *_batch(commands),
            str(vmlinux),
            *_each(helped.before),
            "-ex", f"target remote {door}",
            *_each(helped.after),
            *_each(commands),
        ]
        # fmt: on


def _evaluated(commands: Sequence[str]) -> list[str]:
    return ["-e", "\n".join(commands)] if commands else []


def _batch(commands: Sequence[str]) -> list[str]:
    return ["-batch"] if commands else []


def _each(commands: Sequence[str]) -> list[str]:
    return [word for command in commands for word in ("-ex", command)]


def choose(among: Sequence[Debugger]) -> tuple[Debugger, str]:
    """The first that is installed, and its program. Raises ConfigurationError."""
    for each in among:
        if program := each.find():
            return each, program
    names = " or ".join(each.value for each in among)
    remedies = ", or ".join(each.remedy for each in among)
    raise ConfigurationError(f"{names} is not installed", hint=remedies)


def vmlinux_of(kernel: Kernel) -> Path:
    """Raises ConfigurationError where there is none."""
    if kernel.vmlinux:
        return kernel.vmlinux
    raise ConfigurationError(
        f"{kernel.bzimage} has no vmlinux beside it, and a debugger needs one",
        hint="a kernel that Debian built, or one out of a bundle without --symbols, has none",
    )


def must_know_guests(drgn: str) -> None:
    """Raises ConfigurationError for a drgn that opens no guest."""
    said = subprocess.run([drgn, "--help"], capture_output=True, text=True, check=False).stdout
    if _LIVE not in said:
        raise ConfigurationError(
            f"{drgn} is too old to look into a guest that lives: it has no {_LIVE}",
            hint=f"{sys.executable} -m pip install --upgrade drgn",
        )


def run(argv: Sequence[str], *, pass_fds: Sequence[int] = ()) -> int:
    """Its exit status. Ctrl-C is the debugger's meanwhile, not ours."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(argv, pass_fds=pass_fds, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
