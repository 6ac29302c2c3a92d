# SPDX-License-Identifier: GPL-2.0-only
"""A guest: one boot of a kernel and an image on a machine."""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.config import Device
from lab.deadline import Deadline
from lab.errors import GuestLost, InfrastructureError
from lab.guest import doors
from lab.guest.accel import Accelerator, Memory
from lab.guest.argv import INITRAMFS, Boot, arguments, present, script
from lab.guest.faults import DmarFault, FaultLog
from lab.guest.hang import whereabouts
from lab.guest.keys import Keys, store_private
from lab.guest.launch import ENDED, PANICKED, Running, launch
from lab.guest.loop import Loop
from lab.guest.lost import Finding, Inquest
from lab.guest.qemu import Qemu
from lab.proc import room_in

if TYPE_CHECKING:
    from lab.guest.ssh import Admission, Connection

READY = "vfio-lab: ready"  # what the image's init prints once its SSH server listens
TIMER_LOST = "Possible timer handling issue on cpu="  # what RCU makes of it, after 21 s
_TRIAL = 20.0  # seconds in which the first guest with KVM on a host is ready; elsewhere it takes 2
_ASKING = 5.0  # seconds
_ANSWER = 5.0  # seconds in which a guest that lives runs `true`
# oops=panic makes the first one the kernel's end: where a second one comes, and no panic after
# either, the kernel fails while it tells of its failure, and would go on until somebody kills it.
_OOPS_AGAIN = re.compile(rb": [0-9a-f]{4} \[#(?:[2-9]|[1-9][0-9]+)\]")
DYING = 10.0  # seconds for that panic
_LOOKS, _BETWEEN = 3, 0.1  # at its clock, and seconds


@dataclass(frozen=True)
class Hypervisor:
    """What starts guests on this host."""

    qemu: Qemu
    memory: Memory  # of whether KVM works
    loop: Loop


class TimerLost(Exception):
    """TCG lost the timer of a CPU: nothing is wrong with the kernel, and its next boot is fine."""


class KvmUnusable(Exception):
    """KVM stopped the guest, or gets nowhere: nothing is wrong with the kernel."""


