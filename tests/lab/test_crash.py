# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab crash`: a guest's memory after a panic, opened with the kernel's own symbols."""

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from lab.testing import lacking

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

_SUITE = """\
def test_kept(process):
    pass

def test_crashes(process):
    process.write_text("/proc/sysrq-trigger", "c")
"""
_BACKTRACE = {
    "gdb": "bt",
    "drgn": "print(prog.crashed_thread().stack_trace())",
}


def _crash(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "lab", "crash", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def test_the_backtrace_of_a_panic(small_lab: "SmallLab") -> None:
    """Every debugger that this host has shows who panicked, and where it was called from."""
    small_lab.suite(_SUITE)
    outcome = small_lab.run()
    assert outcome.verdicts == {"test_kept": "kept", "test_crashes": "guest-lost"}
    message = outcome.tests["test_crashes"]["message"]
    assert "its memory is vmcore (" in message
    vmcore = outcome.folder / "guests/001/vmcore"
    assert vmcore.stat().st_size < 64 << 20

    found = [name for name in _BACKTRACE if shutil.which(name)]
    if not found:
        raise lacking("gdb or drgn")
    for name in found:
        shown = _crash(f"{outcome.folder}/test_crashes", f"--{name}", "--exec", _BACKTRACE[name])
        assert shown.returncode == 0, shown.stderr
        assert "sysrq_handle_crash" in shown.stdout
        assert "ksys_write" in shown.stdout
    whole = _crash(str(outcome.folder), f"--{found[0]}", "--exec", _BACKTRACE[found[0]])
    assert "sysrq_handle_crash" in whole.stdout  # it has but one dump

    for word, message in {
        "test_kept": "test_kept lost no guest by its kernel's fault",
        "test_nosuch": "has no test test_nosuch",
    }.items():
        refused = _crash(f"{outcome.folder}/{word}")
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "test_small.py::test_crashes" in refused.stderr

    vmcore.chmod(0o600)
    vmcore.write_bytes(vmcore.read_bytes()[:100_000])
    cut = _crash(str(outcome.folder))
    assert cut.returncode == 2
    assert "this is no dump of a guest's memory: it was cut short" in cut.stderr
    vmcore.unlink()
    none = _crash(str(outcome.folder))
    assert none.returncode == 2
    assert "has 0 dumps" in none.stderr


def test_a_run_that_is_not_there() -> None:
    refused = _crash("/nonexistent/run/test_x")
    assert refused.returncode == 2
    assert "there is no run /nonexistent/run/test_x" in refused.stderr


def test_no_vmcore_where_none_is_wanted(small_lab: "SmallLab") -> None:
    small_lab.suite(_SUITE)
    outcome = small_lab.run("--no-vmcore")
    assert outcome.verdicts["test_crashes"] == "guest-lost"
    assert not list(outcome.folder.glob("guests/*/vmcore"))
