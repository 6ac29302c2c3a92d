# SPDX-License-Identifier: GPL-2.0-only
"""Whom a guest that does not answer is blamed on, by what its kernel and QEMU say."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from lab.deadline import Deadline
from lab.guest import hang
from lab.guest.console import Console
from lab.guest.hang import Hang
from lab.guest.launch import Running

_CPU = """\
NMI backtrace for cpu 1
CPU: 1 UID: 0 PID: 93 Comm: agent Not tainted 6.12.117 #1
"""
_USER = f"{_CPU}RIP: 0033:0x401234\n"
_TICK = f"""\
{_CPU}RIP: 0010:hrtimer_interrupt+0x22/0x40
Call Trace:
 <IRQ>
 sysvec_apic_timer_interrupt+0x22/0x40
 </IRQ>
 <TASK>
 asm_sysvec_apic_timer_interrupt+0x22/0x40
RIP: 0033:0x401234
"""
_IN_IOCTL = f"""\
{_CPU}RIP: 0010:{{inner}}+0x13/0x20
Call Trace:
 <TASK>
 {{outer}}+0x5/0x10
 do_syscall_64+0x37/0xb0
"""
_HERE = _IN_IOCTL.format(inner="delay_tsc", outer="vfio_df_open")
_THERE = _IN_IOCTL.format(inner="mutex_unlock", outer="vfio_df_open")
_ELSEWHERE = _IN_IOCTL.format(inner="vm_munmap", outer="__x64_sys_munmap")
_BLOCKED = """\
task:agent           state:D stack:0     pid:93    tgid:92    ppid:0
Call Trace:
 <TASK>
 __schedule+0x1/0x2
 {function}+0x1/0x2
 </TASK>
"""


class _Guest:
    """Says on its console what it is asked by SysRq; `looks` are its answers to `l` and to `w`, the
    first of which nobody compares. Its registers are those of one CPU in the kernel that takes no
    interrupt."""

    over = False
    sign_of_death = None

    def __init__(
        self, folder: Path, looks: Sequence[tuple[str, str]], addresses: Sequence[int] = ()
    ) -> None:
        self.console = Console(folder / "console.log")
        self.monitor = self
        self._answers = {
            "l": iter(["", *(cpus for cpus, _ in looks)] if looks else ()),
            "w": iter([tasks for _, tasks in looks]),
        }
        self._deaf = not looks
        self._addresses = iter(addresses)

    def sysrq(self, key: str) -> None:
        if not self._deaf:
            words = next(self._answers[key], "") if key in self._answers else ""
            self.console.data_received(f"sysrq: asked\n{words}".encode())

    def execute(self, command: str, *_: object, timeout: float) -> Mapping[str, Any]:
        assert timeout
        return {"status": "running"} if command == "query-status" else {}

    def human(self, line: str, *, timeout: float) -> str:
        assert (line, timeout) == ("info registers -a", hang.QMP)
        address = next(self._addresses, 0)
        return f"CPU#0\nRIP={address:016x} RFL=00000002 [] CPL=0 II=0 HLT=0\n"

    def saw(self, _: str) -> bool:
        return False


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_BETWEEN", "_SILENCE", "_HEARD", "_AGAIN", "_NMI"):
        monkeypatch.setattr(hang, name, 0.01)


def _ask(guest: _Guest, symbols: Path | None = None) -> Hang:
    return hang.ask(cast(Running, guest), symbols, Deadline.after(20.0))


@pytest.mark.parametrize(
    ("first", "second"), [(_USER, _USER), (_USER, _TICK), (_TICK, _USER), (_USER, _HERE),
                          (_HERE, _ELSEWHERE)],
)  # fmt: skip
def test_who_moves_on_or_spins_in_user_space_is_no_hang_of_the_kernel(
    tmp_path: Path, first: str, second: str
) -> None:
    found = _ask(_Guest(tmp_path, [(first, ""), (second, "")]))
    assert found.report is None
    assert not found.lives
    assert found.words.startswith("CPU 1 runs ")


def test_an_idle_cpu_that_serves_interrupts_hangs_nowhere(tmp_path: Path) -> None:
    """Seen where the host was busy: each look of SysRq l found it in the timer's soft interrupt."""
    idle = _TICK.replace("PID: 93 Comm: agent", "PID: 0 Comm: swapper/1")
    idle = idle.replace("RIP: 0033:0x401234", "RIP: 0010:pv_native_safe_halt+0xb/0x10")
    found = _ask(_Guest(tmp_path, [(idle, ""), (idle, "")]))
    assert found.lives
    assert found.words == "its kernel answers SysRq, and hangs nowhere"


@pytest.mark.parametrize("second", [_HERE, _THERE])
def test_who_is_in_one_function_twice_hangs(tmp_path: Path, second: str) -> None:
    found = _ask(_Guest(tmp_path, [(_HERE, ""), (second, "")]))
    assert found.report
    assert "vfio_df_open" in found.words


def test_who_blocks_in_another_place_moves_on(tmp_path: Path) -> None:
    one, other = (_BLOCKED.format(function=name) for name in ("vfio_unregister", "iommu_detach"))
    assert _ask(_Guest(tmp_path, [("", one), ("", one)])).report
    assert not _ask(_Guest(tmp_path, [("", one), ("", other)])).report


def test_a_full_disk_hides_nothing(tmp_path: Path) -> None:
    guest = _Guest(tmp_path, [(_HERE, ""), (_HERE, "")])
    (tmp_path / hang.LOG).symlink_to("/dev/full")
    assert _ask(guest).report


def test_an_address_of_a_module_has_no_name_of_the_kernels(tmp_path: Path) -> None:
    """Modules lie behind the kernel (Documentation/arch/x86/x86_64/mm.rst)."""
    program = tmp_path / "program"
    subprocess.run(
        ["gcc", "-nostdlib", "-static", "-Wl,-Ttext=0x400000", "-x", "c", "-", "-o", program],
        input="void _start(void) {} void last(void) {}",
        text=True,
        check=True,
    )
    known = _ask(_Guest(tmp_path, [], [0x400000] * 2), program)
    assert "CPU 0 runs _start, its interrupts off" in known.words
    module = _ask(_Guest(tmp_path, [], [0xFFFFFFFFC0000000] * 2), program)
    assert "CPU 0 runs 0xffffffffc0000000, its interrupts off" in module.words
