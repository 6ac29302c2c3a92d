# SPDX-License-Identifier: GPL-2.0-only
"""The plugin beside tests that are not the lab's, and in a lab where no guest boots."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab import deadline
from lab.cell import Choice
from lab.config import Lab
from lab.plugin.options import adopt, words_of
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.worker import Worker

pytest_plugins = ["pytester"]

LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels: {v6: {source: {tarball: linux.tar}, fragments: [base]}}
images: {minimal: {recipe: images/minimal}}
machines: {vtd: {}}
suites: {contract: {tests: tests}}
run: {kernel: v6, machine: vtd, suites: [contract]}
"""


@pytest.fixture
def lab(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab, which is the current folder; its suite has one test, in each mode."""
    root = pytester.mkdir("lab")
    for name in ("VFIO_LAB", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VFIO_LAB_STATE", str(pytester.path / "state"))
    monkeypatch.setenv("VFIO_LAB_CACHE", str(pytester.path / "cache"))
    monkeypatch.chdir(root)
    fragment = root / "kernels" / "fragments" / "base.config"
    fragment.parent.mkdir(parents=True)
    fragment.touch()
    (root / "lab.yaml").write_text(LAB)
    (root / "pytest.ini").touch()
    (root / "tests").mkdir()
    (root / "tests" / "test_suite.py").write_text("def test_old(mode): pass\n")
    return root


def test_a_mode_of_somebody_elses_is_his_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("mode", ["r", "w"])
        def test_parameter(mode):
            assert mode in "rw"

        @pytest.fixture(name="mode")
        def its_own_mode():
            return "mine"

        def test_fixture(mode):
            assert mode == "mine"
        """
    )
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_a_suites_test_runs_in_each_mode(pytester: pytest.Pytester, lab: Path) -> None:
    del lab
    said = pytester.runpytest("--collect-only", "-q", "tests")
    assert sum("::test_old[" in line for line in said.outlines) == 5


def test_no_run_begins_where_a_test_cannot_be_read(pytester: pytest.Pytester, lab: Path) -> None:
    (lab / "tests" / "test_bad.py").write_text("import nothing_of_this_name\n")
    said = pytester.runpytest("tests")
    assert said.ret == pytest.ExitCode.INTERRUPTED
    assert not (lab.parent / "state").exists()


def test_workers_wait_for_no_run_that_does_not_begin(pytester: pytest.Pytester, lab: Path) -> None:
    """The ids of tests that lie outside of pytest's root do not tell of which suite they are."""
    folder = lab.parent / "elsewhere"
    folder.mkdir()
    (folder / "test_new.py").write_text("def test_new(): pass\n")
    words = ["--rootdir", str(lab), "--tests", str(folder), str(folder)]
    said = pytester.runpytest_subprocess("-n", "1", "--kernel", "nowhere", *words, timeout=60)
    assert said.ret == 2
    said.stdout.fnmatch_lines(["*nowhere*"])


@pytest.mark.parametrize("way", ["brought", "../elsewhere", "../link"])
def test_a_folder_of_tests_by_any_way_to_it(pytester: pytest.Pytester, lab: Path, way: str) -> None:
    folder = lab / "brought" if way == "brought" else lab.parent / "elsewhere"
    folder.mkdir()
    (folder / "test_new.py").write_text("def test_new(mode): pass\n")
    (lab.parent / "link").symlink_to(lab.parent / "elsewhere")
    said = pytester.runpytest("--collect-only", "-q", "tests", "--tests", way)
    assert sum("::test_new[" in line for line in said.outlines) == 5


def test_the_words_that_repeat_it_name_that_folder_once(
    pytester: pytest.Pytester, lab: Path
) -> None:
    """pytest looks for its settings above all places at once, and these have only / in common."""
    folder = pytester.mkdir("elsewhere")
    config = pytester.parseconfigure("tests/test_suite.py::test_old", "--tests", str(folder))
    words = words_of(config, Lab.load(lab))
    assert words == ["tests/test_suite.py::test_old", "--tests", str(folder)]


def test_the_words_that_repeat_it_leave_out_what_it_left_out(
    pytester: pytest.Pytester, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab / "tests")
    left_out = ("--ignore", "test_b.py", "--ignore-glob", "test_x*.py", "--deselect", "tests/a.py")
    config = pytester.parseconfigure(".", *left_out)
    assert words_of(config, Lab.load(lab)) == [
        *("tests", "--deselect", "tests/a.py"),
        *("--ignore", "tests/test_b.py", "--ignore-glob", "tests/test_x*.py"),
    ]


class Slower:
    """A run on a kernel that is three times as slow, in which nobody asks for a guest."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.run = Worker(lab, Choice(), RunFolder(folder), Progress(quiet=True))
        parts = SimpleNamespace(kernel=SimpleNamespace(release="6.12.1"))
        variant = SimpleNamespace(slower=3.0)
        cell = SimpleNamespace(variant=variant, current=None, parts=parts, expect=lambda _: None)
        self.run.cell = cast(Any, cell)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        adopt(session.config, self.run)


def test_a_slower_kernel_has_as_many_times_as_long_once(
    pytester: pytest.Pytester, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab / "tests" / "test_suite.py").write_text(
        "import pytest\n\n"
        "def test_plain(): pass\n\n"
        "@pytest.mark.timeout(10)\ndef test_marked(): pass\n"
    )
    limits: list[tuple[str, float]] = []

    @contextmanager
    def limit(seconds: float, what: str) -> Iterator[None]:
        limits.append((what, seconds))
        yield

    monkeypatch.setattr(deadline, "limit", limit)
    run = Slower(Lab.load(lab), lab.parent / "run")
    # as pyproject.toml of this project has it, for the tests that lie in no suite
    pytester.inline_run("-o", "timeout=300", "tests", plugins=[run])
    assert [seconds for what, seconds in limits if what == "the test"] == [360.0, 30.0]
    assert {seconds for what, seconds in limits if what == "tearing it down"} == {180.0}
