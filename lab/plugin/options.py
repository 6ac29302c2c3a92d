# SPDX-License-Identifier: GPL-2.0-only
"""What is asked for, in pytest's options, and the session that answers it."""

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest

from lab.cell import SEED, Choice, series_of
from lab.config import Lab
from lab.errors import ConfigurationError
from lab.worker import Worker

LAB = "vfio_lab_root"  # in what a worker of pytest-xdist is given
SESSION = pytest.StashKey[Worker]()
_LAB = pytest.StashKey[Lab | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vfio-lab", "a lab for the kernel's VFIO code")
    add = group.addoption
    add("--lab", type=Path, metavar="DIR", help="the lab's folder (default: found upwards)")
    add("--kernel", metavar="K", help="a kernel of lab.yaml, src:VERSION or deb:VERSION, or a path")
    add("--series", metavar="FILE", help="patches to put on it: an mbox, a maildir, a folder")
    add("--patches", type=int, metavar="N", help="of the series only the first N")
    add("--machine", metavar="MACHINE", help="a machine of lab.yaml")
    add("--image", metavar="IMAGE", help="an image of lab.yaml, or a path to an initramfs")
    add("--agent", type=Path, metavar="PATH", help="the agent, compiled (default: by the lab)")
    add("--mode", action="append", metavar="MODE", help="only this mode; may be repeated")
    add("--rule", action="append", metavar="RULE", help="only this rule; may be repeated")
    add("--failed", type=Path, metavar="DIR", help="only what failed in the run of this folder")
    add("--only", metavar="ID", help="only the test of this id, whatever else is asked for")
    add("--tests", type=_folder, metavar="DIR", help="more tests: those that a series brings")
    add("--repeat", type=int, default=1, metavar="N", help="all tests, N times in a row")
    add("--seed", type=int, default=SEED, metavar="N", help="of what is random in tests")
    add("--out", type=Path, metavar="DIR", help="the run's folder (default: a new one)")
    add("--qemu", type=Path, metavar="PATH", help="another QEMU")
    add("--qemu-arg", action="append", metavar="ARG", help="one more word for QEMU")
    add("--slow", action="store_true", help="tests that take minutes each, too")
    add("--affected", action="store_true", help="bugs must show on kernels that should have them")
    add(
        "--boot-timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="a boot may take (default: 120)",
    )
    add("--ftrace", action="store_true", help="trace the kernel during each test's own code")
    add("--ftrace-event", action="append", metavar="E", help="these events: iommu, iommu/map, ...")
    add("--ftrace-graph", action="append", metavar="F", help="this function, and what it calls")
    add("--hold", action="store_true", help="stop at a test that fails, its guest alive")
    add("--no-vmcore", action="store_true", help="keep no memory of guests that the kernel loses")


def _folder(name: str) -> Path:
    path = Path(name).expanduser().resolve()  # as pytest names the tests in it
    if not path.is_dir():
        raise ArgumentTypeError(f"{name} is no folder")
    return path


def pytest_configure(config: pytest.Config) -> None:
    own = config.option.tests
    if own and all(Path(word).resolve() != own for word in config.args):
        config.args.append(str(own))
    config.addinivalue_line("markers", "contract(rule, *modes): the rule that a test checks")
    config.addinivalue_line("markers", "on_machine(name): the machine that a test needs")
    config.addinivalue_line(
        "markers", "program(name, mode): the C program that a test is a case of"
    )
    config.addinivalue_line("markers", "slow: takes minutes, and runs only with --slow")


def choice_of(config: pytest.Config) -> Choice:
    """What the options ask for. Raises ConfigurationError for a series that cannot be read."""
    option = config.option
    return Choice(
        kernel=option.kernel,
        series=series_of(option.series, option.patches),
        machine=option.machine,
        image=option.image,
        agent=option.agent,
        qemu=option.qemu,
        qemu_arguments=tuple(option.qemu_arg or ()),
        boot_timeout=option.boot_timeout,
        seed=option.seed,
        vmcore=not option.no_vmcore,
        doors=option.hold,
    )


def asked_for(config: pytest.Config) -> tuple[Lab, Choice]:
    """The lab, and what was asked of it. Raises ConfigurationError where there is no lab."""
    if session := config.stash.get(SESSION, None):
        return session.lab, session.choice
    return Lab.find(config.option.lab), choice_of(config)


def adopt(config: pytest.Config, session: Worker) -> None:
    """Let the tests run in a session that somebody else has made and will close."""
    config.stash[SESSION] = session


def lab_of(config: pytest.Config) -> Lab | None:
    """The lab whose suites these tests may lie in, or None."""
    if session := config.stash.get(SESSION, None):
        return session.lab
    if _LAB not in config.stash:
        try:
            config.stash[_LAB] = Lab.find(_lab_of_controller(config) or config.option.lab)
        except ConfigurationError as error:
            if config.option.lab or "no lab.yaml" not in str(error):
                raise pytest.UsageError(str(error)) from error
            config.stash[_LAB] = None
    return config.stash[_LAB]


def _lab_of_controller(config: pytest.Config) -> Path | None:
    """In a worker of pytest-xdist: the lab's folder, as its controller has found it."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    return Path(given[LAB]) if given.get(LAB) else None


def words_of(config: pytest.Config, lab: Lab) -> list[str]:
    """Which tests were asked for, in words that say the same in the lab's folder."""
    option, here = config.option, config.invocation_params.dir
    # Its own option adds the folder of --tests: named twice, it would hide pytest's settings.
    places = [word for word in config.args if word != str(option.tests)]
    words = [_from_root(word, here, lab) for word in places]
    for name in ("rule", "mode", "deselect"):
        words += [word for value in getattr(option, name) or () for word in (f"--{name}", value)]
    for name, left_out in (("--ignore", option.ignore), ("--ignore-glob", option.ignore_glob)):
        words += [word for place in left_out or () for word in (name, _from_root(place, here, lab))]
    words += ["-k", option.keyword] if option.keyword else []
    words += ["-m", option.markexpr] if option.markexpr else []
    words += ["--tests", str(option.tests)] if option.tests else []
    words += ["--failed", str(option.failed.absolute())] if option.failed else []
    words += ["--only", option.only] if option.only else []
    words += ["--slow"] if option.slow else []
    words += ["--affected"] if option.affected else []
    words += ["--timeout", f"{option.timeout:g}"] if option.timeout is not None else []
    words += ["--repeat", str(option.repeat)] if option.repeat != 1 else []
    return words + ([f"--maxfail={option.maxfail}"] if option.maxfail else [])


def _from_root(word: str, here: Path, lab: Lab) -> str:
    """A path, perhaps with a test behind it."""
    place, *test = word.split("::")
    path = (here / place).resolve()
    inside = path.relative_to(lab.root) if path.is_relative_to(lab.root) else path
    return "::".join([str(inside), *test])
