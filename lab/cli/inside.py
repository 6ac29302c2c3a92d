# SPDX-License-Identifier: GPL-2.0-only
"""Commands that look inside a guest: one that lives, or a new one."""

import sys
from pathlib import Path
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
    Modes,
    New,
    Out,
    Patches,
    QemuArgs,
    QemuPath,
    SeriesFile,
    boot_choice,
    choice_of,
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
    """Open QEMU's monitor, or run one command in it: -c 'info registers'.

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
    """Open Python's prompt with a guest, an agent and its devices, or a shell in the guest."""
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
    """Open gdb on a guest's kernel, with its vmlinux, its sources and its own scripts (lx-ps, ...).

    The guest stands while gdb has it, and runs on when gdb leaves.
    """
    from lab.commands.debugger import open_gdb
    from lab.config import Lab

    choice = boot_choice(new, kernel=kernel, machine=machine, qemu_arg=qemu_arg)
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
    """Open drgn on a guest's kernel, which runs on meanwhile. For a lost one: `vfio-lab crash`."""
    from lab.commands.debugger import open_drgn
    from lab.config import Lab

    choice = boot_choice(new, kernel=kernel, machine=machine, qemu_arg=qemu_arg)
    sys.exit(open_drgn(Lab.find(lab_folder), guest, choice, command or ()))


@app.command()
def trace(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TEST|PROG", help="A pytest id, an expression as for -k, or a program."
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="The program's; options of its own after `--`."),
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Kernel = None,
    series_file: SeriesFile = None,
    machine: Machine = None,
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="A device that a program is told of."),
    ] = None,
    mode: Modes = None,
    event: Annotated[
        list[str] | None,
        typer.Option("--event", metavar="E", help="iommu, iommu/map, ...; may be repeated."),
    ] = None,
    graph: Annotated[
        list[str] | None,
        typer.Option(metavar="FUNC", help="This function and all that it calls; may be repeated."),
    ] = None,
    out: Out = None,
    qemu: QemuPath = None,
    qemu_arg: QemuArgs = None,
    boot_timeout: BootTimeout = 120.0,
) -> None:
    """Trace the kernel during a test, or while a program runs: events, or calls of functions.

    The default are the events of iommu, intel_iommu and vfio that the kernel has. It needs ftrace:
    --kernel v6.12+trace, or one that Debian built. In traces/ of the run's folder are trace.txt,
    trace.dat (trace-cmd report, KernelShark) and trace.json (ui.perfetto.dev). The exit status is
    that of `run`, or of `exec` for a program.
    """
    from lab.commands.execute import Order
    from lab.commands.trace import is_program, trace_program, trace_test
    from lab.config import Lab, known
    from lab.contract import Mode
    from lab.debug.ftrace import Wish

    choice = choice_of(
        kernel=kernel,
        series_file=series_file,
        machine=machine,
        qemu=qemu,
        qemu_arg=qemu_arg,
        boot_timeout=boot_timeout,
    )
    wish = Wish(tuple(event or ()), tuple(graph or ()))
    lab, modes = Lab.find(lab_folder), tuple(mode or ())
    if not is_program(target):
        sys.exit(trace_test(lab, choice, target, modes, wish, out=out))
    order = Order(
        program=Path(target),
        arguments=tuple(arguments or ()),
        devices=tuple(device or ()),
        mode=Mode(known("mode", modes[0], list(Mode))) if modes else None,
    )
    sys.exit(trace_program(lab, choice, order, wish, out=out))
