# SPDX-License-Identifier: GPL-2.0-only
"""KVM where a guest has really booted with it, else TCG.

That /dev/kvm opens, and even that it creates a virtual machine, says nothing: on some hosts QEMU
stops with `internal-error` a moment later. So the first guest tries, and what it learnt is
remembered for this QEMU on this host's kernel.
"""

import os
import platform
from enum import Enum
from pathlib import Path
from typing import Any

from lab.cache import Cache
from lab.guest.qemu import Qemu

KVM_NODE = Path("/dev/kvm")


class Accelerator(Enum):
    """What runs a guest's instructions; the value is for people."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def options(self) -> list[str]:
        """QEMU's options for it."""
        if self is Accelerator.KVM:
            # interrupt remapping needs the interrupt controller split between KVM and QEMU
            return ["-machine", "q35,kernel-irqchip=split", "-accel", "kvm", "-cpu", "host"]
        return ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]

    @property
    def command_line(self) -> tuple[str, ...]:
        """What the guest's kernel has to be told for it."""
        # On a busy host TCG loses a one-shot timer now and then, and a CPU without its timer
        # sleeps for ever ("Possible timer handling issue"). A periodic tick comes again. Nor does
        # the boot's check of the timer ("doesn't work through Interrupt-remapped IO-APIC") fail
        # for any other reason there; under KVM the kernel leaves it out by itself.
        tcg = ("nohz=off", "highres=off", "no_timer_check")
        return () if self is Accelerator.KVM else tcg


def kvm_obstacle() -> str | None:
    """Why KVM cannot even be tried, or None."""
    if not KVM_NODE.exists():
        return f"{KVM_NODE} does not exist"
    if not os.access(KVM_NODE, os.R_OK | os.W_OK):
        return f"{KVM_NODE} may not be opened by this user"
    return None


class Memory:
    """What is known about KVM with one QEMU on this host."""

    def __init__(self, cache: Cache, qemu: Qemu) -> None:
        self._cache = cache
        self._identity: dict[str, Any] = {
            "qemu": str(qemu.path),
            "version": qemu.description,
            "host": platform.release(),
        }

    def candidates(self) -> list[Accelerator]:
        """What to try, in this order."""
        if kvm_obstacle():
            return [Accelerator.TCG]
        known = self.known()
        if known is None:
            return [Accelerator.KVM, Accelerator.TCG]
        return [Accelerator.KVM] if known["kvm"] else [Accelerator.TCG]

    def known(self) -> dict[str, Any] | None:
        """{"kvm": bool, "why": str}, or None where no guest has tried yet."""
        return self._cache.recall("kvm", self._identity)

    def forget(self) -> None:
        """Let the next guest try again."""
        self._cache.forget("kvm", self._identity)

    def learn(self, *, kvm: bool, why: str) -> None:
        """A guest has tried: say whether it booted."""
        self._cache.remember("kvm", self._identity, {"kvm": kvm, "why": why})
