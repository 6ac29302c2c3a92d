# SPDX-License-Identifier: GPL-2.0-only
"""What the lab's own tests stand on: guests of every kind, whole runs, and a look at what is left.

The tests boot their guests themselves, for they need several, and odd ones. All of them take the
kernel of `--kernel`, or of lab.yaml.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import kernel
from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.plugin.options import choice_of
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.testbed import Testbed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_CHOICE = pytest.StashKey[Choice]()
_BOOT = 60.0  # seconds; a guest takes 3, or 15 where others have the CPUs


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """A kernel may have to be built, for minutes: before the first test's clock starts."""
    ours = [item for item in session.items if item.path.is_relative_to(HERE)]
    if ours and not session.config.option.collectonly:
        asked = choice_of(session.config)
        lab, cache = Lab.load(ROOT), Cache.of_user()
        made = kernel.prepare(asked.kernel or lab.run.kernel, lab, cache, Progress())
        session.config.stash[_CHOICE] = replace(
            asked, kernel=str(made.bzimage), boot_timeout=min(asked.boot_timeout, _BOOT)
        )


@pytest.fixture(scope="session")
def choice(pytestconfig: pytest.Config) -> Choice:
    """What the session's options ask for, its kernel a bzImage."""
    return pytestconfig.stash[_CHOICE]


# Guests


def make_cell(choice: Choice, folder: Path) -> Cell:
    """A cell of this choice whose guests' folders lie in `folder`."""
    return Cell(Lab.load(ROOT), choice, Cache.of_user(), Progress(quiet=True), RunFolder(folder))


@pytest.fixture
def new_cell(choice: Choice, tmp_path: Path) -> Iterator[Callable[..., Cell]]:
    """Makes cells that end with the test; what is given replaces what `choice` says."""
    with ExitStack() as stack:

        def make(**changes: Any) -> Cell:
            return stack.enter_context(make_cell(replace(choice, **changes), tmp_path / "cell"))

        yield make


@pytest.fixture
def testbed(new_cell: Callable[..., Cell]) -> Testbed:
    """A guest of this test's own."""
    return new_cell().testbed()


