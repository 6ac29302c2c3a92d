# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab run`: prepare what pytest needs, start it in this process, and show what came of it."""

import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from lab import room
from lab.cell import Choice
from lab.config import Lab, known
from lab.contract import Mode, rules
from lab.errors import ConfigurationError, LabError
from lab.progress import Progress
from lab.session import Session


@dataclass(frozen=True)
class Selection:
    """Which tests to run."""

    suites: tuple[str, ...]
    rules: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    keyword: str | None = None
    tests: Path | None = None  # a folder of more of them, that a series brings
    slow: bool = False
    affected: bool = False  # bugs must show on kernels that should have them
    first: bool = False  # stop at the first that fails
    repeat: int = 1
    timeout: float | None = None  # seconds for a test; None: what the plugin says
    places: tuple[str, ...] = ()  # only the tests there, as pytest names them

    @property
    def is_whole(self) -> bool:
        """Whether all tests of the suites run."""
        return self == Selection(self.suites, slow=self.slow, tests=self.tests, repeat=self.repeat)

    def check(self, lab: Lab) -> None:
        """Raises ConfigurationError for a name that there is not, before anything is built."""
        for suite in self.suites:
            lab.suite(suite)
        for rule in self.rules:
            known("rule", rule, rules())
        for mode in self.modes:
            known("mode", mode, list(Mode))

    def words(self) -> list[str]:
        """The same in pytest's options."""
        found = [word for rule in self.rules for word in ("--rule", rule)]
        found += [word for mode in self.modes for word in ("--mode", mode)]
        found += ["-k", self.keyword] if self.keyword else []
        found += ["--tests", str(self.tests)] if self.tests else []
        found += ["--slow"] if self.slow else []
        found += ["--affected"] if self.affected else []
        found += ["--repeat", str(self.repeat)] if self.repeat != 1 else []
        found += ["--timeout", f"{self.timeout:g}"] if self.timeout is not None else []
        return found + (["-x"] if self.first else [])


def run_suites(
    lab: Lab,
    choice: Choice,
    selection: Selection,
    *,
    workers: int | None = None,
    out: Path | None,
    as_json: bool,
    also: Sequence[str] = (),
) -> int:
    """Run suites and report; returns the exit status.

    Without a number of `workers` whole suites have as many as the host has room for. `also` are
    words for pytest that do not say which tests: how they run, in one process.
    """
    if also and (workers or 1) > 1:
        raise ConfigurationError(f"{also[0]} is about one test at a time: it goes without -n")
    selection.check(lab)
    suites = [str(lab.suite(name).tests) for name in selection.suites]
    paths = [str(lab.path(Path(place))) for place in selection.places or suites]
    if not choice.machine:
        choice = replace(choice, suites_machine=lab.machine_for(selection.suites))
    progress = Progress()
    words = [*selection.suites, *selection.words()]
    session = Session(
        lab,
        choice,
        progress,
        out=out,
        selection=words,
        words=[*(selection.places or suites), *selection.words()],
    )
    try:
        if workers is None:
            machine = lab.machine(session.machine_name)
            workers = room.workers(machine) if selection.is_whole and not also else 1
        session.prepare(guests=workers == 1)
        words = [*paths, *selection.words(), *also]
        _pytest(session, [*words, "-n", str(workers if workers > 1 else 0)])
    except (LabError, KeyboardInterrupt) as error:
        if isinstance(error, LabError):
            session.add_trouble(error)
        session.close(finished=isinstance(error, LabError))
    if not session.closed:
        session.close(finished=False)  # pytest was interrupted before its session had begun
    _show(session, as_json=as_json)
    return session.record().status


def _pytest(session: Session, words: list[str]) -> None:
    signals = _HeldSignals()
    stack = contextlib.ExitStack()
    try:
        # pytest is loaded while the guest boots
        import pytest  # noqa: PLC0415

        from lab.commands.guide import Guide  # noqa: PLC0415

        root = str(session.lab.root)
        quiet = ["-p", "no:cacheprovider", "--rootdir", root, "--import-mode=importlib"]
        # pytest keeps what tests and workers write there, in a folder that nobody removes
        base = stack.enter_context(TemporaryDirectory(prefix=".pytest-", dir=session.folder.path))
        quiet += ["--basetemp", str(Path(base) / "all")]
        guide = Guide(session, when_loaded=signals.release)
        # Standard output is the report's; what pytest itself prints (a bad -k) is for the user's
        # eye.
        with contextlib.redirect_stdout(sys.stderr):
            status = pytest.main([*quiet, *words], plugins=[guide])
    finally:
        stack.close()
        signals.release()
    if status == pytest.ExitCode.USAGE_ERROR and not session.closed:
        session.add_trouble(LabError("pytest refused these words: it says why above"))
        session.close(finished=True)


class _HeldSignals:
    """Signals to end, put off while modules are loaded.

    KeyboardInterrupt comes at any instruction, also in importlib's own: there it is lost, or leaves
    the import lock locked, and the thread that boots the guest waits for that for ever.
    """

    def __init__(self) -> None:
        self._came = False
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._came = True

    def release(self) -> None:
        """Raises KeyboardInterrupt when one has come; safe twice."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        came, self._came = self._came, False
        if came:
            raise KeyboardInterrupt


def _show(session: Session, *, as_json: bool) -> None:
    from rich.console import Console  # noqa: PLC0415

    from lab.results.terminal import report  # noqa: PLC0415

    if as_json:
        print(json.dumps(session.record().to_json(), indent=1))
    else:
        report(session.record(), session.folder.path, Console())
