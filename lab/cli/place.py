# SPDX-License-Identifier: GPL-2.0-only
"""Commands about the lab itself, its cache and its host."""

import sys
from typing import Annotated

import typer

from lab.cli.app import app
from lab.cli.options import (
    Json,
    Kernel,
    LabFolder,
    Machine,
    QemuPath,
    Update,
)

# ruff: noqa: PLC0415  (see `lab.cli.app`)


@app.command("list")
def list_(lab_folder: LabFolder = None, as_json: Json = False) -> None:
    """Show the kernels, machines, suites and rules that there are."""
    from lab.commands.catalogue import show
    from lab.config import Lab

    show(Lab.find(lab_folder), as_json=as_json)


@app.command()
def kernels(
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="PATTERN", help="A part of a name, or a pattern such as 'src:6.12.*'."
        ),
    ] = None,
    lab_folder: LabFolder = None,
    update: Update = False,
    as_json: Json = False,
) -> None:
    """List the kernels that --kernel can name, which are here, and what of VFIO they have."""
    from lab.commands.kernels import show_kernels
    from lab.config import Lab

    show_kernels(Lab.find(lab_folder), pattern, update=update, as_json=as_json)


@app.command()
def explain(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="A rule's id, such as OWN-3.")],
    lab_folder: LabFolder = None,
) -> None:
    """Say what a rule is, where in the kernel it comes from, and which tests check it."""
    from lab.commands.catalogue import show_rule
    from lab.config import Lab

    show_rule(Lab.find(lab_folder), rule)


@app.command()
def cache(
    clean: Annotated[bool, typer.Option("--clean", help="Remove what the limits say.")] = False,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Not used for so long: 12h, 30d, 8w.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Keep no more than this: 500M, 20G.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is kept and how large it is, and clean by age or size."""
    from lab.commands.storage import show_cache

    show_cache(clean=clean, older_than=older_than, max_size=max_size, as_json=as_json)


@app.command()
def doctor(
    lab_folder: LabFolder = None,
    qemu: QemuPath = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Forget what is known of KVM and boot a guest to see.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what this host can and cannot do, what that costs, and how to mend it.

    Exit status: 0 `vfio-lab run` can work here; 2 it cannot.
    """
    from lab.commands.doctor import examine
    from lab.config import Lab

    sys.exit(examine(Lab.find(lab_folder), qemu, probe=probe, as_json=as_json))


@app.command()
def bench(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT",
            help="boot: to an agent, and to the first test; agent: a round trip; pool: the wait "
            "for a new guest; workers: one and more; guests: 200 in a row; series: a patch; "
            "variants: what --kernel K+VARIANT is slower by; cells: a matrix; fleet: the same on "
            "Dask; page: 100 nights as HTML; history: a million verdicts; night: these four; "
            "default: the first four.",
        ),
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Kernel = None,
    machine: Machine = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How often; default: a number of each one's own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the lab itself against a floor that is measured in the same run."""
    from lab.cell import Choice
    from lab.commands.benchmark import measure
    from lab.config import Lab

    choice = Choice(kernel=kernel, machine=machine)
    measure(Lab.find(lab_folder), choice, what, rounds or 0, as_json=as_json)
