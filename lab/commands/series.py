# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab series`: what a patch series breaks, and what it mends."""

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from rich.console import Console

import lab as package
from lab import image
from lab.cache import Cache
from lab.cell import Choice, machine_of
from lab.commands.runner import Selection
from lab.config import Lab
from lab.contract import concerned
from lab.errors import ConfigurationError, LabError
from lab.guest import AcceleratorMemory, find_qemu
from lab.kernel.branch import Branch
from lab.kernel.incremental import Base
from lab.kernel.letters import name_of, read_letters, save_letters
from lab.kernel.mail import series_in
from lab.kernel.series import Series
from lab.progress import Progress
from lab.results.folder import JUNIT, RunFolder
from lab.results.junit import junit
from lab.text import one_line, printable
from lab.trial import notes
from lab.trial.draft import must_be_writable, write_reply
from lab.trial.finding import Finding
from lab.trial.runs import Runs, Words
from lab.trial.show import show
from lab.trial.speed import compare_speed
from lab.trial.trial import AFTER, Trial

SUMMARY = "series.json"
SCRIPT = "replay.sh"


@dataclass(frozen=True)
class Order:
    """What is to be tried: the series of a place, as `read_letters` takes it, or of a branch.

    `quick`: only the rules whose code the series touches. `each`: every patch on its own, too.
    `speed`: measure what is slower or faster; None: where all tests run. `reply`: the file for the
    mail that answers it, None for none.
    """

    source: str | Branch
    selection: Selection
    quick: bool = False
    each: bool = False
    speed: bool | None = None
    reply: Path | None = None


def try_series(lab: Lab, choice: Choice, order: Order, *, out: Path | None, as_json: bool) -> int:
    """Build it, test it and its base, and report; returns the exit status.

    0: nothing is broken that the base keeps; 1: something is; 2: the lab or the series failed.
    """
    _check_names(lab, choice, order.selection)
    progress, cache = Progress(), Cache.of_user()
    spec, place, letters = _given(lab, choice, order.source)
    series = series_in(letters, place)
    words = _words(choice, order, series)
    whole = not words.tests and not order.selection.suites
    if order.reply:
        must_be_writable(order.reply)
    if out:
        RunFolder.must_be_empty(out)
    _tell(progress, notes.of_series(series))
    base = Base.prepare(spec, lab, cache, progress, update=choice.update)
    _tell(progress, notes.of_base(series, base.plan.identity))
    kernel = base.build(series)
    folder = RunFolder.create(out).path
    mail = folder / f"{name_of(place)}.mbox"
    save_letters(letters, mail)
    _write_script(folder, lab, base, [mail.name, "--kernel", spec, *words, *_flags(order)])
    platform, own = _platform_of(lab, choice, cache, progress), order.selection.tests
    runs = Runs(lab, series, base, spec, mail, platform, cache, folder, progress, own)
    trial = Trial(runs, words)
    if whole:
        _look_first(trial)
    finding = trial.run(kernel, each=order.each)
    if (whole if order.speed is None else order.speed) and not finding.crash:
        before = replace(choice, kernel=spec)
        after = replace(before, series=series)
        try:
            changes = compare_speed(lab, before, after, folder / "speed", progress)
            finding = replace(finding, speed=changes)
        except LabError as error:  # the verdict does not hang on it
            progress.say(printable(f"what is slower or faster cannot be measured: {error}"))
            finding = replace(finding, speed=None)
    _report(finding, folder, as_json=as_json)
    if order.reply:
        write_reply(finding, folder / AFTER, order.reply, whole=whole)
        progress.say(f"the reply, which is yours to send: {order.reply}")
    return finding.status


def _check_names(lab: Lab, choice: Choice, selection: Selection) -> None:
    """Raises ConfigurationError before minutes of work are done for a slip of the finger."""
    selection.check(lab)
    lab.machine(machine_of(lab, choice))
    image.check(choice.image or lab.run.image, lab)


