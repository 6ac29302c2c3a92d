# SPDX-License-Identifier: GPL-2.0-only
"""Commands that corner a bug."""

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
    NoVmcore,
    Out,
    Patches,
    QemuArgs,
    QemuPath,
    SeriesFile,
)

# ruff: noqa: PLC0415  (see `lab.cli.app`)

What = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        help="C, a static program, a script, or a test's id: tests/contract/test_x.py::test_y.",
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARGS", help="Its arguments; options of its own after `--`."),
]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="ROLE", help="A device that it is told of; may be repeated."),
]
ModeName = Annotated[
    str | None, typer.Option("--mode", metavar="MODE", help="The mode that it is told.")
]
Timeout = Annotated[
    float,
    typer.Option(
        min=LEAST_SECONDS,
        metavar="S",
        help="Seconds that an attempt may take; a slow variant of the kernel stretches them. A "
        "program that does not end by itself is no sign of anything, unless it is expected.",
    ),
]
Status = Annotated[
    int, typer.Option(metavar="N", help="The exit status of a program with which nothing is wrong.")
]
Expect = Annotated[
    str | None,
    typer.Option(
        metavar="SIGN",
        help="Only this counts: 'KASAN: use-after-free in vfio_…', 'hang in …', 'it exited with "
        "status 3', 'it did not end'. … and * stand for anything.",
    ),
]
StressKinds = Annotated[
    list[str] | None,
    typer.Option(
        "--stress",
        metavar="KIND",
        help="pin: the guest's CPUs share one of this host's; memory: next to none is free in the "
        "guest; noise: its CPUs are taken away for random moments; all. May be repeated.",
    ),
]
FaultInjection = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="Allocations fail. 5%: so many of the program's and its children's; nth=12: the "
        "twelfth of its first thread; nth: the first in the first attempt, and so on. An exit "
        "status counts only where it is expected.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--jobs",
        min=1,
        metavar="N",
        help="Guests at once; default: as many as this host has processors and memory for.",
    ),
]
Reuse = Annotated[
    bool,
    typer.Option(
        "--reuse", help="A guest that is as it was after an attempt serves for the next one."
    ),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Of what is random in --stress.")]


@app.command()
def repro(
    what: What,
    arguments: Arguments = None,
    lab_folder: LabFolder = None,
    kernel: Kernel = None,
    series_file: SeriesFile = None,
    patches: Patches = None,
    machine: Machine = None,
    image: Image = None,
    times: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="So many attempts at the most.")
    ] = None,
    lasting: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="TIME", help="90s, 10m, 2h; default: 10m, where --times is not given."
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Count on when it has shown: for its rate.")
    ] = False,
    expect: Expect = None,
    status: Status = 0,
    timeout: Timeout = 30.0,
    device: Devices = None,
    mode: ModeName = None,
    stress: StressKinds = None,
    fault_injection: FaultInjection = None,
    jobs: Jobs = None,
    reuse: Reuse = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the consoles of quiet attempts, too.")
    ] = False,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
    qemu: QemuPath = None,
    qemu_arg: QemuArgs = None,
    boot_timeout: BootTimeout = 120.0,
    no_vmcore: NoVmcore = False,
) -> None:
    """Attempt something in fresh guests until it shows, and say how often it does.

    What shows is a report of the kernel's, a hang (the guest does not answer, or SIGKILL does not
    end the program), or another exit status than --status; or only what --expect says. A program
    runs as root in a folder of its own, told of --device and --mode as by `exec`; the attempt lasts
    until it, and all that holds its output, has ended, or --timeout.

    Exit status: 0 it did not show; 1 it showed; 2 nobody knows, as the lab failed. (For `git bisect
    run`, which `vfio-lab bisect` replaces, 2 has to become 125.)
    """
    from lab.cell import SEED, Choice, series_of
    from lab.commands.repro import repro as attempt
    from lab.config import Lab, known
    from lab.contract import Mode
    from lab.repro.order import Faults, Limits, Order, stress_of
    from lab.repro.sign import Expectation
    from lab.units import seconds_in

    choice = Choice(
        kernel=kernel,
        series=series_of(series_file, patches),
        machine=machine,
        image=image,
        qemu=qemu,
        qemu_arguments=tuple(qemu_arg or ()),
        boot_timeout=boot_timeout,
        vmcore=not no_vmcore,
    )
    order = Order(
        what=what,
        arguments=tuple(arguments or ()),
        devices=tuple(device or ()),
        mode=Mode(known("mode", mode, list(Mode))) if mode else None,
        timeout=timeout,
        status=status,
        expected=Expectation(expect) if expect else None,
        limits=Limits(
            times, seconds_in(lasting, "--for") if lasting else None, None if keep_going else 1
        ),
        jobs=jobs,
        stress=stress_of(stress or ()),
        faults=Faults.read(fault_injection) if fault_injection else None,
        reuse=reuse,
        keep=keep,
        seed=SEED if seed is None else seed,
    )
    sys.exit(attempt(Lab.find(lab_folder), choice, order, out=out, as_json=as_json))


