# SPDX-License-Identifier: GPL-2.0-only
"""Commands that give a guest away."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.app import app
from lab.cli.options import (
    LEAST_SECONDS,
    BootTimeout,
    Image,
    Json,
    Kernel,
    LabFolder,
    Machine,
    Out,
    Patches,
    QemuArgs,
    QemuPath,
    SeriesFile,
    choice_of,
)

# ruff: noqa: PLC0415  (see `lab.cli.app`)


@app.command("exec")
def execute_(
    program: Annotated[
        Path, typer.Argument(metavar="PROG.c|PROG", help="C, a static program, or a script.")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="Its arguments; options of its own after `--`."),
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Kernel = None,
    series_file: SeriesFile = None,
    patches: Patches = None,
    machine: Machine = None,
    image: Image = None,
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="A device that it is told of; may be repeated."),
    ] = None,
    mode: Annotated[
        str | None, typer.Option(metavar="MODE", help="The mode that it is told.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=LEAST_SECONDS, metavar="S", help="Seconds that it may take.")
    ] = 300.0,
    out: Out = None,
    as_json: Json = False,
    qemu: QemuPath = None,
    qemu_arg: QemuArgs = None,
    boot_timeout: BootTimeout = 120.0,
) -> None:
    """Run a program of your own in a guest, and judge it.

    C is compiled statically against the kernel's own headers. The program runs as root. It is told
    of each --device in VFIO_LAB_BDF (0000:00:05.0), VFIO_LAB_CDEV (/dev/vfio/devices/vfio0) and
    VFIO_LAB_GROUP (/dev/vfio/3), several separated by spaces, and of --mode in VFIO_LAB_MODE.

    Exit status: 0 it succeeded; 1 it failed, by its exit status or a test of its KTAP, it did not
    end in time, or the kernel complained; 2 it does not compile, or the lab failed.
    """
    from lab.commands.execute import Order, execute
    from lab.config import Lab, known
    from lab.contract import Mode

    choice = choice_of(
        kernel=kernel,
        series_file=series_file,
        patches=patches,
        machine=machine,
        image=image,
        qemu=qemu,
        qemu_arg=qemu_arg,
        boot_timeout=boot_timeout,
    )
    order = Order(
        program=program,
        arguments=tuple(arguments or ()),
        devices=tuple(device or ()),
        mode=Mode(known("mode", mode, list(Mode))) if mode else None,
        timeout=timeout,
    )
    sys.exit(execute(Lab.find(lab_folder), choice, order, out=out, as_json=as_json))
