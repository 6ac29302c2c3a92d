# SPDX-License-Identifier: GPL-2.0-only
"""A test that fails is held, and its guest is entered from another process."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.cell import Cell, Choice
from lab.debug.debugger import Debugger
from lab.guest import doors
from lab.testing import lacking

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

WaitUntil = Callable[[Callable[[], object], float], bool]

_NOBODY = 65534
_SUITE = """\
from errno import EBUSY, EINVAL
from lab.testing import raises_errno
from lab.vfio.files import Iommufd

def test_expects_an_error(process, edu):
    with raises_errno(EINVAL), edu.open_cdev(process) as cdev:
        cdev.info()

def test_fails(process, edu):
    with edu.open_cdev(process) as cdev, Iommufd.open(process, Iommufd.PATH) as iommufd:
        cdev.bind(iommufd)
        with raises_errno(EBUSY):
            cdev.bind(iommufd)

def test_leaves_something(process):
    process.write_text("/proc/sys/vm/swappiness", "61")
    process.write_text("/dev/kmsg", "<2>WARNING: CPU: 0 PID: 1 at fs/x.c:1 planted+0x1/0x2\\n")
"""
_MODULES = "v6.12+modules"
_FDS = "for fd in $(ls -d /proc/[0-9]*/fd/*); do readlink $fd; done; exit 3"


def vfio_lab(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Another command of the same user's; `given` is its standard input."""
    argv = [sys.executable, "-m", "lab", *words]
    return subprocess.run(
        argv, input=given, capture_output=True, text=True, timeout=60, check=False
    )


def others_can_connect(place: Path) -> bool:
    """Whether somebody else reaches a socket."""
    attempt = f"import socket; socket.socket(socket.AF_UNIX).connect({str(place)!r})"
    identity = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    argv = ["setpriv", *identity, "/usr/bin/python3", "-c", attempt]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_held_until_a_file_is_removed(small_lab: "SmallLab", wait_until: WaitUntil) -> None:
    """Where nobody can be asked. Meanwhile the guest is entered in every way."""
    small_lab.suite(_SUITE)
    run = small_lab.start("--hold")
    held = run.folder / "guests/001/held"
    assert wait_until(held.exists, 120.0)
    said = held.read_text()
    assert "test_fails: Failed: ioctl" in said  # not the one before: it expects what it got
    (number,) = re.findall(r"^guest (\d+) ", said, re.MULTILINE)

    listed = vfio_lab("guests", "--json")
    assert f'"pid": {number},' in listed.stdout
    assert "test_fails" in listed.stdout
    files = vfio_lab("shell", "--sh", given=_FDS)
    assert files.returncode == 3
    assert "/dev/vfio/devices/vfio0\n/dev/iommu\n" in files.stdout
    python = "with open_device(process, edu1, Mode.IOMMUFD) as opened: print(opened.device.info())"
    seen = vfio_lab("shell", number, given=f"{python}\n\nprint(guest.human('info status'))\n")
    assert "VfioDeviceInfo" in seen.stdout
    assert "VM status: running" in seen.stdout
    registers = vfio_lab("monitor", str(run.folder), "-c", "info registers")
    assert "CPU#0" in registers.stdout
    status = vfio_lab("monitor", "--qmp", "-c", "query-status")
    assert '"status": "running"' in status.stdout
    refused = vfio_lab("monitor", "--qmp", "-c", "query-nosuch")
    assert (refused.returncode, "QEMU refuses query-nosuch" in refused.stderr) == (2, True)
    assert "(QEMU) VM status: running" in vfio_lab("monitor", given="info status\n").stdout
    assert "sysrq: HELP" in vfio_lab("console", given="\x1ch").stdout

    held.unlink()
    held = run.folder / "guests/002/held"  # what failed has cost the guest
    assert wait_until(held.exists, 120.0)
    assert "test_leaves_something: the kernel reported: WARNING in planted" in held.read_text()
    assert "guest 002" in vfio_lab("shell", "--sh", given="hostname; echo guest 002").stdout
    held.unlink()
    outcome = run.outcome()
    assert outcome.status == 1
    assert not (run.folder / "guests/001" / doors.FOLDER).exists()
    assert vfio_lab("guests").stdout == "no guest lives that can be entered\n"


