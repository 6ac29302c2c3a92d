# SPDX-License-Identifier: GPL-2.0-only
"""Commands about many runs: nights."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.app import app
from lab.cli.options import Json, LabFolder
from lab.errors import ConfigurationError

# ruff: noqa: PLC0415  (see `lab.cli.app`)


@app.command()
def nightly(
    lab_folder: LabFolder = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            "--kernel", metavar="K", help="Only this one, in place of lab.yaml's; may be repeated."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="For all of it: 90m, 8h.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", min=1, metavar="N", help="Cells at once.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of Dask: its workers run the cells; tcp://HOST:8786."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="What a fleet shares: a folder, NFS, s3://BUCKET."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the night that was interrupted.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show what would be run, in which order, and why.")
    ] = False,
    no_update: Annotated[
        bool, typer.Option("--no-update", help="Look for no newer packages of kernels.")
    ] = False,
    install: Annotated[
        bool,
        typer.Option(
            "--install", help="Have it run every night: a systemd timer, or a line for crontab."
        ),
    ] = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Run it no more every night.")
    ] = False,
    at: Annotated[str, typer.Option(metavar="HH:MM", help="When, with --install.")] = "21:00",
    as_json: Json = False,
) -> None:
    """Run the matrix that lab.yaml's `nightly` describes, and say what is new since last night.

    Every verdict goes to the history; the page, the mail and the formats lie in the night's folder.
    Exit status: 0 nothing is broken; 1 something is; 2 the lab failed in some part.
    """
    from lab.commands.nightly import Wish, run_night, show_matrix, wanted
    from lab.config import Lab

    if install + uninstall + plan + resume > 1:
        raise ConfigurationError("--install, --uninstall, --plan and --resume exclude each other")
    if resume and (budget or kernel):
        raise ConfigurationError(
            "--resume goes on with a night whose kernels and budget are planned",
            hint="leave out --kernel and --budget; without --resume a new night starts",
        )
    lab = Lab.find(lab_folder)
    wish = Wish(
        budget=budget,
        jobs=jobs,
        scheduler=scheduler,
        store=store,
        resume=resume,
        update=not no_update,
        kernels=tuple(kernel or ()),
    )
    if install or uninstall:
        from lab.nightly import install as timer

        if install:
            wanted(lab, wish)  # what would fail every night fails now
        print("\n".join(timer.install(lab, at) if install else timer.uninstall()))
        return
    if plan:
        show_matrix(lab, wish, as_json=as_json)
        return
    sys.exit(run_night(lab, wish, as_json=as_json))


@app.command()
def serve(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="0: any that is free.")
    ] = 8417,
    night: Annotated[
        str | None, typer.Option(metavar="NIGHT", help="Name this one's page, not that of all.")
    ] = None,
    lab_folder: LabFolder = None,
) -> None:
    """Show the nights' pages in a browser of this machine, live while a night runs. Ctrl-C ends it.

    Only this machine can reach it, and nothing is written.
    """
    from lab.commands.serve import serve as serve_nights
    from lab.config import Lab

    serve_nights(Lab.find(lab_folder), port, night)


@app.command()
def worker(
    scheduler: Annotated[str, typer.Option(metavar="URL", help="Of Dask, as in tcp://HOST:8786.")],
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where this host sees the fleet's store; default: where the coordinator does.",
        ),
    ] = None,
    lab_folder: LabFolder = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its name for Dask; default: the host's, and a number."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="For guests; default: what is free now.")
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processors; default: all.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("-j", "--jobs", min=1, metavar="N", help="Cells at once; default: cpus / 4."),
    ] = None,
) -> None:
    """Run cells for nights on other machines, with this host's memory, processors and KVM.

    Cells come through a scheduler of Dask's, which `dask scheduler` starts. Whoever reaches that
    can run anything here, as you: see SECURITY.md. SIGTERM and Ctrl-C end the worker and all its
    guests; what it ran, another one runs.
    """
    from lab.config import Lab
    from lab.fleet import check_installed
    from lab.units import bytes_in

    check_installed()
    from lab.commands.worker import start_worker

    size = bytes_in(memory) if memory else None
    start_worker(Lab.find(lab_folder), scheduler, store, name, size, cpus, jobs)


@app.command(hidden=True)
def errand(
    place: Path,
    lab_folder: LabFolder = None,
    where: str = "",
    cpus: int = 1,
    memory: int = 0,
    make: bool = False,
) -> None:
    """A cell of a fleet's, in a process of its own. For `vfio-lab worker`, which calls it."""
    from lab.commands.worker import run_one
    from lab.config import Lab
    from lab.fleet.errand import Share

    run_one(Lab.find(lab_folder), place, None if make else Share(where, cpus, memory))
