# SPDX-License-Identifier: GPL-2.0-only
"""A guest comes up: what a user finds in it, and in its folder."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lab.guest.guest
from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.deadline import Deadline
from lab.errors import GuestLost
from lab.guest import (
    COMMAND_LINE,
    Accelerator,
    AcceleratorMemory,
    Boot,
    Guest,
    Hypervisor,
    Loop,
    boot,
    hang,
)
from lab.guest.accel import kvm_obstacle
from lab.guest.guest import READY
from lab.guest.launch import Running, launch
from lab.splats import find
from lab.testbed import Testbed

_SAID, _UNSAID = "Linux version ", "nobody says this"


@pytest.fixture
def cell(new_cell: Callable[..., Cell]) -> Cell:
    """A cell that boots nothing itself: for its kernel, image and QEMU."""
    return new_cell()


@contextmanager
def _booted(
    cell: Cell, folder: Path, loop: Loop, cache: Cache, qemu: Path | None = None
) -> Iterator[Guest]:
    folder.mkdir(parents=True)
    order = Boot(cell.machine, cell.parts.kernel.bzimage, cell.parts.image.initramfs, COMMAND_LINE)
    found = replace(cell.parts.qemu, path=qemu or cell.parts.qemu.path)
    hypervisor = Hypervisor(found, AcceleratorMemory(cache, found), loop)
    with boot(order, hypervisor, folder, Deadline.after(60.0)) as guest:
        yield guest


def test_a_guest_lets_us_in(shared_testbed: Testbed) -> None:
    assert shared_testbed.guest.ssh.run("id", "-u").output == "0\n"
    assert shared_testbed.guest.ssh.run("false").status == 1
    assert 0 < shared_testbed.guest.seconds["ready"] < shared_testbed.guest.seconds["login"]


def test_programs_run_on_every_cpu_but_agents_beside_the_ssh_server(
    shared_testbed: Testbed,
) -> None:
    """What is started over SSH inherits the server's CPU, which is good for who talks to us all
    the time. A user's program is to have what it would have anywhere."""
    line = "Cpus_allowed_list:\t"
    told = shared_testbed.guest.ssh.run("grep", line, "/proc/self/status").output
    assert told == f"{line}0-{shared_testbed.machine.cpus - 1}\n"
    with shared_testbed.start_process() as process:
        assert f"{line}0\n" in shared_testbed.hands.read_text(f"/proc/{process.pid}/status")
    interrupts = shared_testbed.hands.read_text("/proc/interrupts")
    of_the_card = re.findall(r"^ *(\d+):.* virtio0-\w+", interrupts, re.MULTILINE)
    assert of_the_card
    for number in of_the_card:
        place = f"/proc/irq/{number}/smp_affinity_list"
        assert shared_testbed.hands.read_text(place) == "0\n"


def test_devices_are_at_their_addresses(shared_testbed: Testbed) -> None:
    """By their vendor and device ids, which the guest reads from the devices themselves."""
    ids = {"edu": "0x1234 0x11e8", "rng": "0x1af4 0x1044", "igb": "0x8086 0x10c9"}
    for role, device in shared_testbed.devices.items():
        words = [
            shared_testbed.hands.read_text(f"{device.sysfs}/{name}").strip()
            for name in ("vendor", "device")
        ]
        assert " ".join(words) == ids[role.rstrip("0123456789")], role


def test_console_is_stored(shared_testbed: Testbed) -> None:
    stored = (shared_testbed.guest.folder / "console.log").read_text(errors="replace")
    assert re.search(r"^\[ *0\.000000\].* Linux version ", stored, re.MULTILINE)
    assert READY in stored.splitlines()


