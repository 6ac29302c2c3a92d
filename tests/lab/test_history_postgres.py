# SPDX-License-Identifier: GPL-2.0-only
"""The history in a real PostgreSQL: a server of the test's own, in a folder of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.proc import background, run
from lab.testing import lacking
from tests.unit.history.conftest import SERVER

_ROOT = Path(__file__).parents[2]
_NOBODY = 65534
_PATIENCE = 60.0  # seconds


def programs() -> Path:
    """The folder of the server's programs, which Debian keeps out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if in_path := shutil.which("initdb"):
        found.append(Path(in_path))
    if not found:
        raise lacking("PostgreSQL's server, Debian's package postgresql")
    return found[-1].resolve().parent


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of an empty database. The server refuses to run as root: it is nobody's then."""
    bin_ = programs()
    as_user: list[str] = []
    # pytest's own folders are not for other users, and too long for a socket's path
    with tempfile.TemporaryDirectory(prefix="vfio-lab-", dir="/tmp") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            as_user = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
            os.chown(folder, _NOBODY, _NOBODY)
        data = folder / "data"
        make: list[str | Path] = [
            bin_ / "initdb",
            "-D",
            data,
            "--username=lab",
            "--auth=trust",
            "--no-sync",
        ]
        run([*as_user, *make, "--encoding=UTF8", "--locale=C.UTF-8"], cwd=folder)
        serve: list[str | Path] = [
            bin_ / "postgres",
            "-D",
            data,
            "-k",
            folder,
            "-c",
            "listen_addresses=",
        ]
        with background([*as_user, *serve, "-c", "fsync=off"], folder / "log") as process:
            ready: list[str | Path] = [bin_ / "pg_isready", "-q", "-h", folder]
            until = time.monotonic() + _PATIENCE
            while subprocess.run(ready, check=False).returncode and process.poll() is None:
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
            assert process.poll() is None, (folder / "log").read_text()
            yield f"postgresql+psycopg://lab@/postgres?host={folder}"


@pytest.mark.timeout(900)
def test_all_that_is_true_of_a_file_is_true_of_a_server(server: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/history"]
    done = subprocess.run(
        [*argv, f"--basetemp={tmp_path}/files"],
        cwd=_ROOT,
        env=dict(os.environ) | {SERVER: server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
