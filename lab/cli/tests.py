# SPDX-License-Identifier: GPL-2.0-only
"""Commands that test kernels."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.app import app
from lab.cli.options import (
    Agent,
    BootTimeout,
    Image,
    Json,
    Kernel,
    Keyword,
    LabFolder,
    Machine,
    Modes,
    NoVmcore,
    Out,
    Patches,
    QemuArgs,
    QemuPath,
    Rules,
    SeriesFile,
    Suites,
    Tests,
    TestTimeout,
    Update,
    choice_of,
)
from lab.errors import ConfigurationError

# ruff: noqa: PLC0415  (see `lab.cli.app`)


@app.command()
def run(
    lab_folder: LabFolder = None,
    kernel: Kernel = None,
    series_file: SeriesFile = None,
    patches: Patches = None,
    machine: Machine = None,
    image: Image = None,
    agent: Agent = None,
    suite: Suites = None,
    rule: Rules = None,
    mode: Modes = None,
    keyword: Keyword = None,
    tests: Tests = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="Tests that take minutes each, too.")
    ] = False,
    affected: Annotated[
        bool,
        typer.Option("--affected", help="Bugs: on kernels that should have them they must show."),
    ] = False,
    first: Annotated[
        bool, typer.Option("-x", "--first", help="Stop at the first test that fails.")
    ] = False,
    repeat: Annotated[
        int, typer.Option(min=1, metavar="N", help="All tests, N times in a row.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Of what is random in tests.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--workers",
            min=1,
            metavar="N",
            help="Test in N processes, each with guests of its own; default: as many as this host "
            "has room for, and one where only some tests were asked for.",
        ),
    ] = None,
    out: Out = None,
    as_json: Json = False,
    qemu: QemuPath = None,
    qemu_arg: QemuArgs = None,
    boot_timeout: BootTimeout = 120.0,
    test_timeout: TestTimeout = None,
    no_vmcore: NoVmcore = False,
    hold: Annotated[
        bool,
        typer.Option("--hold", help="Stop at a test that fails, its guest and processes alive."),
    ] = False,
    update: Update = False,
) -> None:
    """Build what lab.yaml says, boot it, test it, and print what broke.

    Exit status: 0 nothing is broken; 1 the kernel broke a rule or crashed; 2 the lab, its
    configuration or the infrastructure failed.
    """
    from lab.commands.runner import Selection, run_suites
    from lab.config import Lab

    lab = Lab.find(lab_folder)
    choice = choice_of(
        kernel=kernel,
        series_file=series_file,
        patches=patches,
        machine=machine,
        image=image,
        agent=agent,
        qemu=qemu,
        qemu_arg=qemu_arg,
        boot_timeout=boot_timeout,
        no_vmcore=no_vmcore,
        doors=hold,
        update=update,
        seed=seed,
    )
    selection = Selection(
        suites=tuple(suite or lab.run.suites),
        rules=tuple(each.upper() for each in rule or ()),
        modes=tuple(mode or ()),
        keyword=keyword,
        tests=tests,
        slow=slow,
        affected=affected,
        first=first,
        repeat=repeat,
        timeout=test_timeout,
    )
    also = ["--hold"] if hold else []
    sys.exit(
        run_suites(lab, choice, selection, workers=workers, out=out, as_json=as_json, also=also)
    )


@app.command("test", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def run_own_tests(
    context: typer.Context,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "-e",
            "--env",
            metavar="ENV",
            help="lint, unit, lab or contract; may be repeated; default: all.",
        ),
    ] = None,
    lab_folder: LabFolder = None,
) -> None:
    """Run the project's own tests, those of tox.ini. What follows `--` goes to them."""
    from lab.commands.selftest import run_tox
    from lab.config import Lab

    environments = tuple(name for each in env or () for name in each.split(","))
    sys.exit(run_tox(Lab.find(lab_folder).root, environments, tuple(context.args)))


@app.command()
def series(
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="An mbox, a maildir, a folder of *.patch, a message-id, or - for standard input.",
        ),
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Annotated[
        str | None,
        typer.Option(metavar="K", help="The kernel that it is put on; default: that of lab.yaml."),
    ] = None,
    machine: Machine = None,
    image: Image = None,
    tree: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A branch of this git tree; it is only read.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="REF", help="What the branch stands on.")
    ] = None,
    head: Annotated[str, typer.Option(metavar="REF", help="The branch.")] = "HEAD",
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the rules whose code the series touches.")
    ] = False,
    each: Annotated[
        bool, typer.Option("--each", help="Build, boot and test each patch on its own, too.")
    ] = False,
    speed: Annotated[
        bool | None,
        typer.Option(
            "--speed/--no-speed",
            help="Measure what is slower or faster; default: where all tests run.",
        ),
    ] = None,
    reply: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a mail that answers the series; it is not sent."),
    ] = None,
    suite: Suites = None,
    rule: Rules = None,
    mode: Modes = None,
    keyword: Keyword = None,
    tests: Tests = None,
    out: Out = None,
    as_json: Json = False,
    qemu: QemuPath = None,
    boot_timeout: BootTimeout = 120.0,
) -> None:
    """Put a patch series on a kernel: what does it break, what does it mend, which patch was it?

    The base runs the same tests; what it answered is kept until something of it changes. Exit
    status: 0 nothing is broken that the base keeps; 1 something is; 2 the series does not apply or
    compile, or the lab failed.
    """
    from lab.cell import Choice
    from lab.commands.runner import Selection
    from lab.commands.series import Order, try_series
    from lab.config import Lab
    from lab.kernel.branch import Branch

    choice = Choice(
        kernel=kernel, machine=machine, image=image, qemu=qemu, boot_timeout=boot_timeout
    )
    selection = Selection(
        suites=tuple(suite or ()),
        rules=tuple(each.upper() for each in rule or ()),
        modes=tuple(mode or ()),
        keyword=keyword,
        tests=tests,
    )
    if tree and base and not place:
        source: str | Branch = Branch(tree.expanduser(), base, head)
    elif place and not tree and not base:
        source = place
    else:
        raise ConfigurationError(
            "a series is a FILE, or a branch", hint="series FILE, or --tree DIR --base REF"
        )
    order = Order(source, selection, quick=quick, each=each, speed=speed, reply=reply)
    sys.exit(try_series(Lab.find(lab_folder), choice, order, out=out, as_json=as_json))


@app.command()
def mutants(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Mutants; default: all.")
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Annotated[
        str | None,
        typer.Option(metavar="K", help="The kernel that they break; default: that of lab.yaml."),
    ] = None,
    machine: Machine = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Break the kernel on purpose, one rule at a time, and see which test notices.

    Exit status: 0 each mutant was killed by a test of the rule that it breaks; 1 one was not; 2 the
    lab, or a mutant's patch, failed.
    """
    from lab.cell import Choice
    from lab.commands.mutants import hunt
    from lab.config import Lab

    choice = Choice(kernel=kernel, machine=machine)
    sys.exit(hunt(Lab.find(lab_folder), choice, names or (), out=out, as_json=as_json))