def test_script_starts_the_same_guest_by_hand(shared_testbed: Testbed) -> None:
    script = shared_testbed.guest.folder / "qemu.sh"
    guest = subprocess.Popen(
        [script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        assert guest.stdout
        lines = []
        for line in guest.stdout:
            lines.append(line.strip())
            if READY in line:
                break
        assert lines[-1] == READY
    finally:
        guest.kill()
        guest.communicate()
    first_boot = shared_testbed.guest.console.text()
    (ours,) = re.findall(r"Kernel command line: (.*)", first_boot)
    assert any(line.endswith(f"Kernel command line: {ours}") for line in lines)
    assert shared_testbed.guest.ssh.run("true").status == 0, "it disturbed the guest that runs"


def test_accelerator_is_learnt_once(cell: Cell, tmp_path: Path) -> None:
    """KVM where it works; where it only seems to, TCG, and nobody tries again."""
    cache = Cache(tmp_path / "cache")
    memory = AcceleratorMemory(cache, cell.parts.qemu)
    assert memory.known() is None
    with Loop() as loop:
        with _booted(cell, tmp_path / "cell" / "1", loop, cache) as guest:
            first = guest.accelerator
            assert guest.ssh.run("true").status == 0
        known = memory.known()
        if kvm_obstacle():
            assert (first, known) == (Accelerator.TCG, None)
            return
        assert known is not None
        assert known["kvm"] is (first is Accelerator.KVM)
        assert known["why"]
        assert memory.candidates() == [first]
        with _booted(cell, tmp_path / "cell" / "2", loop, cache) as guest:
            assert guest.accelerator is first


# Asked for KVM it emulates, so that no host's own trouble with KVM comes first, and starts no CPU.
_NO_FIRMWARE = """\
#!/bin/sh
case "$*" in
*"-accel kvm"*)
    for word; do
        shift
        case "$word" in
        kvm) word=tcg ;;
        host) word=max ;;
        q35,*) word=q35 ;;
        esac
        set -- "$@" "$word"
    done
    set -- "$@" -S
    ;;
esac
exec {} "$@"
"""


def test_a_guest_that_gets_nowhere_with_kvm_is_booted_without(cell: Cell, tmp_path: Path) -> None:
    """As where a host's KVM runs the firmware for ever: no event says so, and no word comes."""
    if obstacle := kvm_obstacle():
        pytest.skip(f"no KVM to be tried out: {obstacle}")
    cache, real = Cache(tmp_path / "cache"), cell.parts.qemu.path
    qemu = tmp_path / "qemu"
    qemu.write_text(_NO_FIRMWARE.format(real))
    qemu.chmod(0o755)
    with Loop() as loop, _booted(cell, tmp_path / "cell" / "1", loop, cache, qemu) as guest:
        assert guest.accelerator is Accelerator.TCG
    known = AcceleratorMemory(cache, replace(cell.parts.qemu, path=qemu)).known()
    assert known is not None
    assert known["why"] == "a guest was not ready within 20 s; the last it said was: nothing"


def test_four_guests_at_once(cell: Cell, tmp_path: Path) -> None:
    """None gets another's port, keys or console."""

    def name_of(number: int) -> str:
        folder = tmp_path / "cell" / str(number)
        with _booted(cell, folder, loop, Cache.of_user()) as guest:
            guest.ssh.run("hostname", f"guest-{number}")
            barrier[number] = True
            end = time.monotonic() + 60.0
            while len(barrier) < 4 and time.monotonic() < end:
                time.sleep(0.05)
            return guest.ssh.run("hostname").output.strip()

    barrier: dict[int, bool] = {}
    with Loop() as loop, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(name_of, range(4))) == [f"guest-{number}" for number in range(4)]


def test_a_guest_without_ssh_is_lost_in_time(new_cell: Callable[..., Cell]) -> None:
    """It runs and prints, but nobody listens: the last lines say where it got to."""
    cell = new_cell(command_line=("vfio_lab.sshd=off",), boot_timeout=15.0)
    started = time.monotonic()
    with pytest.raises(GuestLost, match="no login within 15 s") as lost:
        cell.testbed()
    assert time.monotonic() - started < 15.0 + hang.ASKING + 2.0
    assert "its kernel answers SysRq" in lost.value.message
    assert re.search(r"^ +\[ *\d+\.\d+\]", lost.value.message, re.MULTILINE)
    assert "console.log" in str(lost.value)
    assert lost.value.splat is None


@pytest.mark.parametrize("accelerator", [None, Accelerator.KVM])
def test_a_guest_that_panics_at_boot_is_lost_at_once(
    new_cell: Callable[..., Cell],
    monkeypatch: pytest.MonkeyPatch,
    accelerator: Accelerator | None,
) -> None:
    """Not when its time is up; and where KVM is known to work, KVM is not to blame."""
    if accelerator:  # every host can run what TCG runs
        options = Accelerator.TCG.options
        monkeypatch.setattr(Accelerator, "options", options)
        monkeypatch.setattr(AcceleratorMemory, "candidates", lambda _: [accelerator])
    started = time.monotonic()
    with pytest.raises(GuestLost, match="panicked: kernel panic: Requested init") as lost:
        new_cell(command_line=("rdinit=/nonexistent", "init=/nonexistent")).testbed()
    assert time.monotonic() - started < 15.0
    assert "Kernel panic - not syncing" in lost.value.message
    (panic,) = find(lost.value.splat or "")
    assert panic.is_fatal


def test_a_kernel_that_refuses_the_devices_is_told(new_cell: Callable[..., Cell]) -> None:
    """It answers, and fits no test: a boot that failed, with what was refused."""
    with pytest.raises(GuestLost, match=r"boot: vfio-pci did not take edu0 .*ENODEV") as lost:
        new_cell(command_line=("initcall_blacklist=vfio_pci_init",)).testbed()
    assert lost.value.splat is None
    assert "its kernel refuses" in str(lost.value)


def test_a_boot_whose_timer_is_lost_is_done_again(
    new_cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TCG loses one now and then; here the first boot only looks so."""
    starts = []

    @contextmanager
    def launched(*arguments: Any) -> Iterator[Running]:
        with launch(*arguments) as running:
            starts.append(running)
            monkeypatch.setattr(
                lab.guest.guest, "TIMER_LOST", _SAID if len(starts) == 1 else _UNSAID
            )
            yield running

    monkeypatch.setattr(lab.guest.guest, "launch", launched)
    guest = new_cell().testbed().guest
    assert guest.ssh.run("true").status == 0
    assert len(starts) == (2 if guest.accelerator is Accelerator.TCG else 1)


def test_a_kernel_that_dies_without_a_word_is_a_lost_guest(
    new_cell: Callable[..., Cell], choice: Choice, tmp_path: Path
) -> None:
    """QEMU did start it: a triple fault before the first line is no fault of QEMU's."""
    image = bytearray(Path(choice.kernel or "").read_bytes())
    entry = (image[0x1F1] + 1) * 512  # Documentation/arch/x86/boot.rst: setup_sects
    image[entry : entry + 2] = b"\x0f\x0b"  # ud2, and there is no table of interrupts yet
    (tmp_path / "bzImage").write_bytes(image)
    started = time.monotonic()
    with pytest.raises(GuestLost, match="it printed nothing"):
        new_cell(kernel=str(tmp_path / "bzImage")).testbed()
    assert time.monotonic() - started < 15.0
