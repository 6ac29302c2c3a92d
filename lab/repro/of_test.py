# SPDX-License-Identifier: GPL-2.0-only
"""Attempts of a test: each is a run of pytest of its own, with a guest of its own."""

import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from typing import Self

from lab.errors import LabError
from lab.guest.vmcore import VMCORE
from lab.proc import background
from lab.repro.attempt import Attempt, CannotRun
from lab.repro.order import Order
from lab.repro.sign import Kind, Sign, split
from lab.results.folder import RESULTS, RunFolder
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.replay import PYTEST, Replay
from lab.results.verdict import Verdict

_GRACE = 30.0  # seconds in which a run ends its guests and writes its report
_REPORTED = "the kernel reported: "


class TestHand:
    """See `lab.repro.reproduce.Hand`. The kernel, the image and QEMU are the run's to the bit.

    Its folders have names that begin with `prefix`.
    """

    __test__ = False  # pytest takes a class of this name for a test

    def __init__(self, replay: Replay, folder: RunFolder, order: Order, prefix: str) -> None:
        self._replay = replace(replay, command=PYTEST, words=(order.what, "-q"))
        self._folder = folder
        self._order = order
        self._prefix = prefix
        self._lock = threading.Lock()
        self._process: Popen[str] | None = None
        self._cut = False

    @classmethod
    def of(cls, folder: RunFolder, order: Order, machine: str | None, prefix: str) -> Self:
        """In a run's folder, which must have its replay.json, on a machine that is perhaps not
        the run's own."""
        return cls(replace(folder.read_replay(), machine=machine), folder, order, prefix)

    def attempt(self, number: int) -> Attempt:
        """See `Hand`."""
        out = self._folder.path / "attempts" / f"{self._prefix}{number:03d}"
        out.parent.mkdir(exist_ok=True)
        log = out.parent / f"{out.name}.log"
        self._run(out, log)
        if self._cut:
            _forget(out, log)
            raise LabError("it was ended amid an attempt")
        if not (out / RESULTS).exists():
            raise LabError(f"a run left no results: see {log}")
        made = judged(RunFolder(out).read(), number, self._order)
        if made.signs or self._order.keep:
            found = [path for path in sorted(out.rglob("*")) if _tells(path)]
            return replace(made, evidence=tuple(map(self._folder.relative, found)))
        _forget(out, log)
        return made

    def _run(self, out: Path, log: Path) -> None:
        replay = self._replay
        settings = [f"{name}={value}" for name, value in replay.environment.items()]
        argv = ["env", "-C", str(replay.lab), *settings, *replay.argv("--out", str(out))]
        shutil.rmtree(out, ignore_errors=True)  # of one in which the lab failed
        with background(argv, log, grace=_GRACE) as process:
            with self._lock:
                self._process = process
                if self._cut:
                    process.terminate()
            process.wait()

    def cut(self) -> None:
        """See `Hand`."""
        with self._lock:
            self._cut = True
            if self._process:
                self._process.terminate()

    def close(self) -> None:
        """See `Hand`: nothing outlives an attempt."""


def _forget(out: Path, log: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)


def _tells(path: Path) -> bool:
    """Whether a file of a run is evidence; the others are keys, and how it was made."""
    return path.suffix in (".log", ".txt", ".sh") or path.name in (RESULTS, VMCORE)


def judged(record: RunRecord, number: int, order: Order) -> Attempt:
    """What a run of the test says. Raises LabError where nothing, and CannotRun where the
    test does not apply."""
    failed = [each.message for each in record.every_trouble if each.exit_status == 2]
    failed += [test.message for test in record.tests if test.exit_status == 2]
    if failed:
        raise LabError("\n".join(failed))
    checked = [test for test in record.tests if test.verdict is not Verdict.NOT_APPLICABLE]
    checked = [test for test in checked if test.verdict is not Verdict.SKIPPED]
    if not checked:
        why = "; ".join(dict.fromkeys(test.message for test in record.tests))
        raise CannotRun(f"{order.what} does not apply here: {why}")
    signs = [sign for test in checked for sign in _signs(test)]
    signs += [sign for trouble in record.trouble for sign in _signs(trouble)]
    shown, others = split(signs, order.expected)
    return Attempt(
        number=number,
        seconds=round(sum(test.duration for test in checked), 3),
        shown=shown,
        others=others,
        since=time.monotonic(),
        ended=", ".join(dict.fromkeys(test.verdict.value for test in checked)),
        lost=any(test.verdict is Verdict.GUEST_LOST for test in checked),
    )


def _signs(each: TestRecord | Trouble) -> Sequence[Sign]:
    if not each.verdict.is_trouble:
        return []
    found = [Sign.of_lost(text) for text in each.splats]
    if each.verdict is Verdict.BROKEN and not each.message.startswith(_REPORTED):
        found.append(Sign(Kind.STATUS, each.message.partition("\n")[0], each.message))
    return found
