# SPDX-License-Identifier: GPL-2.0-only
"""Where a run leaves what it found.

| in the folder | what it is                                             |
|---------------|--------------------------------------------------------|
| results.json  | the run: `lab.results.record.RunRecord`                |
| junit.xml     | the same for other programs; run.ktap, too             |
| kernel.json   | what the kernel was made of; image.json the same       |
| series.mbox   | the patches of the kernel, as they were applied        |
| replay.sh     | repeats the run, or a part of it: `lab.results.replay` |
| replay.json   | the same for `vfio-lab replay` and `vfio-lab bundle`   |
| guests/001/   | a guest's console, its QEMU's argv                     |
| tests/NAME/   | of a test with trouble: `lab.results.evidence`         |
| traces/NAME/  | of a test that was traced: `lab.debug.ftrace`          |
"""

import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from lab.errors import ConfigurationError, InfrastructureError
from lab.files import replace
from lab.proc import room_in
from lab.results.junit import junit
from lab.results.ktap import ktap
from lab.results.record import RunRecord
from lab.results.replay import ORDERS, SCRIPT, Replay

RESULTS = "results.json"
JUNIT = "junit.xml"
KTAP = "run.ktap"
SERIES = "series.mbox"
LATEST = "latest"
STAMP = "%Y%m%dT%H%M%SZ"  # of time.strftime: runs and nights are named by their start

_UNSAFE = re.compile(r"[^A-Za-z0-9_.]+")
_LONGEST = 120  # characters of a folder's name


class RunFolder:
    """A run's folder. Make one with `create`; on its own the class only names what is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, out: Path | None = None) -> "RunFolder":
        """A new folder: `out`, or one under the user's state with `latest` pointing to it.

        Raises ConfigurationError when `out` holds anything, because a report must not mix two
        runs' evidence, and when the folder cannot be made.
        """
        try:
            return cls(_given(out) if out else _next())
        except OSError as error:
            raise ConfigurationError(
                f"no folder for the run: {error.filename}: {error.strerror}",
                hint="name another with --out DIR, or set VFIO_LAB_STATE",
            ) from error

    @staticmethod
    def must_be_empty(out: Path) -> None:
        """Raises ConfigurationError as `create` will, before hours of work are done for it."""
        if out.is_dir() and next(out.iterdir(), None):
            raise ConfigurationError(
                f"--out {out}: the folder is not empty", hint="remove it, or name a new one"
            )

    def guest(self, number: int, worker: str = "") -> Path:
        """The folder of the guest with this number, made if it is not there.

        `worker` is the name of the one of several processes that counts so.
        """
        name = f"{worker}-{number:03d}" if worker else f"{number:03d}"
        folder = self.path / "guests" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def test(self, id_: str) -> Path:
        """A new folder for what is told of the test with this id, whose name one can read in it.

        Several workers may ask at once, also for the same id. Raises OSError.
        """
        return self._new("tests", id_)

    def trace(self, id_: str) -> Path:
        """The same for what was traced of it."""
        return self._new("traces", id_)

    def _new(self, kind: str, id_: str) -> Path:
        name = _readable(id_)
        for number in itertools.count(1):
            folder = self.path / kind / (name if number == 1 else f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
        raise AssertionError("numbers do not end")

    def relative(self, path: Path) -> str:
        """`path` as a record names it. Raises ValueError when it is not in the folder."""
        return path.absolute().relative_to(self.path.absolute()).as_posix()

    def write(self, record: RunRecord) -> None:
        """Write the record in every format. May be called while the run goes on: each file is
        replaced as a whole, so that a reader sees the old one or the new one.

        Raises InfrastructureError where the folder cannot be written, as on a full disk.
        """
        with self._writing("the results"):
            replace(self.path / RESULTS, _json(record.to_json()))
            replace(self.path / JUNIT, junit(record))
            replace(self.path / KTAP, ktap(record))
            replace(self.path / "kernel.json", _json(record.kernel))
            replace(self.path / "image.json", _json(record.image))

    def write_replay(self, replay: Replay) -> None:
        """Write how the run is repeated. Raises InfrastructureError as `write` does."""
        with self._writing(SCRIPT):
            replace(self.path / ORDERS, _json(replay.to_json()))
            replace(self.path / SCRIPT, replay.script(), mode=0o755)

    def write_series(self, mail: bytes) -> None:
        """Write the patches of the kernel, as mail. Raises InfrastructureError as `write` does."""
        with self._writing(SERIES):
            (self.path / SERIES).write_bytes(mail)

    def read(self) -> RunRecord:
        """The record that was written here. Raises ConfigurationError where there is none."""
        file = self.path / RESULTS
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{file}: {_why(error)}", hint="name the folder of a run, with a results.json"
            ) from error
        return RunRecord.from_json(content)

    def read_replay(self) -> Replay:
        """How the run is repeated. Raises ConfigurationError where that is not known."""
        file = self.path / ORDERS
        try:
            return Replay.from_json(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{file}: {_why(error)}",
                hint="name the folder of a run that came as far as to have a kernel",
            ) from error

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            with room_in(self.path):
                yield
        except OSError as error:
            words = f"{self.path}: {what} cannot be written: {error.strerror}"
            raise InfrastructureError(words) from error


def runs() -> Path:
    """The folder of all runs: under $VFIO_LAB_STATE, or the platform's place for state."""
    state = os.environ.get("VFIO_LAB_STATE")
    return (Path(state) if state else platformdirs.user_state_path("vfio-lab")) / "runs"


def _readable(id_: str) -> str:
    """A file's name of a test's id, whatever stands in that: `test_ownership.test_open-iommufd`."""
    file, _, name = id_.partition("::")
    words = f"{PurePosixPath(file).stem}.{name}" if name else file
    return _UNSAFE.sub("-", words).strip("-.")[:_LONGEST].strip("-.") or "test"


def _given(out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    RunFolder.must_be_empty(out)
    return out


def _why(error: OSError | ValueError) -> str:
    """Without the file's name, and Python's number, where the system says why."""
    return getattr(error, "strerror", None) or str(error)


def _next() -> Path:
    parent = runs()
    parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime(STAMP, time.gmtime())
    number = 1
    while True:
        folder = parent / f"{stamp}-{number}"
        try:
            folder.mkdir()  # of several runs that start at once, one gets the name
        except FileExistsError:
            number += 1
        else:
            _point_latest(parent, folder)
            return folder


def _point_latest(parent: Path, folder: Path) -> None:
    """`latest` is a help for people: a run does not fail for want of it."""
    link = parent / f".{LATEST}-{folder.name}"
    with contextlib.suppress(OSError):
        link.symlink_to(folder.name)
        link.replace(parent / LATEST)


def _json(content: Mapping[str, Any]) -> str:
    # ASCII only: a test's text may hold characters that UTF-8 cannot encode.
    return json.dumps(content, indent=1, default=str) + "\n"
