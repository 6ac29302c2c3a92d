# SPDX-License-Identifier: GPL-2.0-only
"""Nothing of a run needs root: not the image, not the agent, not the guest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cell import Choice
from lab.testing import lacking

_ROOT = Path(__file__).parents[2]
_NOBODY = 65534


def _as_nobody(words: list[str], home: Path) -> "subprocess.CompletedProcess[str]":
    identity = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    return subprocess.run(
        ["setpriv", *identity, "env", *words],  # env: setpriv itself keeps its rights until exec
        cwd=home,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home),
            "VFIO_LAB_CACHE": str(home / "cache"),
            "VFIO_LAB_STATE": str(home / "state"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of nobody's, which nobody reaches."""
    folder = tmp_path / "home"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
    return folder


def test_a_run_from_nothing(home: Path, choice: Choice) -> None:
    """With no cache: packages, image and agent are made by that user, too."""
    if os.geteuid() != 0:
        raise lacking("root, to become another user")
    readable = f"import lab.plugin, pathlib; pathlib.Path({str(choice.kernel)!r}).read_bytes()"
    if _as_nobody([sys.executable, "-c", readable], home).returncode:
        raise lacking(f"a Python, a lab and a kernel that uid {_NOBODY} can read")
    words = ["run", "--lab", str(_ROOT), "--kernel", str(choice.kernel), "--rule", "DMA-1"]
    run = _as_nobody([sys.executable, "-m", "lab", *words], home)
    assert run.returncode == 0, run.stderr + run.stdout
    assert (home / "state" / "runs" / "latest" / "results.json").stat().st_uid == _NOBODY
