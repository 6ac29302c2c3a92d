# SPDX-License-Identifier: GPL-2.0-only
"""From a machine in lab.yaml's neutral words to QEMU's command line."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.config import Device, DeviceModel, Machine
from lab.errors import ConfigurationError, InfrastructureError
from lab.guest.accel import Accelerator
from lab.guest.keys import ARCHIVE, PRIVATE
from lab.guest.qemu import SANDBOX, Qemu

X2APIC = (9, 0)  # the first QEMU whose TCG has it
INITRAMFS = "initramfs"  # in the guest's folder, where QEMU is started

# Firmware need not look for a boot server. And with event indices one kick that TCG loses on a busy
# host (the driver's index moves on, the device waits for it) is the last: the card falls silent
# while the guest lives. Without them every packet kicks again.
CARD = "romfile=,event_idx=off"

COMMAND_LINE = (
    "console=ttyS0",
    "printk.time=1",  # what bears no time is a program's, and no splat
    # With -no-reboot a panic is the guest's end at once; an oops in a system call would leave its
    # locks held and every later test hanging, so it is a panic too.
    "panic=-1",
    "oops=panic",
    # What asks a guest that hangs where it does: see `lab.guest.backtraces`.
    "sysrq_always_enabled",
    "unknown_nmi_panic",
)


@dataclass(frozen=True)
class Knob:
    """What not every QEMU's IOMMU can do: lab.yaml's key for it, and the property by versions."""

    key: str
    meaning: str
    properties: tuple[str, ...]

    def is_turned(self, machine: Machine) -> bool:
        """Whether the machine asks for it."""
        return bool(machine.iommu and getattr(machine.iommu, self.key))


KNOBS = (
    Knob("scalable", "scalable mode", ("scalable-mode", "x-scalable-mode")),
    Knob("first_stage", "first stage", ("fsts", "x-flts")),
)


@dataclass(frozen=True)
class Boot:
    """What one guest is started with."""

    machine: Machine
    kernel: Path
    initramfs: Path
    command_line: tuple[str, ...] = COMMAND_LINE
    extra: tuple[str, ...] = ()  # the user's own words for QEMU
    modules: Path | None = None  # the kernel's, in an archive like the initramfs
    symbols: Path | None = None  # its vmlinux, which names functions
    vmcore: bool = True  # whether the memory of a guest that its kernel lost is kept
    doors: bool = False  # whether other processes may enter it: `lab.guest.doors`

    @property
    def archives(self) -> tuple[Path, ...]:
        """What the guest's kernel unpacks at boot, in this order, after the guest's keys."""
        return (self.modules, self.initramfs) if self.modules else (self.initramfs,)


def present(machine: Machine, qemu: Qemu) -> dict[str, Device]:
    """The machine's devices that this QEMU has. One that it lacks must be optional; what is
    plugged into that one is left out, too. Raises InfrastructureError."""
    found: dict[str, Device] = {}
    for name, device in machine.devices.items():
        if device.bus is not None and device.bus not in found:
            continue
        if device.model in qemu.devices:
            found[name] = device
        elif not device.optional:
            raise InfrastructureError(
                f"device {name}: {qemu.description} has no {device.model}",
                hint="use a newer QEMU (--qemu PATH), or make the device optional in lab.yaml",
            )
    return found


def check(machine: Machine, qemu: Qemu) -> None:
    """Raises InfrastructureError or ConfigurationError, naming what this QEMU has not."""
    present(machine, qemu)
    _knobs(machine, qemu)


def arguments(boot: Boot, qemu: Qemu, accelerator: Accelerator) -> list[str]:
    """QEMU's options for a guest, without its monitor (see `lab.guest.launch`)."""
    machine = boot.machine
    # fmt: off
    return [
        "-nodefaults",
        "-display", "none",
        "-no-reboot",
        # Whose own devices need a program started (a tap's script) says otherwise.
        *(["-sandbox", SANDBOX] if not qemu.unconfined and "-sandbox" not in boot.extra else []),
        *accelerator.options,
        "-m", machine.memory,
        "-smp", str(machine.cpus),
        "-kernel", str(boot.kernel),
        "-initrd", INITRAMFS,
        "-append", " ".join(
            (*boot.command_line, *machine.command_line, *accelerator.command_line)
        ),
        # signal=off: Ctrl-C belongs to whoever started QEMU
        "-chardev", "stdio,id=console,signal=off",
        "-serial", "chardev:console",
        # Hot-plug is the root ports' own, as on real hardware; QEMU leaves it to ACPI.
        "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
        # a panic becomes an event on QMP
        "-device", "pvpanic",
        # the kernel's own note goes into a dump of its memory, without which drgn reads none
        "-device", "vmcoreinfo",
        # every blocked DMA, where the guest's kernel prints ten in five seconds at the most
        *(["-trace", "vtd_dmar_fault"] if machine.iommu else []),
        # it must stand before the devices that it translates for
        *_iommu(machine, qemu, accelerator),
        *_devices(present(machine, qemu)),
        # The lab's own card comes last, so that it moves no device under test; port 0 lets
        # the host choose one that is free.
        "-netdev", "user,id=lab,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
        "-device", f"virtio-net-pci,id=lab-net,netdev=lab,{CARD}",
        *boot.extra,
    ]
    # fmt: on