class Guest:
    """A guest that let us in. See `boot`."""

    def __init__(
        self,
        devices: Mapping[str, Device],
        accelerator: Accelerator,
        running: Running,
        inquest: Inquest,
        ssh: "Connection",
        admission: "Admission",
        seconds: Mapping[str, float],
        repeats: int,
    ) -> None:
        self.accelerator = accelerator
        self.console = running.console
        self.monitor = running.monitor
        self.ssh = ssh
        self.admission = admission
        """What let us in, and lets in whoever else has it."""
        self.seconds = seconds
        """Seconds from QEMU's start until init was `ready` and until the `login`."""
        self.repeats = repeats
        """How often it was booted before, and TCG lost a timer."""
        self.devices = devices
        """The devices under test by their role."""
        self.addresses = _addresses(running)
        """Role to PCI address ("0000:01:00.0"), as the guest's kernel numbered the buses."""
        self.heard = 0
        """Bytes of its console that somebody has answered for: a test, or the run."""
        self._faults = FaultLog(running.log)
        self.faults_heard = 0
        """The same of `faults()`, in number."""
        self._running = running
        self._inquest = inquest
        self._finding: Finding | None = None
        self._paused = False
        # QEMU stays when the guest has ended: who waits for an answer would wait in vain.
        running.monitor.when((PANICKED, ENDED), ssh.cut)
        running.console.when(_OOPS_AGAIN, self._expect_end)

    def _expect_end(self) -> None:
        """On the guests' thread: the panic that an oops is has to come now."""

        def end() -> None:
            if not self._running.sign_of_death:
                self._running.circling.set()
                self.console.wake()
                self.ssh.cut()

        asyncio.get_running_loop().call_later(DYING, end)

    @property
    def pid(self) -> int:
        """Its QEMU's process."""
        return self._running.process.pid

    @property
    def folder(self) -> Path:
        """Where its console, its command line and its QEMU's log are."""
        return self.console.path.parent

    def pause(self) -> None:
        """Let its processors and its clock stand until it is resumed, if they are emulated: their
        ticks cost the host 6 % of a processor while nothing happens. Raises GuestLost."""
        if self.accelerator is Accelerator.TCG:
            self.monitor.execute("stop")
            self._paused = True

    def resume(self) -> None:
        """Let it run on if it was paused. Raises GuestLost."""
        if self._paused:
            self.monitor.execute("cont")
            self._paused = False

    def faults(self, start: int = 0) -> list[DmarFault]:
        """Every DMA that the IOMMU has blocked so far, in order, but for the first `start`."""
        return self._faults.since(start)

    @property
    def fault_count(self) -> int:
        """How many that are."""
        return self._faults.count

    def stuck_interrupt(self) -> str | None:
        """What keeps an emulated CPU from taking interrupts, in words, or None."""
        return self._inquest.stuck_interrupt()

    def printed_since(self, start: int) -> str:
        """What is on the console from byte `start` on, all of what was printed before this call."""
        self._running.settle()
        return self.console.text(start)

    def hear(self, start: int) -> str:
        """The same, and from now on that much is `heard`: what comes while somebody still looks at
        it is not."""
        self._running.settle()
        self.heard = self.console.size
        return self.console.text(start, self.heard)

    @property
    def alive(self) -> bool:
        """Whether nothing has been heard of its end."""
        return not self._running.sign_of_death and self.ssh.alive and not self._finding

    def why_lost(self, last_act: str) -> GuestLost:
        """The error for a guest that failed to do `last_act`, with the kernel's report if any.

        It is asked where it hangs, and ends with that; this may take `hang.ASKING` seconds, and a
        dump of its memory `vmcore.DUMPING`.
        """
        if not self._finding:
            self._finding = self._inquest.find_out(connected=self.ssh.alive)
        return self._finding.error(last_act)

    def silent(self, when: str) -> GuestLost | None:
        """The error for a guest that is gone, does not answer, or whose clock stands; None where it
        lives.

        Who waited for it in vain asks, `when` that was being the first words of the error.
        """
        if not self.alive:
            return self.why_lost(when)
        try:
            self.ssh.run("true", timeout=_ANSWER)
            if not self.clock_goes():
                return GuestLost(f"{when}: the guest answers, but its clock stands")
        except GuestLost as silent:
            return self.why_lost(f"{when}: {silent.message}")
        stuck = self.stuck_interrupt()
        return GuestLost(f"{when}: {stuck}") if stuck else None

    def clock_goes(self) -> bool:
        """Whether its clock moves on: without one no sleep ends there. Raises GuestLost."""
        first = self._uptime()
        for _ in range(_LOOKS):
            time.sleep(_BETWEEN)
            if self._uptime() != first:
                return True
        return False

    def _uptime(self) -> str:
        """Seconds, with two decimals (fs/proc/uptime.c)."""
        return self.ssh.run("cat", "/proc/uptime").output.partition(" ")[0]

    def whereabouts(self, pid: int) -> str:
        """Where a process is that does not come back, in words; "" where that cannot be told."""
        return whereabouts(self._running, pid, Deadline.after(_ASKING))


@contextmanager
def boot(order: Boot, hypervisor: Hypervisor, folder: Path, deadline: Deadline) -> Iterator[Guest]:
    """Boot a guest, log in, and end it with the `with` block.

    `folder` gets its console, its command line, its keys. Raises GuestLost (with the kernel's
    report, or the last lines of the console) when the guest does not come up, and
    InfrastructureError when QEMU refuses to start.
    """
    memory = hypervisor.memory
    refused = ""
    repeats = 0
    candidates = memory.candidates()
    while candidates:
        accelerator = candidates.pop(0)
        trial = bool(candidates)
        with ExitStack() as stack:
            try:
                guest = stack.enter_context(
                    _boot_with(accelerator, order, hypervisor, folder, deadline, repeats, trial)
                )
            except KvmUnusable as error:
                refused = str(error)
                continue
            except TimerLost:
                candidates.insert(0, accelerator)  # until its time is up
                repeats += 1
                continue
            if refused:
                memory.learn(kvm=False, why=refused)
            elif accelerator is Accelerator.KVM:
                memory.learn(kvm=True, why="a guest booted")
            yield guest
            return
    raise InfrastructureError(
        f"KVM worked on this host and no longer does: {refused}",
        hint="`vfio-lab doctor --probe` tries it again",
    )


