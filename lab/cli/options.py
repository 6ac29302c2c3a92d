# SPDX-License-Identifier: GPL-2.0-only
"""Options that several commands have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lab.cell import Choice

LEAST_SECONDS = 0.1  # of a timeout: what is less is a slip of the finger

LabFolder = Annotated[
    Path | None, typer.Option("--lab", metavar="DIR", help="The lab's folder.", envvar="VFIO_LAB")
]
Kernel = Annotated[
    str | None,
    typer.Option(
        metavar="K",
        help="A kernel of lab.yaml, src:VERSION or deb:VERSION, or a path; see `vfio-lab kernels`.",
    ),
]
SeriesFile = Annotated[
    str | None,
    typer.Option(
        "--series",
        metavar="FILE",
        help="Patches for it: an mbox, a maildir, a folder, a message-id, or -.",
    ),
]
Patches = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of the series only the first N.")
]
Machine = Annotated[str | None, typer.Option(metavar="MACHINE", help="A machine of lab.yaml.")]
Tests = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        exists=True,
        file_okay=False,
        resolve_path=True,
        help="A folder of more tests: those that a series brings.",
    ),
]
Image = Annotated[
    str | None,
    typer.Option(metavar="IMAGE", help="An image of lab.yaml, or a path to an initramfs."),
]
Agent = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        exists=True,
        dir_okay=False,
        help="The agent, compiled; default: the lab compiles it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
QemuPath = Annotated[Path | None, typer.Option("--qemu", metavar="PATH", help="Another QEMU.")]
QemuArgs = Annotated[
    list[str] | None,
    typer.Option("--qemu-arg", metavar="ARG", help="One more word for QEMU; may be repeated."),
]
BootTimeout = Annotated[
    float, typer.Option(min=LEAST_SECONDS, metavar="S", help="Seconds that a boot may take.")
]
TestTimeout = Annotated[
    float | None,
    typer.Option(
        min=LEAST_SECONDS, metavar="S", help="Seconds that a test may take; default: 120."
    ),
]
NoVmcore = Annotated[
    bool, typer.Option("--no-vmcore", help="Keep no memory of guests that the kernel loses.")
]
Update = Annotated[bool, typer.Option("--update", help="Look for newer packages first.")]
Suites = Annotated[
    list[str] | None,
    typer.Option(metavar="SUITE", help="A suite of lab.yaml; may be repeated."),
]
Rules = Annotated[
    list[str] | None, typer.Option(metavar="RULE", help="Only this rule; may be repeated.")
]
Modes = Annotated[
    list[str] | None, typer.Option(metavar="MODE", help="Only this mode; may be repeated.")
]
Keyword = Annotated[
    str | None, typer.Option("-k", metavar="EXPR", help="Only tests that match, as in pytest.")
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Its folder, new or empty; default: one among all runs."),
]
Guest = Annotated[
    str | None,
    typer.Argument(
        metavar="GUEST",
        help="A living guest: its number (`vfio-lab guests`), or its run; default: the newest that "
        "is held or open, or else a new one.",
    ),
]
Commands = Annotated[
    list[str] | None,
    typer.Option("--exec", metavar="CMD", help="Run this in it, and end; may be repeated."),
]
New = Annotated[bool, typer.Option("--new", help="Boot a new one, as any option for it does.")]


def choice_of(
    *,
    kernel: str | None = None,
    series_file: str | None = None,
    patches: int | None = None,
    machine: str | None = None,
    image: str | None = None,
    agent: Path | None = None,
    qemu: Path | None = None,
    qemu_arg: list[str] | None = None,
    boot_timeout: float = 120.0,
    no_vmcore: bool = False,
    doors: bool = False,
    update: bool = False,
    seed: int | None = None,
) -> "Choice":
    """What the options of these names say together. Raises as `series_of` does."""
    from lab.cell import SEED, Choice, series_of  # noqa: PLC0415  (see `lab.cli.app`)

    return Choice(
        kernel=kernel,
        series=series_of(series_file, patches),
        machine=machine,
        image=image,
        agent=agent,
        qemu=qemu,
        qemu_arguments=tuple(qemu_arg or ()),
        boot_timeout=boot_timeout,
        vmcore=not no_vmcore,
        doors=doors,
        update=update,
        seed=SEED if seed is None else seed,
    )


def boot_choice(new: bool, *, boot_timeout: float = 120.0, **asked: Any) -> "Choice | None":
    """What is to be booted, as `choice_of`; None where nothing of it was asked for, and a living
    guest will do."""
    return choice_of(**asked, boot_timeout=boot_timeout) if new or any(asked.values()) else None