def _given(lab: Lab, choice: Choice, source: str | Branch) -> tuple[str, str, list[EmailMessage]]:
    """The base's kernel, what to call the series' place, and its mails."""
    if isinstance(source, Branch):
        return source.spec(choice.kernel), source.name, source.letters()
    return choice.kernel or lab.run.kernel, source, read_letters(source)


def _tell(progress: Progress, told: Iterable[str]) -> None:
    for words in told:
        progress.say(printable(words))


def _write_script(folder: Path, lab: Lab, base: Base, words: Sequence[str]) -> None:
    """One command that tries the same series once more."""
    mail, *others = words
    lines = [
        "#!/bin/sh",
        f"# Tries the series once more, on {one_line(base.kernel.name)},",
        f"# which was {base.kernel.key}.",
        "# The runs in here have scripts of their own, which name their kernels to the bit.",
        'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 2',
        f"cd {shlex.quote(str(Path.cwd()))} || exit 2",  # of relative paths among the options
        f"export PYTHONPATH={shlex.quote(str(Path(package.__file__).parents[1]))}",
        f'exec {shlex.quote(sys.executable)} -P -m lab series "$here"/{shlex.quote(mail)} \\',
        f'    --lab {shlex.quote(str(lab.root))} {shlex.join(others)} "$@"',
    ]
    script = folder / SCRIPT
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)


def _flags(order: Order) -> list[str]:
    speed = {None: [], True: ["--speed"], False: ["--no-speed"]}[order.speed]
    return ["--each", *speed] if order.each else speed


def _look_first(trial: Trial) -> None:
    """What the touched rules say is told before the whole suite has run."""
    say = trial.runs.progress.say
    if wanted := concerned(trial.runs.series.files):
        news = trial.first_look(wanted)
        if news is None:
            say("it does not boot; now once more, beside its base")
            return
        bad = [pair.test for pair in news.broken + news.crashed]
        told = ", ".join(dict.fromkeys(test.subject for test in bad)) or "nothing"
        say(f"of the rules whose code it touches it breaks {told}; now all tests")


def _report(finding: Finding, folder: Path, *, as_json: bool) -> None:
    text = json.dumps(finding.to_json(), indent=1)
    (folder / SUMMARY).write_text(text + "\n")
    (folder / JUNIT).write_text(junit(finding.for_ci()))
    if as_json:
        print(text)
    else:
        show(finding, folder, Console())


def _words(choice: Choice, order: Order, series: Series) -> Words:
    """The options of the runs."""
    selection = order.selection
    wanted = selection.rules
    if order.quick and not wanted:
        wanted = tuple(concerned(series.files))
        if not wanted:
            raise ConfigurationError(
                f"no rule of the contract stands in {', '.join(series.files)}",
                hint="leave --quick out",
            )
    tests = [word for rule in wanted for word in ("--rule", rule)]
    tests += [word for mode in selection.modes for word in ("--mode", mode)]
    tests += ["-k", selection.keyword] if selection.keyword else []
    suites = [word for suite in selection.suites for word in ("--suite", suite)]
    suites += ["--tests", str(selection.tests)] if selection.tests else []
    return Words(_platform(choice), tuple(suites), tuple(tests))


def _platform_of(lab: Lab, choice: Choice, cache: Cache, progress: Progress) -> dict[str, Any]:
    """What decides a verdict beside the kernel and the tests."""
    qemu = find_qemu(choice.qemu, cache)
    initramfs = image.prepare(choice.image or lab.run.image, lab, cache, progress)
    candidates = AcceleratorMemory(cache, qemu).candidates()
    return {
        "qemu": qemu.description,
        "image": initramfs.key,
        "accelerators": [each.value for each in candidates],
    }


def _platform(choice: Choice) -> tuple[str, ...]:
    words = ["--machine", choice.machine] if choice.machine else []
    words += ["--image", choice.image] if choice.image else []
    words += ["--qemu", str(choice.qemu)] if choice.qemu else []
    return (*words, "--boot-timeout", str(choice.boot_timeout))