@app.command()
def bisect(
    what: What,
    arguments: Arguments = None,
    lab_folder: LabFolder = None,
    good: Annotated[
        str | None, typer.Option(metavar="K", help="A kernel, or a commit, without it.")
    ] = None,
    bad: Annotated[
        str | None, typer.Option(metavar="K", help="A kernel, or a commit, with it.")
    ] = None,
    among: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K",
            help="A kernel between them; may be repeated, from good to bad; default: all deb: or "
            "src: between two such, or else those of lab.yaml.",
        ),
    ] = None,
    series_file: Annotated[
        str | None,
        typer.Option("--series", metavar="FILE", help="Which of its patches, put on --kernel."),
    ] = None,
    tree: Annotated[
        Path | None,
        typer.Option(
            "--git", metavar="TREE", help="Which commit of this git tree; it is only read."
        ),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="K", help="What a series is put on; +FRAGMENT: a variant of the tree's kernels."
        ),
    ] = None,
    machine: Machine = None,
    image: Image = None,
    confidence: Annotated[
        float,
        typer.Option(min=0.5, max=0.999999, metavar="C", help="With which one is called good."),
    ] = 0.99,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            max=1.0,
            metavar="R",
            help="How often it shows on a bad one; 1: always; default: measured on --bad.",
        ),
    ] = None,
    measure: Annotated[
        str, typer.Option(metavar="TIME", help="For how long that is measured at the most.")
    ] = "10m",
    anew: Annotated[
        bool, typer.Option("--anew", help="Forget what the same command has found out before.")
    ] = False,
    expect: Expect = None,
    status: Status = 0,
    timeout: Timeout = 30.0,
    device: Devices = None,
    mode: ModeName = None,
    stress: StressKinds = None,
    fault_injection: FaultInjection = None,
    jobs: Jobs = None,
    reuse: Reuse = False,
    seed: Seed = None,
    as_json: Json = False,
    qemu: QemuPath = None,
    qemu_arg: QemuArgs = None,
    boot_timeout: BootTimeout = 120.0,
) -> None:
    """Find the first kernel, patch or commit with which something shows; see `repro`.

    How often it shows is measured on the bad end; each other is attempted until it shows, or was
    quiet as often as --confidence asks for. What does not apply, build or boot is skipped, not
    judged. What was found out is kept: the same command goes on after Ctrl-C.

    Exit status: 0 it is known which it was; 1 it is one of several, as some cannot be judged; 2
    nobody knows: the lab failed, it was interrupted, or the ends are not what they are said to be.
    """
    from lab.cell import SEED, Choice, series_of
    from lab.commands.bisect import Search
    from lab.commands.bisect import bisect as look_for
    from lab.config import Lab, known
    from lab.contract import Mode
    from lab.repro.order import Faults, Order, stress_of
    from lab.repro.sign import Expectation
    from lab.units import seconds_in

    choice = Choice(
        kernel=kernel,
        machine=machine,
        image=image,
        qemu=qemu,
        qemu_arguments=tuple(qemu_arg or ()),
        boot_timeout=boot_timeout,
    )
    order = Order(
        what=what,
        arguments=tuple(arguments or ()),
        devices=tuple(device or ()),
        mode=Mode(known("mode", mode, list(Mode))) if mode else None,
        timeout=timeout,
        status=status,
        expected=Expectation(expect) if expect else None,
        jobs=jobs,
        stress=stress_of(stress or ()),
        faults=Faults.read(fault_injection) if fault_injection else None,
        reuse=reuse,
        seed=SEED if seed is None else seed,
    )
    search = Search(
        good=good,
        bad=bad,
        among=tuple(among or ()),
        tree=tree,
        series=series_of(series_file),
        confidence=confidence,
        seconds=seconds_in(measure, "--measure"),
        rate=rate,
    )
    found = look_for(Lab.find(lab_folder), choice, order, search, anew=anew, as_json=as_json)
    sys.exit(found)


bug = typer.Typer(help="Keep reports as tests, in tests/bugs.", no_args_is_help=True)
app.add_typer(bug, name="bug")


@bug.command("new")
def new_bug(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run of `repro`: its folder, name, or latest.")
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="What to call it: its folder.")],
    reference: Annotated[
        list[str], typer.Option(metavar="REF", help="Where it was reported; may be repeated.")
    ],
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Default: that of what showed.")
    ] = None,
    lab_folder: LabFolder = None,
) -> None:
    """Make tests/bugs/NAME of a run in which it showed: its bug.yaml and the reproducer.

    Which releases have it, and which have it no more, is yours to add. Then `vfio-lab run --suite
    bugs` attempts it on kernels that should be without, and with --affected on the others.
    """
    from lab.bugs.keep import keep
    from lab.commands.bundle import find_run
    from lab.config import Lab

    lab = Lab.find(lab_folder)
    folder = lab.path(lab.suite("bugs").tests) / name
    made = keep(find_run(run), folder, title, reference, lab.variants)
    print(f"{made.folder}: {made.content.title}")
