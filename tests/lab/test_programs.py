# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab exec`: programs of every kind of end, in guests."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.cell import Choice
from lab.trial.speed import figures_of

ROOT = Path(__file__).parents[2]

_TELLS = """\
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <linux/vfio.h>

int main(int argc, char **argv)
{
	int cdev = open(getenv("VFIO_LAB_CDEV"), O_RDWR);

	printf("%s %s %s\\n", argv[1], getenv("VFIO_LAB_BDF"), getenv("VFIO_LAB_MODE"));
	fprintf(stderr, "group %s\\n", getenv("VFIO_LAB_GROUP"));
	return cdev < 0 || ioctl(cdev, VFIO_DEVICE_RESET) == 0;
}
"""
_KTAP = """\
#!/bin/sh
echo TAP version 13
echo 1..3
echo ok 1 first
echo not ok 2 second
echo ok 3 third '# SKIP no such device'
exit 1
"""
_CRASH = """\
#!/bin/sh
echo here it comes
sleep 0.5  # it has to get out
echo c >/proc/sysrq-trigger
"""
_WARNS = """\
#!/bin/sh
echo '<4>WARNING: CPU: 0 PID: 1 at lib/planted.c:1 plant+0x0/0x10' >/dev/kmsg
"""


@dataclass(frozen=True)
class Done:
    """An exec that came to its end."""

    status: int
    stdout: str
    stderr: str
    results: dict[str, Any]
    folder: Path

    @property
    def verdicts(self) -> dict[str, str]:
        return {test["id"]: test["verdict"] for test in self.results["tests"]}


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(choice: Choice, tmp_path: Path) -> Iterator[Start]:
    """Starts `vfio-lab exec` with a program of this text, in a session of its own."""
    with ExitStack() as stack:

        def begin(name: str, text: str, *words: str) -> subprocess.Popen[str]:
            program = tmp_path / name
            program.write_text(text)
            argv = ["env", "--default-signal=INT", sys.executable, "-m", "lab", "exec"]
            argv += [str(program), *words, "--kernel", str(choice.kernel)]
            argv += ["--lab", str(ROOT), "--out", str(tmp_path / "run")]
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield begin


@pytest.fixture
def execute(start: Start, tmp_path: Path) -> Callable[..., Done]:
    """Runs `vfio-lab exec` to its end."""

    def run(name: str, text: str, *words: str) -> Done:
        process = start(name, text, *words)
        stdout, stderr = process.communicate(timeout=120.0)
        folder = tmp_path / "run"
        results = json.loads((folder / "results.json").read_text())
        return Done(process.returncode, stdout, stderr, results, folder)

    return run


def test_c_is_told_of_its_device(execute: Callable[..., Done]) -> None:
    done = execute("repro.c", _TELLS, "word", "--device", "edu1", "--mode", "iommufd")
    assert done.status == 0
    assert "word 0000:01:00.0 iommufd\n" in done.stdout
    assert "group /dev/vfio/" in done.stdout
    assert done.verdicts == {"repro.c": "kept"}
    (test,) = done.results["tests"]
    assert test["mode"] == "iommufd"
    output = next(done.folder / path for path in test["evidence"] if path.endswith("output.log"))
    assert done.stdout in output.read_text()


def test_each_test_of_its_ktap_has_a_verdict(execute: Callable[..., Done]) -> None:
    done = execute("ktap.sh", _KTAP)
    assert done.status == 1
    assert done.verdicts == {
        "ktap.sh::first": "kept",
        "ktap.sh::second": "broken",
        "ktap.sh::third": "skipped",
    }
    assert "skipped 1: no such device (ktap.sh)" in done.stderr


def test_the_speed_of_both_flows_is_measured(execute: Callable[..., Done]) -> None:
    program = ROOT / "lab" / "programs" / "speed.c"
    done = execute("speed.c", program.read_text(), "2", "--device", "edu0")
    assert done.status == 0
    figures = figures_of(done.stdout)
    parts = [f"{flow} {part}" for flow in ("group", "cdev") for part in ("bind", "map", "close")]
    assert list(figures) == parts
    assert all(len(samples) == 2 for samples in figures.values())
    assert all(0 < time < 60 for samples in figures.values() for time in samples)


def test_the_kernel_complains_and_the_program_does_not(execute: Callable[..., Done]) -> None:
    done = execute("warns.sh", _WARNS)
    assert done.status == 1
    (test,) = done.results["tests"]
    assert test["message"].startswith("the kernel reported: WARNING in plant")


def test_the_kernel_crashes(execute: Callable[..., Done]) -> None:
    done = execute("crash.sh", _CRASH)
    assert done.status == 1
    (test,) = done.results["tests"]
    assert test["verdict"] == "guest-lost"
    assert "sysrq triggered crash" in test["splats"][0]
    assert "here it comes" in done.stdout


def test_a_program_that_does_not_compile(execute: Callable[..., Done]) -> None:
    done = execute("bad.c", "int main(void) { return nothing; }\n")
    assert done.status == 2
    assert "bad.c does not compile" in done.results["trouble"][0]["message"]


def test_a_program_that_does_not_end(execute: Callable[..., Done]) -> None:
    done = execute("long.sh", "#!/bin/sh\necho begun\nsleep 100\n", "--timeout", "2")
    assert done.status == 1
    assert done.results["tests"][0]["message"] == "it did not end in 2 s"
    assert done.stdout == "begun\n"


def test_it_is_interrupted(
    start: Start, tmp_path: Path, qemus: Callable[[Path], list[int]]
) -> None:
    process = start("long.sh", "#!/bin/sh\necho begun\nsleep 100\n")
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=15.0)
    assert process.returncode == 2
    assert "the run did not finish" in stderr
    assert "Traceback" not in stderr
    assert not qemus(tmp_path)
