# SPDX-License-Identifier: GPL-2.0-only
"""From a user's file to a program that runs in a guest, whatever C library its image has."""

from pathlib import Path

from lab.errors import BuildError, ConfigurationError
from lab.kernel import Kernel
from lab.proc import CommandError, run
from lab.progress import Progress

_MAGIC = b"\x7fELF"


def program(source: Path, kernel: Kernel, folder: Path, progress: Progress) -> Path:
    """What runs: a .c file is compiled into `folder`, anything else is taken as it is.

    The C library is the host's glibc, which reproducers are written against; the kernel's headers
    go before the host's. Raises ConfigurationError for what cannot run, and BuildError with the
    compiler's lines.
    """
    check(source)
    if source.suffix != ".c":
        return source
    if not kernel.headers:
        progress.say(
            f"{kernel.name} comes without headers: {source.name} sees those of this host, "
            "/usr/include/linux"
        )
    target = folder / source.stem
    headers = ["-isystem", str(kernel.headers)] if kernel.headers else []
    flags = ["-static", "-O2", "-g", "-Wall", "-pthread"]
    with progress.step(f"compile {source.name}") as step:
        try:
            said = run(["gcc", *flags, *headers, "-o", target, source])
        except CommandError as error:
            lines = "\n".join(f"    {line}" for line in error.lines)
            raise BuildError(f"{source} does not compile:\n{lines}") from error
        step.result(f"{len(said)} lines of warnings" if said else "")
    for line in said:
        progress.say(f"  {line}")
    return target


def check(source: Path) -> None:
    """Raises ConfigurationError for what is neither C nor a program that runs in a guest."""
    if not source.is_file():
        raise ConfigurationError(f"{source} is no file; expected C (.c) or a program")
    if source.suffix == ".c":
        return
    with source.open("rb") as file:
        head = file.read(len(_MAGIC))
    if head == _MAGIC:
        if any("INTERP" in line for line in run(["readelf", "-l", source])):
            raise ConfigurationError(
                f"{source} is linked dynamically, and the guest has not its libraries",
                hint="link it with -static, or give its C file",
            )
    elif not head.startswith(b"#!"):
        raise ConfigurationError(
            f"{source} is no program: expected C (.c), an ELF file, or a script that begins with #!"
        )