def script(argv: Sequence[str], *archives: Path) -> str:
    """The same guest, to be started by hand: its console is the terminal."""
    lines: list[str] = []
    for word in argv:
        if word.startswith("-") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    command = " \\\n\t".join([*lines, "-qmp unix:qmp.sock,server=on,wait=off"])
    return (
        "#!/bin/sh\n"
        "# Starts this guest by hand, with its console here and its QMP on ./qmp.sock.\n"
        f"# `info usernet` on QMP's human monitor says where SSH is; the key is ./{PRIVATE}.\n"
        'cd "$(dirname "$0")" || exit\n'
        "umask 077\n"  # for what it makes: the keys in another file, and a socket
        f"cat {ARCHIVE} {shlex.join(map(str, archives))} >{INITRAMFS} || exit\n"
        f'exec {command} "$@"\n'
    )


def _iommu(machine: Machine, qemu: Qemu, accelerator: Accelerator) -> list[str]:
    iommu = machine.iommu
    if not iommu:
        return []
    words = ["intel-iommu", f"intremap={_on(iommu.interrupt_remapping)}"]
    words.append(f"caching-mode={_on(iommu.caching_mode)}")
    words.append(f"aw-bits={iommu.address_width}")
    if iommu.interrupt_remapping and accelerator is Accelerator.TCG and qemu.version >= X2APIC:
        # Without it the guest's kernel stays in xAPIC mode, in which TCG on a busy host was seen to
        # leave an interrupt in service for ever: that CPU takes no other one, not even its timer's.
        words.append("eim=on")
    return ["-device", ",".join(words + _knobs(machine, qemu))]


def _knobs(machine: Machine, qemu: Qemu) -> list[str]:
    words: list[str] = []
    for knob in KNOBS:
        if not knob.is_turned(machine):
            continue
        name = qemu.iommu_property(*knob.properties)
        if not name:
            raise ConfigurationError(
                f"iommu.{knob.key}: {qemu.description} has no {knob.meaning}",
                hint="use a newer QEMU (--qemu PATH), or a machine without it",
            )
        words.append(f"{name}=on")
    return words


def _devices(devices: dict[str, Device]) -> list[str]:
    words: list[str] = []
    on_bus: Counter[str] = Counter()
    for number, (name, device) in enumerate(devices.items(), start=1):
        parts = [device.model.value, f"id={name}"]
        if device.bus:
            parts.append(f"bus={device.bus}")
            on_bus[device.bus] += 1
            if devices[device.bus].model is DeviceModel.PCI_BRIDGE:
                # its hot-plug controller has no slot 0, which QEMU would choose
                parts.append(f"addr={on_bus[device.bus]}")
        match device.model:
            case DeviceModel.EDU:
                # 28 bits by default, and an address above them wraps without a word
                parts.append("dma_mask=0xffffffffffffffff")
            case DeviceModel.ROOT_PORT:
                parts += [f"chassis={number}", f"slot={number}"]
            case DeviceModel.RNG:
                # one that the IOMMU translates for, as it does for the others
                parts += ["iommu_platform=on", "disable-legacy=on"]
            case DeviceModel.E1000 | DeviceModel.IGB:
                parts.append("romfile=")  # firmware need not look for a boot server there
        words += ["-device", ",".join(parts)]
    return words


def _on(value: bool) -> str:
    return "on" if value else "off"
