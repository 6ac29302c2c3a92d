# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab repro`: what shows in real guests, and what does not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.cell import Choice
from lab.kernel.prebuilt import of_bzimage
from lab.programs.compile import program
from lab.progress import Progress
from lab.repro.attempt import Attempt, Tools, attempt
from lab.repro.order import Order
from lab.repro.sign import Kind
from lab.testbed import Testbed
from tests.lab.gdbstub import SPIN, SPIN_DEAF, plant

ROOT = Path(__file__).parents[2]

_CRASH = "#!/bin/sh\necho c >/proc/sysrq-trigger\n"
_SOMETIMES = "#!/bin/sh\n[ $(($(od -An -N1 -tu1 /dev/urandom) % 2)) = 0 ]\n"
_WARNS = """\
#!/bin/sh
echo '<4>WARNING: CPU: 0 PID: 1 at lib/planted.c:1 plant+0x0/0x10' >/dev/kmsg
"""
_NEVER_ENDS = """\
#!/bin/sh
(while :; do sleep 1; done) &
while :; do sleep 1; done
"""

Repro = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def start(choice: Choice, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `vfio-lab repro` of a program with this text; words go before it."""
    with ExitStack() as stack:

        def begin(text: str, *words: str) -> subprocess.Popen[str]:
            program = tmp_path / "repro.sh"
            program.write_text(text)
            argv = ["env", "--default-signal=INT", sys.executable, "-m", "lab", "repro", "--json"]
            argv += ["--kernel", str(choice.kernel), "--out", str(tmp_path / "run"), *words]
            process = subprocess.Popen(
                [*argv, "--lab", str(ROOT), str(program)],
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
def repro(start: Callable[..., subprocess.Popen[str]]) -> Repro:
    """Runs it to its end: the exit status, and what it printed."""

    def run(text: str, *words: str) -> tuple[int, dict[str, Any]]:
        process = start(text, *words)
        stdout, stderr = process.communicate(timeout=200.0)
        assert stdout, stderr
        return process.returncode, json.loads(stdout)

    return run


def test_a_crash_ends_it_and_is_kept(repro: Repro, tmp_path: Path) -> None:
    status, found = repro(_CRASH, "-j", "1")
    assert status == 1
    (attempt,) = found["attempts"]
    (sign,) = attempt["shown"]
    assert sign["title"] == "kernel panic: sysrq triggered crash"
    assert "sysrq_handle_crash" in sign["text"]
    assert attempt["lost"]
    kept = {Path(path).name for path in attempt["evidence"]}
    assert {"console.log", "output.log", "vmcore"} <= kept
    assert all((tmp_path / "run" / path).exists() for path in attempt["evidence"])


def test_its_rate_is_counted_in_guests_that_serve_again(repro: Repro, tmp_path: Path) -> None:
    status, found = repro(_SOMETIMES, "-j", "2", "--times", "12", "--keep-going", "--reuse")
    summary = found["summary"]
    assert summary["of"] == 12
    assert status == (1 if summary["shown"] else 0)
    assert set(summary["titles"]) <= {"it exited with status 1"}
    assert summary["interval"][0] < summary["rate"] < summary["interval"][1]
    guests = len(list((tmp_path / "run" / "guests").iterdir()))
    assert guests == summary["shown"], "what was quiet is not kept"


def test_only_what_is_expected_counts(repro: Repro) -> None:
    words = ["-j", "1", "--times", "1"]
    status, found = repro(_WARNS, *words, "--expect", "KASAN: … in plant")
    assert status == 0
    assert found["summary"]["besides"] == {"WARNING in plant": 1}


def test_what_never_ends_shows_nothing_by_that(repro: Repro) -> None:
    """Nor does it outlive its attempt: the guest serves again."""
    words = ["-j", "1", "--times", "2", "--timeout", "1", "--reuse", "--keep"]
    status, found = repro(_NEVER_ENDS, *words)
    assert status == 0
    ended = [attempt["ended"] for attempt in found["attempts"]]
    assert ended == ["it did not end in 1 s"] * 2
    folders = {Path(path).parent for attempt in found["attempts"] for path in attempt["evidence"]}
    assert len(folders) == 1


def test_an_allocation_fails_in_the_program_alone(repro: Repro) -> None:
    words = ["-j", "1", "--times", "3", "--keep-going", "--reuse", "--fault-injection", "nth"]
    status, found = repro("#!/bin/sh\nls / >/dev/null\n", *words)
    assert status == 0
    told = [attempt["under"] for attempt in found["attempts"]]
    assert all(f"nth={number}: the one that failed is" in words for number, words in
               enumerate(told, start=1)), told  # fmt: skip


def test_stress_is_there(repro: Repro) -> None:
    status, found = repro("#!/bin/sh\nsleep 1\n", "-j", "1", "--times", "1", "--stress", "all")
    assert status == 0
    assert "CPUs on CPU" in found["attempts"][0]["under"]
    assert "MiB available, noise took" in found["attempts"][0]["under"]


def test_it_is_interrupted(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, qemus: Callable[[Path], list[int]]
) -> None:
    process = start("#!/bin/sh\nsleep 100\n", "-j", "2", "--timeout", "100")
    guests = tmp_path / "run" / "guests"
    assert process.stderr
    while not (guests.is_dir() and list(guests.glob("*/output.log"))):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30.0)
    assert process.returncode == 2
    assert "Traceback" not in stderr
    assert json.loads(stdout)["finished"] is False
    assert not qemus(tmp_path)


# What the kernel holds


def _attempted(testbed: Testbed, choice: Choice, folder: Path, call: str) -> Attempt:
    source = folder / "hold.c"
    source.write_text(
        f"#include <sys/times.h>\n#include <unistd.h>\nint main(void) {{ {call}; }}\n"
    )
    kernel = of_bzimage("kernel", Path(str(choice.kernel)))
    tools = Tools(program(source, kernel, folder, Progress(quiet=True)))
    return attempt(Order(str(source), timeout=2.0), testbed, tools, 1, str)


def test_what_sigkill_does_not_end_hangs(testbed: Testbed, choice: Choice, tmp_path: Path) -> None:
    """A CPU spins with interrupts on: the guest lives."""
    plant(testbed, "__x64_sys_times", SPIN)
    made = _attempted(testbed, choice, tmp_path, "struct tms t; times(&t)")
    (sign,) = made.shown
    assert (sign.kind, sign.title) == (Kind.HANG, "hang in __x64_sys_times")
    assert sign.headline.startswith("SIGKILL does not end hold (pid ")
    assert not made.lost
    assert not made.others


def test_a_guest_that_does_not_answer_hangs(
    testbed: Testbed, choice: Choice, tmp_path: Path
) -> None:
    """All CPUs spin with interrupts off."""
    plant(testbed, "__x64_sys_getpriority", SPIN_DEAF)
    calls = "for (int n = 0; n < 4; n++) fork(); getpriority(0, 0)"
    made = _attempted(testbed, choice, tmp_path, f"extern int getpriority(int, int); {calls}")
    sign = made.shown[0]
    assert sign.kind is Kind.HANG
    assert "getpriority" in sign.title
    assert made.lost
    assert any(path.endswith("hang.log") for path in made.evidence)