def test_nobody_else_reaches_the_doors(new_cell: Callable[..., Cell], tmp_path: Path) -> None:
    """The folder keeps them out: without it they are in."""
    folder = new_cell(doors=True).testbed().guest.folder / doors.FOLDER
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name for file in folder.iterdir()} == {doors.QMP, doors.MONITOR, doors.DRGN}
    if os.geteuid() != 0:
        raise lacking("root, to become another user")
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o001)
    assert not others_can_connect(folder / doors.QMP)
    folder.chmod(0o755)
    (folder / doors.QMP).chmod(0o777)
    assert others_can_connect(folder / doors.QMP)


def test_a_living_kernel_in_debuggers(new_cell: Callable[..., Cell]) -> None:
    """Those that this host has. What ran before runs on, also when a debugger is killed."""
    testbed = new_cell(doors=True).testbed()
    number = str(testbed.guest.pid)
    if not any(each.find() for each in Debugger):
        raise lacking("gdb or drgn")
    if Debugger.GDB.find():
        asked = ("list vfio_df_open,+1", "hbreak vfio_df_open", "lx-version", "info threads")
        shown = vfio_lab("gdb", number, *(word for each in asked for word in ("--exec", each)))
        assert shown.returncode == 0, shown.stderr
        assert "struct vfio_device *device = df->device;" in shown.stdout
        assert re.search(r"breakpoint 1 at 0xffffffff\w+: file \S+vfio_main.c", shown.stdout)
        assert f"Linux version {testbed.hands.read_text('/proc/sys/kernel/osrelease').strip()}" in (
            shown.stdout
        )
        assert "CPU#1" in shown.stdout
        assert testbed.guest.clock_goes()
        killed = vfio_lab("gdb", number, "--exec", "shell kill -9 $PPID")
        assert killed.returncode != 0
        assert testbed.guest.clock_goes()
    if Debugger.DRGN.find():
        shown = vfio_lab("drgn", number, "--exec", "print(prog['init_task'].comm)")
        assert (shown.returncode, shown.stdout) == (0, '(char [16])"swapper/0"\n')


@pytest.mark.slow
@pytest.mark.timeout(0)  # a kernel may be built
def test_modules_have_symbols_in_gdb(new_cell: Callable[..., Cell]) -> None:
    """Also where it is called from a folder with other modules; its commands run in that folder."""
    if not Debugger.GDB.find():
        raise lacking("gdb")
    testbed = new_cell(kernel=_MODULES, doors=True).testbed()
    asked = ("info symbol vfio_df_open", "hbreak vfio_df_open", "print vfio_fs_type.name", "pwd")
    words = [word for each in asked for word in ("--exec", each)]
    shown = vfio_lab("gdb", str(testbed.guest.pid), *words)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"vfio_df_open in section \.text of \S+/vfio\.ko", shown.stdout)
    assert re.search(r"breakpoint 1 at 0xffffffff\w+: file \S+vfio_main.c", shown.stdout)
    assert re.search(r'\$1 = 0xffffffff\w+ "vfio"', shown.stdout)  # a variable of the module's own
    assert f"Working directory {Path.cwd()}." in shown.stdout
    assert testbed.guest.clock_goes()


