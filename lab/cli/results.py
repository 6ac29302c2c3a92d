# SPDX-License-Identifier: GPL-2.0-only
"""Commands about what was seen: a run, a crash, a log."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.app import app
from lab.cli.options import (
    Json,
    LabFolder,
)
from lab.errors import ConfigurationError

# ruff: noqa: PLC0415  (see `lab.cli.app`)


@app.command()
def bundle(
    name: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, or its name.")
    ] = "latest",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The archive, *.tar.zst or *.tar.gz.")
    ] = None,
    symbols: Annotated[
        bool, typer.Option("--symbols", help="With vmlinux, which is many times as large.")
    ] = False,
) -> None:
    """Put a run into one file, with all that `vfio-lab replay` needs on another machine."""
    from lab.commands.bundle import make_bundle

    make_bundle(name, out, symbols=symbols)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def replay(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="BUNDLE|RUN", help="A bundle, or a run's folder or name.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Its folder, new or empty; default: one among all runs."),
    ] = None,
) -> None:
    """Repeat a run, and say which verdicts differ. More words, such as -k test_x, are pytest's.

    A bundle's kernel, image, agent and tests are run on this machine's QEMU; nothing is built or
    fetched. Its tests are Python that runs here as you: replay the bundles of people you trust.

    Exit status: 0 the verdicts are those that were recorded; 1 some differ; 2 the lab failed.
    """
    from lab.commands.bundle import replay_run

    sys.exit(replay_run(target, context.args, out=out))


@app.command()
def crash(
    target: Annotated[
        str,
        typer.Argument(metavar="RUN[/TEST]", help="A run, and a test's id or a part of it."),
    ] = "latest",
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="The debugger's own words, after `--`."),
    ] = None,
    drgn: Annotated[
        bool, typer.Option("--drgn", help="In drgn; default where it is there.")
    ] = False,
    gdb: Annotated[bool, typer.Option("--gdb", help="In gdb.")] = False,
    command: Annotated[
        list[str] | None,
        typer.Option("--exec", metavar="CMD", help="Run this in it, and end; may be repeated."),
    ] = None,
) -> None:
    """Open the memory of a guest that its kernel lost, with that kernel's symbols."""
    from lab.commands.crash import open_crash
    from lab.debug.debugger import Debugger

    if drgn and gdb:
        raise ConfigurationError("--drgn and --gdb exclude each other")
    chosen = Debugger.DRGN if drgn else Debugger.GDB if gdb else None
    sys.exit(open_crash(target, chosen, command or (), words or ()))


@app.command()
def splats(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Logs, *.gz too; default or -: standard input."),
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="K", help="File and line from this kernel of the lab; implies --text."
        ),
    ] = None,
    vmlinux: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, help="The same from a vmlinux with DWARF."),
    ] = None,
    modules: Annotated[
        Path | None,
        typer.Option(metavar="DIR", exists=True, help="Its modules, with their debug information."),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Print the reports, too.")] = False,
    as_json: Json = False,
) -> None:
    """Find the kernel's own reports of trouble in any log: FILE:FIRST-LAST: KIND: TITLE.

    A console, dmesg, a journal, a mail; of any architecture, from Linux 4.4 on. Oops, BUG, WARNING,
    the sanitizers, lockdep, stalls, hung tasks, corrupt memory, DMA faults, panics, reboots.

    Exit status: 0 there is none; 1 there are some; 2 a file cannot be read, or the lab failed.
    """
    from lab.commands.splats import show_splats, symbols_of

    symbols = symbols_of(lab_folder, kernel, vmlinux, modules)
    texts = text or symbols is not None
    sys.exit(show_splats(files or (), symbols, texts=texts, as_json=as_json))


@app.command()
def history(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="RULE|TEST|SPLAT",
            help="A rule's id, or a part of a test's name or of a splat's title; "
            "default: the last nights.",
        ),
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Annotated[
        str | None,
        typer.Option(metavar="K", help="Only on this kernel, by its name in the nights."),
    ] = None,
    machine: Annotated[
        str | None, typer.Option(metavar="MACHINE", help="Only on this machine.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say when something last passed, and on what; how often it flakes; first bad and last good.

    A test flakes that fails and passes on the same bits: the kernel, QEMU, and the lab.
    """
    from lab.commands.history import show_history
    from lab.config import Lab

    show_history(Lab.find(lab_folder), subject, kernel, machine, as_json=as_json)
