# SPDX-License-Identifier: GPL-2.0-only
"""Commands that look inside a guest: one that lives, or a new one."""

import sys
from typing import Annotated

import typer

from lab.cli.app import app
from lab.cli.options import (
    BootTimeout,
    Commands,
    Guest,
    Image,
    Json,
    Kernel,
    LabFolder,
    Machine,
    New,
    Patches,
    QemuArgs,
    QemuPath,
    SeriesFile,
    boot_choice,
)

# ruff: noqa: PLC0415  (see `lab.cli.app`)


@app.command()
def guests(as_json: Json = False) -> None:
    """List the guests that other commands can enter: those held, and those of a shell."""
    from lab.commands.living import show_living

    show_living(as_json=as_json)


@app.command()
def console(
    guest: Guest = None,
    lab_folder: LabFolder = None,
    new: New = False,
    kernel: Kernel = None,
    machine: Machine = None,
    qemu_arg: QemuArgs = None,
) -> None:
    """Show and follow a guest's serial console, and type into it. Ctrl-] leaves.

    Ctrl-\\ sends a break, after which the kernel takes a SysRq key. Where standard input is no
    terminal it is sent, and the command ends a second after the last word that came.
    """
    from lab.commands.console import open_console
    from lab.config import Lab

    choice = boot_choice(new, kernel=kernel, machine=machine, qemu_arg=qemu_arg)
    sys.exit(open_console(Lab.find(lab_folder), guest, choice))


@app.command()
def monitor(
    guest: Guest = None,
    lab_folder: LabFolder = None,
    new: New = False,
    kernel: Kernel = None,
    machine: Machine = None,
    qemu_arg: QemuArgs = None,
    command: Annotated[
        list[str] | None,
        typer.Option("-c", metavar="CMD", help="Run this, and end; may be repeated."),
    ] = None,
    qmp: Annotated[
        bool, typer.Option("--qmp", help="QMP, in JSON, instead of the human monitor.")
    ] = False,
) -> None:
    """QEMU's monitor: a prompt, or one command: -c 'info registers'.

    With --qmp the prompt is qmp-shell's, and a command is NAME or NAME {"argument": VALUE}.
    """
    from lab.commands.monitor import open_monitor
    from lab.config import Lab

    choice = boot_choice(new, kernel=kernel, machine=machine, qemu_arg=qemu_arg)
    sys.exit(open_monitor(Lab.find(lab_folder), guest, choice, command or (), qmp=qmp))


@app.command()
def shell(
    guest: Guest = None,
    lab_folder: LabFolder = None,
    new: New = False,
    kernel: Kernel = None,
    series_file: SeriesFile = None,
    patches: Patches = None,
    machine: Machine = None,
    image: Image = None,
    sh: Annotated[bool, typer.Option("--sh", help="A shell in the guest, not Python.")] = False,
    qemu: QemuPath = None,
    qemu_arg: QemuArgs = None,
    boot_timeout: BootTimeout = 120.0,
) -> None:
    """A Python prompt with the agent at hand, or a shell in the guest."""
    from lab.commands.shell import open_shell
    from lab.config import Lab

    choice = boot_choice(
        new,
        kernel=kernel,
        series_file=series_file,
        patches=patches,
        machine=machine,
        image=image,
        qemu=qemu,
        qemu_arg=qemu_arg,
        boot_timeout=boot_timeout,
    )
    sys.exit(open_shell(Lab.find(lab_folder), guest, choice, sh=sh))


@app.command()
def gdb(
    guest: Guest = None,
    lab_folder: LabFolder = None,
    new: New = False,
    kernel: Kernel = None,
    machine: Machine = None,
    qemu_arg: QemuArgs = None,
    command: Commands = None,
) -> None:
    """gdb on a guest's kernel, with its vmlinux, its sources and its own scripts (lx-ps, ...).

    The guest stands while gdb has it, and runs on when gdb leaves.
    """
    from lab.commands.debugger import open_gdb
    from lab.config import Lab

    choice = boot_choice(new, kernel=kernel, machine=machine, qemu_arguments=tuple(qemu_arg or ()))
    sys.exit(open_gdb(Lab.find(lab_folder), guest, choice, command or ()))


@app.command()
def drgn(
    guest: Guest = None,
    lab_folder: LabFolder = None,
    new: New = False,
    kernel: Kernel = None,
    machine: Machine = None,
    qemu_arg: QemuArgs = None,
    command: Commands = None,
) -> None:
    """drgn on a guest's kernel, which runs on meanwhile. For one that is lost: `vfio-lab crash`."""
    from lab.commands.debugger import open_drgn
    from lab.config import Lab

    choice = boot_choice(new, kernel=kernel, machine=machine, qemu_arguments=tuple(qemu_arg or ()))
    sys.exit(open_drgn(Lab.find(lab_folder), guest, choice, command or ()))