@pytest.fixture(scope="module")
def shared_testbed(choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """A guest for all tests of a module: none of them may harm it."""
    with make_cell(choice, tmp_path_factory.mktemp("shared")) as cell:
        yield cell.testbed()


# Runs


@dataclass(frozen=True)
class Outcome:
    """A run that came to its end. A negative `status` is the signal that killed it."""

    status: int
    stdout: str
    stderr: str
    folder: Path

    @property
    def results(self) -> dict[str, Any]:
        """What stands in results.json."""
        content: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return content

    @property
    def series(self) -> dict[str, Any]:
        """What stands in series.json."""
        content: dict[str, Any] = json.loads((self.folder / "series.json").read_text())
        return content

    @property
    def verdicts(self) -> dict[str, str]:
        """Each test's verdict by the test's name."""
        return {name: test["verdict"] for name, test in self.tests.items()}

    @property
    def tests(self) -> dict[str, dict[str, Any]]:
        """Each test's record by the test's name."""
        return {test["id"].rpartition("::")[2]: test for test in self.results["tests"]}

    @property
    def troubles(self) -> str:
        """What went wrong and was no test's."""
        return "\n".join(trouble["message"] for trouble in self.results["trouble"])


@dataclass
class Started:
    """A run that is under way, in a session of its own as if a terminal had started it."""

    process: subprocess.Popen[str]
    folder: Path

    def outcome(self, timeout: float = 120.0) -> Outcome:
        """Wait for its end."""
        stdout, stderr = self.process.communicate(timeout=timeout)
        return Outcome(self.process.returncode, stdout, stderr, self.folder)


class SmallLab:
    """A lab of its own with small suites, and the machines and images of the project's."""

    def __init__(self, root: Path, choice: Choice, stack: ExitStack) -> None:
        self.root = root
        self._choice = choice
        self._stack = stack
        self._runs = 0
        content = yaml.safe_load((ROOT / "lab.yaml").read_text())
        for image in content["images"].values():
            image["recipe"] = str(ROOT / image["recipe"])
        content["suites"] = {name: {"tests": name} for name in ("first", "second")}
        content["run"]["suites"] = ["first"]
        del content["nightly"]  # of other suites; see `nightly`
        root.mkdir()
        (root / "kernels").symlink_to(ROOT / "kernels")
        (root / "lab.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def suite(self, text: str, name: str = "first") -> None:
        """Write the one module of a suite."""
        (self.root / name).mkdir()
        (self.root / name / "test_small.py").write_text(text)

    def known(self, text: str) -> None:
        """Write the lab's own kernels/known.yaml."""
        kernels = self.root / "kernels"
        kernels.unlink()
        kernels.mkdir()
        (kernels / "fragments").symlink_to(ROOT / "kernels" / "fragments")
        (kernels / "known.yaml").write_text(text)

    def series(self, mail: Path, *words: str) -> Started:
        """`vfio-lab series` with these words behind it, on the kernel that they name."""
        argv = ["lab", "series", str(mail), *words]
        return self._start(argv, words, None)

    def nightly(self, **content: Any) -> None:
        """Write what lab.yaml says of nights."""
        file = self.root / "lab.yaml"
        said = yaml.safe_load(file.read_text()) | {"nightly": content}
        file.write_text(yaml.safe_dump(said, sort_keys=False))

    def night(self, *words: str, env: dict[str, str] | None = None) -> Started:
        """`vfio-lab nightly` with these words; it has no folder of its own."""
        argv = ["lab", "nightly", "--no-update", *words]
        return self._start(argv, ("--out",), env)

    def start(self, *words: str, env: dict[str, str] | None = None) -> Started:
        """`vfio-lab run` with these words behind it; in one process unless they say otherwise."""
        words = words if "-n" in words else (*words, "-n", "1")
        return self._start(["lab", "run", *self._given(words)], words, env)

    def run(self, *words: str) -> Outcome:
        """`vfio-lab run`, to its end."""
        return self.start(*words).outcome()

    def start_pytest(self, *words: str, env: dict[str, str] | None = None) -> Started:
        """Plain pytest on the suite `first` with these words."""
        quiet = ["-p", "no:cacheprovider", "--rootdir", str(self.root), "--import-mode=importlib"]
        quiet += ["--basetemp", str(self.root / "base")]
        argv = ["pytest", *quiet, *self._given(words), str(self.root / "first")]
        return self._start(argv, words, env)

    def pytest(self, *words: str) -> Outcome:
        """Plain pytest, to its end."""
        return self.start_pytest(*words).outcome()

    def _given(self, words: Sequence[str]) -> list[str]:
        given = [] if "--kernel" in words else ["--kernel", str(self._choice.kernel)]
        if self._choice.qemu and "--qemu" not in words:
            given += ["--qemu", str(self._choice.qemu)]
        return [*given, *words]

    def _start(
        self, argv: Sequence[str], words: Sequence[str], env: dict[str, str] | None
    ) -> Started:
        self._runs += 1
        folder = self.root / f"run-{self._runs}"
        place = [] if "--out" in words else ["--out", str(folder)]
        process = subprocess.Popen(
            # What runs these tests may ignore Ctrl-C, as a background job does.
            ["env", "--default-signal=INT", sys.executable, "-m", *argv, *place],
            cwd=self.root,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return Started(process, folder)


@pytest.fixture
def small_lab(choice: Choice, tmp_path: Path) -> Iterator[SmallLab]:
    """A lab for whole runs; give it a suite first."""
    with ExitStack() as stack:
        yield SmallLab(tmp_path / "lab", choice, stack)


# What is left


def _qemus(folder: Path) -> list[int]:
    """The living processes that were started in a folder below this one, as every QEMU is."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and (path / "cwd").readlink().is_relative_to(folder):
                found.append(int(path.name))
        except OSError:
            continue  # it has just ended, or is somebody else's
    return found


@pytest.fixture
def qemus() -> Callable[[Path], list[int]]:
    """Tells which QEMUs live below a folder, by their process ids."""
    return _qemus


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object], float], bool]:
    """Waits for a condition, so many seconds at the most; whether it came true."""
    return _wait_until


def _wait_until(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test's guests end with it; no temporary file stays, no lock, no thread."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    ended = _wait_until(lambda: not _qemus(tmp_path), 5.0)
    left = _qemus(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert ended, f"processes are left: {left}"
    assert not list(temporary.iterdir())
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    assert str(os.getpid()) not in [words[4] for words in held if words[1] != "->"]
    shutil.rmtree(tmp_path / "cell", ignore_errors=True)  # images are large
