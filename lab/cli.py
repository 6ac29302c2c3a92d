# SPDX-License-Identifier: GPL-2.0-only
"""The command line: words to calls, nothing else."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from lab.errors import ConfigurationError, LabError
from lab.options import (
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
)
from lab.text import printable

# A command imports what it needs when it is called: `vfio-lab run` has QEMU started before most of
# Python's packages are loaded, and `--help` loads none of them.
# ruff: noqa: PLC0415

app = typer.Typer(
    help="A QEMU-backed end-to-end lab for Linux VFIO and IOMMUFD.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    lab_folder: LabFolder = None,
    kernel: Kernel = None,
    series_file: SeriesFile = None,
    patches: Patches = None,
    machine: Machine = None,
    image: Image = None,
    suite: Suites = None,
    rule: Rules = None,
    mode: Modes = None,
    keyword: Keyword = None,
    tests: Tests = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="Tests that take minutes each, too.")
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
            help="Test in N processes, each with guests of its own [default: as many as this "
            "host has room for, and one where only some tests were asked for].",
        ),
    ] = None,
    out: Out = None,
    as_json: Json = False,
    qemu: QemuPath = None,
    qemu_arg: QemuArgs = None,
    boot_timeout: BootTimeout = 120.0,
    test_timeout: TestTimeout = None,
    no_vmcore: NoVmcore = False,
    update: Update = False,
) -> None:
    """Build what lab.yaml says, boot it, test it, and print what broke.

    Exit status: 0 nothing is broken; 1 the kernel broke a rule or crashed; 2 the lab, its
    configuration or the infrastructure failed.
    """
    from lab.cell import SEED, Choice, series_of
    from lab.commands.runner import Selection, run_suites
    from lab.config import Lab

    lab = Lab.find(lab_folder)
    choice = Choice(
        kernel=kernel,
        series=series_of(series_file, patches),
        machine=machine,
        image=image,
        qemu=qemu,
        qemu_arguments=tuple(qemu_arg or ()),
        boot_timeout=boot_timeout,
        vmcore=not no_vmcore,
        update=update,
        seed=SEED if seed is None else seed,
    )
    selection = Selection(
        suites=tuple(suite or lab.run.suites),
        rules=tuple(rule or ()),
        modes=tuple(mode or ()),
        keyword=keyword,
        tests=tests,
        slow=slow,
        first=first,
        repeat=repeat,
        timeout=test_timeout,
    )
    sys.exit(run_suites(lab, choice, selection, workers=workers, out=out, as_json=as_json))


@app.command("test", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def run_own_tests(
    context: typer.Context,
    env: Annotated[
        list[str] | None,
        typer.Option("-e", "--env", help="lint, unit, lab or contract; default: all four."),
    ] = None,
    lab_folder: LabFolder = None,
) -> None:
    """Run the project's own tests, those of tox.ini. What follows `--` goes to them."""
    from lab.commands.selftest import run_tox
    from lab.config import Lab

    sys.exit(run_tox(Lab.find(lab_folder).root, tuple(env or ()), tuple(context.args)))


@app.command("list")
def list_(lab_folder: LabFolder = None, as_json: Json = False) -> None:
    """Show the kernels, machines, suites and rules that there are."""
    from lab.commands.catalogue import show
    from lab.config import Lab

    show(Lab.find(lab_folder), as_json=as_json)


@app.command()
def explain(
    rule: Annotated[str, typer.Argument(help="A rule's id, such as OWN-3.")],
    lab_folder: LabFolder = None,
) -> None:
    """Say what a rule is, where in the kernel it comes from, and which tests check it."""
    from lab.commands.catalogue import show_rule
    from lab.config import Lab

    show_rule(Lab.find(lab_folder), rule)


@app.command()
def series(
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="An mbox, a maildir, a folder of *.patch, a message-id, or - for standard input.",
        ),
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Annotated[str | None, typer.Option(help="The kernel that it is put on.")] = None,
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
        rules=tuple(rule or ()),
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
        Path | None, typer.Option(metavar="DIR", help="Where the new run's folder is made.")
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
        typer.Argument(metavar="[ARGS]...", help="The debugger's own words, after `--`."),
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
    from lab.commands.crash import Debugger, open_crash

    if drgn and gdb:
        raise ConfigurationError("--drgn and --gdb exclude each other")
    chosen = Debugger.DRGN if drgn else Debugger.GDB if gdb else None
    sys.exit(open_crash(target, chosen, command or (), words or ()))


@app.command()
def mutants(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Mutants; default: all.")
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Annotated[str | None, typer.Option(help="The kernel that they are made of.")] = None,
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
    """Say what this host can and cannot do, what that costs, and how to mend it."""
    from lab.commands.doctor import examine
    from lab.config import Lab

    sys.exit(examine(Lab.find(lab_folder), qemu, probe=probe, as_json=as_json))


@app.command()
def splats(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="Logs, *.gz too; default or -: standard input."),
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
def shell(
    lab_folder: LabFolder = None,
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
    """Boot a guest and give a Python prompt with the agent at hand, or a shell in it."""
    from lab.cell import Choice, series_of
    from lab.commands.shell import open_shell
    from lab.config import Lab

    choice = Choice(
        kernel=kernel,
        series=series_of(series_file, patches),
        machine=machine,
        image=image,
        qemu=qemu,
        qemu_arguments=tuple(qemu_arg or ()),
        boot_timeout=boot_timeout,
    )
    sys.exit(open_shell(Lab.find(lab_folder), choice, sh=sh))


@app.command("exec")
def execute_(
    program: Annotated[
        Path, typer.Argument(metavar="PROG.c|PROG", help="C, a static program, or a script.")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGS]...", help="Its arguments; options of its own after `--`."),
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
    mode: Annotated[str | None, typer.Option(help="The mode that it is told.")] = None,
    timeout: Annotated[float, typer.Option(metavar="S", help="Seconds that it may take.")] = 300.0,
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
    from lab.cell import Choice, series_of
    from lab.commands.execute import Order, execute
    from lab.config import Lab, known
    from lab.contract import Mode

    choice = Choice(
        kernel=kernel,
        series=series_of(series_file, patches),
        machine=machine,
        image=image,
        qemu=qemu,
        qemu_arguments=tuple(qemu_arg or ()),
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


@app.command()
def bench(
    what: Annotated[
        str | None,
        typer.Argument(
            help="boot: to an agent, and to the first test; agent: a round trip; pool: the wait "
            "for a new guest; workers: one and more; series: a patch. None: the first four."
        ),
    ] = None,
    lab_folder: LabFolder = None,
    kernel: Kernel = None,
    machine: Machine = None,
    rounds: Annotated[int, typer.Option(help="How often it is measured.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure the lab itself against a floor that is measured in the same run."""
    from lab.cell import Choice
    from lab.commands.benchmark import measure
    from lab.config import Lab

    choice = Choice(kernel=kernel, machine=machine)
    measure(Lab.find(lab_folder), choice, what, rounds, as_json=as_json)


def main() -> NoReturn:
    """Run a command; errors are one message, and every signal to end ends all guests, too."""
    # pydantic would look through every installed package for plugins of its own: 30 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        app(standalone_mode=True)
    except LabError as error:
        print(f"vfio-lab: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vfio-lab: interrupted", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt
