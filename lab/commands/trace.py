# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab trace`: what the kernel does during one test, or while one program runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.cell import Choice
from lab.commands.execute import Order, execute
from lab.commands.runner import Selection, run_suites
from lab.config import Lab
from lab.debug.ftrace import Wish, traced
from lab.errors import ConfigurationError
from lab.session import Session
from lab.testbed import Testbed

_TESTS = ".py"


def trace_test(
    lab: Lab, choice: Choice, target: str, modes: tuple[str, ...], wish: Wish, *, out: Path | None
) -> int:
    """Run the tests of a pytest id, or those that match an expression as with -k, and trace each.
    Returns the exit status of that run. Raises ConfigurationError where there is no such file."""
    file = Path(target.partition("::")[0])
    named = file.suffix == _TESTS
    if (named or "/" in target) and not (file.exists() or lab.path(file).exists()):
        raise ConfigurationError(
            f"{file} is no file; expected a program, a test's id, or an expression as for -k"
        )
    selection = Selection(
        suites=lab.run.suites,
        modes=modes,
        keyword=None if named else target,
        places=(_from(lab, target),) if named else (),
    )
    return run_suites(lab, choice, selection, out=out, as_json=False, also=wish.words())


def trace_program(lab: Lab, choice: Choice, order: Order, wish: Wish, *, out: Path | None) -> int:
    """Run a program as `vfio-lab exec` does, and trace it. Returns the exit status of that."""

    @contextmanager
    def around(session: Session, testbed: Testbed) -> Iterator[None]:
        folder = session.folder.trace(order.program.name)
        with traced(testbed.guest, wish, folder, testbed.stretch) as saved:
            yield
        session.progress.say(str(saved))

    return execute(lab, choice, order, out=out, as_json=False, around=around)


def is_program(target: str) -> bool:
    """Whether it names a file that is no test."""
    return Path(target).is_file() and Path(target).suffix != _TESTS


def _from(lab: Lab, target: str) -> str:
    """A test's id, its file as the lab's folder has it, also where that is not ours."""
    file, *test = target.split("::")
    path = Path(file)
    if path.exists() or not lab.path(path).exists():
        path = path.absolute()
    return "::".join([str(path), *test])