def test_a_guest_that_its_kernel_lost(small_lab: "SmallLab", wait_until: WaitUntil) -> None:
    """It stands as it was, and is told apart from one that can be logged in to."""
    if not Debugger.GDB.find():
        raise lacking("gdb")
    small_lab.suite(
        "def test_crashes(process):\n    process.write_text('/proc/sysrq-trigger', 'c')\n"
    )
    run = small_lab.start("--hold", "--no-vmcore")
    held = run.folder / "guests/001/held"
    assert wait_until(held.exists, 120.0)
    assert "test_crashes: AgentDied: " in held.read_text()
    refused = vfio_lab("shell", "--sh")
    assert refused.returncode == 2
    assert "stands still: QEMU calls that shutdown" in refused.stderr
    shown = vfio_lab("gdb", "--exec", "thread apply all bt")
    assert "in sysrq_handle_crash" in shown.stdout or "in panic" in shown.stdout, shown.stdout
    held.unlink()
    assert run.outcome().verdicts == {"test_crashes": "guest-lost"}


def test_the_prompt_of_a_held_test(small_lab: "SmallLab", choice: Choice) -> None:
    """On a terminal: pdb in the test's frame, with its names and the lab's; then on to the end."""
    small_lab.suite(_SUITE)
    out = small_lab.root / "run"
    words = ("run", "--hold", "-k", "test_fails", "--kernel", str(choice.kernel), "--out", str(out))
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(small_lab.root)
        os.execv(sys.executable, [sys.executable, "-m", "lab", *words])
    said = _until(terminal, "(Pdb) ")
    assert "vfio-lab shell --sh" in said
    assert "with raises_errno(EBUSY):" in said or "cdev.bind(iommufd)" in said
    os.write(terminal, b"p cdev.info().num_regions, edu1.role, guest.alive\n")
    assert "(9, 'edu1', True)" in _until(terminal, "(Pdb) ")
    os.write(terminal, b"c\n")
    assert "1 broken" in _until(terminal, "report: ")
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 1


def _until(terminal: int, words: str) -> str:
    said = ""
    while words not in said:
        try:
            data = os.read(terminal, 4096)
        except OSError:
            data = b""
        assert data, said
        said += data.decode(errors="replace")
    return said


@pytest.mark.parametrize("command", ["run", "pytest"])
def test_not_in_several_workers(small_lab: "SmallLab", command: str) -> None:
    small_lab.suite(_SUITE)
    start = small_lab.start if command == "run" else small_lab.start_pytest
    outcome = start("--hold", "-n", "2").outcome()
    assert outcome.status != 0
    assert "--hold is about one test at a time: it goes without -n" in outcome.stderr


def test_a_guest_of_a_command_of_its_own(choice: Choice, tmp_path: Path) -> None:
    """Where none lives a new one is booted, which ends with the command."""
    shown = vfio_lab("monitor", "--kernel", str(choice.kernel), "-c", "info status")
    assert "VM status: running" in shown.stdout, shown.stderr
    assert "it ends with this command" in shown.stderr
    assert not list((tmp_path / "tmp").iterdir())
    nobody = vfio_lab("console", "12345678")
    assert nobody.returncode == 2
    assert "12345678 is no guest that can be entered" in nobody.stderr


_TRACED = """\
from lab.vfio.modes import open_device

def test_maps(process, edu, modes):
    with open_device(process, edu, modes[0]) as opened, process.mmap(4096) as memory:
        opened.space.map(0x100000, memory)
"""


def test_what_the_kernel_did_during_a_test(small_lab: "SmallLab") -> None:
    """A kernel without ftrace says so, and which one has it."""
    small_lab.suite(_TRACED)
    outcome = small_lab.pytest("--ftrace")
    if outcome.status == 2:
        assert "this kernel has no ftrace (CONFIG_FTRACE)" in outcome.tests["test_maps"]["message"]
        raise lacking("a kernel with ftrace: --kernel v6.12+trace")
    (folder,) = (outcome.folder / "traces").iterdir()
    text = (folder / "trace.txt").read_text()
    assert re.search(r"map: IOMMU: iova=0x0*100000 - 0x0*101000", text)
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert "map" in [event["name"] for event in events if event["ph"] == "i"]
    if not shutil.which("trace-cmd"):
        raise lacking("trace-cmd")
    argv = ["trace-cmd", "report", "-i", str(folder / "trace.dat")]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert re.search(r"map: +IOMMU: iova=0x0*100000", said)
