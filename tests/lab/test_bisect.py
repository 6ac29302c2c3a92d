# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab bisect`, and bugs that are kept, with real guests; kernels that are built already."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.cell import Choice

ROOT = Path(__file__).parents[2]

_ALWAYS = "#!/bin/sh\nexit 1\n"
_NEVER = "#!/bin/sh\nexit 0\n"
_BUG = {
    "title": "it always shows",
    "reference": "https://example.org",
    "reproducer": "repro.sh",
    "signature": "it exited with status 1",
    "rate": {"shown": 5, "of": 5},
}


@pytest.fixture
def kernels(choice: Choice, tmp_path: Path) -> list[str]:
    """Three names of one kernel."""
    found = []
    for name in ("one", "two", "three"):
        folder = tmp_path / name
        folder.symlink_to(Path(str(choice.kernel)).parent)
        found.append(str(folder / Path(str(choice.kernel)).name))
    return found


def run(*words: str, state: Path, timeout: float = 200.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "VFIO_LAB_STATE": str(state)},
    )


def written(folder: Path, text: str) -> str:
    program = folder / "repro.sh"
    program.write_text(text)
    return str(program)


def test_a_good_end_that_is_not(kernels: list[str], tmp_path: Path) -> None:
    """And what is known is not asked again."""
    words = ["bisect", "--lab", str(ROOT), "--rate", "1", "-j", "1", "--reuse"]
    words += ["--good", kernels[0], "--bad", kernels[2], written(tmp_path, _ALWAYS)]
    done = run(*words, state=tmp_path / "state")
    assert done.returncode == 2
    assert f"{kernels[0]} is not good: it showed in attempt 1" in done.stderr
    again = run(*words, state=tmp_path / "state")
    assert again.returncode == 2
    assert "it goes on where it was: 2 are known" in again.stderr


def test_a_bad_end_that_is_not(kernels: list[str], tmp_path: Path) -> None:
    words = ["--good", kernels[0], "--bad", kernels[2], "--measure", "1s", "-j", "1"]
    words += ["--lab", str(ROOT), written(tmp_path, _NEVER)]
    done = run("bisect", *words, state=tmp_path / "state")
    assert done.returncode == 2
    assert f"{kernels[2]} is not bad: it did not show in 1 attempts" in done.stderr


@pytest.fixture
def bugs(tmp_path: Path) -> Callable[..., Path]:
    """Makes a lab with one bug."""

    def make(text: str, **more: Any) -> Path:
        root = tmp_path / "lab"
        content = yaml.safe_load((ROOT / "lab.yaml").read_text())
        for image in content["images"].values():
            image["recipe"] = str(ROOT / image["recipe"])
        content["suites"] = {"bugs": {"tests": "bugs"}}
        content["run"]["suites"] = ["bugs"]
        del content["nightly"]  # it is of other suites
        folder = root / "bugs" / "kept"
        folder.mkdir(parents=True)
        (root / "kernels").symlink_to(ROOT / "kernels")
        (root / "lab.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        (folder / "bug.yaml").write_text(yaml.safe_dump({**_BUG, **more}))
        written(folder, text)
        return root

    return make


@pytest.mark.parametrize(
    ("text", "fixed", "affected", "verdict"),
    [
        (_ALWAYS, "3.0", False, "broken"),
        (_ALWAYS, "99.0", False, "not-applicable"),
        (_ALWAYS, "99.0", True, "kept"),
        (_NEVER, "3.0", False, "kept"),
        ("#!/bin/sh\necho '1..0 # SKIP no iommufd'\nexit 4\n", "3.0", False, "not-applicable"),
    ],
    ids=["is-back", "is-not-fixed", "shows", "stays-away", "cannot-run"],
)
def test_a_bug_that_is_kept(
    bugs: Callable[..., Path], choice: Choice, tmp_path: Path,
    text: str, fixed: str, affected: bool, verdict: str,
) -> None:  # fmt: skip
    root = bugs(text, fixed=[fixed])
    words = ["--affected"] if affected else []
    words += ["--lab", str(root), "--kernel", str(choice.kernel), "-n", "1"]
    run("run", "--json", "--out", str(tmp_path / "run"), *words, state=tmp_path / "state")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert not results["trouble"]
    (test,) = results["tests"]
    assert test["verdict"] == verdict, test["message"]


def test_a_run_is_kept_as_a_bug(bugs: Callable[..., Path], choice: Choice, tmp_path: Path) -> None:
    root, state = bugs(_ALWAYS), tmp_path / "state"
    words = ["--lab", str(root), "--kernel", str(choice.kernel), "-j", "1"]
    assert run("repro", *words, written(tmp_path, _ALWAYS), state=state).returncode == 1
    words = ["latest", "--name", "new", "--reference", "mail", "--lab", str(root)]
    done = run("bug", "new", *words, state=state)
    assert done.returncode == 0, done.stderr
    content = yaml.safe_load((root / "bugs" / "new" / "bug.yaml").read_text())
    assert content["signature"] == "it exited with status 1"
    assert (root / "bugs" / "new" / "repro.sh").read_text() == _ALWAYS