@contextmanager
def _boot_with(
    accelerator: Accelerator,
    order: Boot,
    hypervisor: Hypervisor,
    folder: Path,
    deadline: Deadline,
    repeats: int,
    trial: bool,
) -> Iterator[Guest]:
    """With `trial` nobody knows yet whether the accelerator works on this host."""
    keys = Keys.make()
    options = arguments(order, hypervisor.qemu, accelerator)
    by_hand = folder / "qemu.sh"
    initramfs = folder / INITRAMFS
    with room_in(folder):
        keys.store(folder)
        by_hand.write_text(script([str(hypervisor.qemu.path), *options], *order.archives))
        by_hand.chmod(0o755)
        whole = keys.archive + b"".join(a.read_bytes() for a in order.archives)
        store_private(initramfs, whole)
    devices = present(order.machine, hypervisor.qemu)
    started = time.monotonic()
    with ExitStack() as stack:
        if order.doors:
            stack.enter_context(doors.framed(folder))
            options = [*options, *doors.options()]
        running = stack.enter_context(
            launch(hypervisor.loop, hypervisor.qemu.path, options, folder)
        )
        # Loading paramiko takes as long as the firmware does: do both at once.
        from lab.guest.ssh import Admission, Connection  # noqa: PLC0415

        inquest = Inquest(running, order, emulated=accelerator is Accelerator.TCG)
        try:
            if trial:
                _try_out(running, deadline.within(_TRIAL))
            _await_ready(inquest, deadline)
        finally:
            initramfs.unlink()  # large, and qemu.sh makes it again
        ready = time.monotonic() - started
        try:
            admission = Admission(_ssh_port(running), keys.private, keys.host_public)
            connection = Connection.login(admission, deadline)
            stack.callback(connection.close)
            times = {"ready": ready, "login": time.monotonic() - started}
        except GuestLost as error:
            raise inquest.boot_failed(error.message).error("boot") from error
        yield Guest(devices, accelerator, running, inquest, connection, admission, times, repeats)


def _try_out(running: Running, deadline: Deadline) -> None:
    """Raises KvmUnusable for a guest that neither is ready by then nor has come to an end: it may
    turn in its firmware for ever, without a word."""
    console, monitor = running.console, running.monitor
    ends = (PANICKED, ENDED, "STOP")

    def decided() -> bool:
        return READY in console.text() or any(monitor.saw(event) for event in ends)

    if not console.wait_until(decided, deadline) and not console.ended:
        words = console.text().strip().rpartition("\n")[2] or "nothing"
        raise KvmUnusable(
            f"a guest was not ready within {deadline.seconds:.0f} s; the last it said was: {words}"
        )


def _await_ready(inquest: Inquest, deadline: Deadline) -> None:
    running, emulated = inquest.running, inquest.emulated
    console = running.console

    def decided() -> bool:
        text = console.text()
        timer_lost = emulated and TIMER_LOST in text
        return READY in text or timer_lost or running.monitor.saw("STOP")

    console.wait_until(decided, deadline)
    if READY in console.text():
        return
    if emulated and TIMER_LOST in console.text() and not deadline.passed:
        raise TimerLost
    # QEMU ends by itself only where it refuses: a guest that has ended stays in it.
    refused = console.ended and running.process.wait() != 0
    if not emulated and (running.stopped_inside or refused):
        why = running.complaint().strip() or "QEMU stopped in the run state internal-error"
        raise KvmUnusable(why)
    if refused and not console.text().strip():
        raise InfrastructureError(
            f"QEMU refuses to start:\n{running.complaint()}",
            hint=f"its command line is {console.path.parent / 'qemu.sh'}",
        )
    raise inquest.boot_failed(f"no login within {deadline.seconds:.0f} s").error("boot")


def _ssh_port(running: Running) -> int:
    table = running.monitor.human("info usernet")
    match = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", table)
    if not match:
        raise InfrastructureError(f"QEMU does not say which port SSH has:\n{table}")
    return int(match[1])


def _addresses(running: Running) -> dict[str, str]:
    """Every device's address by its id, bridges' children too."""

    def walk(devices: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
        for device in devices:
            place = (device["bus"], device["slot"], device["function"])
            yield device["qdev_id"], "0000:{:02x}:{:02x}.{}".format(*place)
            yield from walk(device.get("pci_bridge", {}).get("devices", []))

    buses = running.monitor.execute("query-pci")
    return {name: address for bus in buses for name, address in walk(bus["devices"]) if name}
