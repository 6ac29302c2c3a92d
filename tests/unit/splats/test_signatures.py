# SPDX-License-Identifier: GPL-2.0-only
"""Each signature finds its example, with the right title and lines, and nothing else is one.

An example's first line says what is to be found: # KIND | TITLE | FIRST-LAST
"""

from pathlib import Path

import pytest

from lab.splats import Kind, find
from lab.splats.signatures import SIGNATURES, recognise

LOGS = Path(__file__).parent / "logs"
EXAMPLES = sorted(path.stem for path in LOGS.glob("*.txt"))
VARIANTS = {
    "amd-fault-named": "amd-fault",
    "dmar-fault-old": "dmar-fault",
    "null-pointer-old": "null-pointer",
    "page-fault-arm64": "page-fault",
    "page-fault-powerpc": "page-fault",
    "rcu-stall-tasks": "rcu-stall",
    "warning-new": "warning",
    "x86-fault-old": "x86-fault",
    "x86-invalid-opcode": "x86-fault",
}
HARMLESS = [
    "Kernel command line: console=ttyS0 panic=-1 oops=panic",
    "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
    "watchdog: Delayed init of the lockup detector failed: -19",
    "DMAR: Intel(R) Virtualization Technology for Directed I/O",
    "DMAR: DRHD: handling fault status reg 2",
    "vfio-pci 0000:00:03.0: resetting",
    "FAULT_INJECTION: forcing a failure.",
    "rcu: Hierarchical RCU implementation.",
    "traps: agent[71] general protection fault ip:401000 sp:7ffc error:0",
    "agent[71]: segfault at 4cb420 ip 00000000004cb420 sp 00007f27fd37a250 error 15",
    "INFO: NMI handler (perf_event_nmi_handler) took too long to run: 2.277 msecs",
    "INFO: lockdep is turned off.",
    "workqueue: round-robin CPU selection forced, expect performance impact",
    "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
    "Warning: could not register block events",
    "mce: [Hardware Error]: Machine check events logged",
    "systemd[1]: Failed to start a WARNING: at that",
    "reboot: Power down",
    "------------[ cut here ]------------",
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_found(name: str) -> None:
    log = (LOGS / f"{name}.txt").read_text()
    kind, title, lines = log.partition("\n")[0].removeprefix("# ").split(" | ")
    found = [(splat.kind, splat.title, f"{splat.first}-{splat.last}") for splat in find(log)]
    assert found == [(Kind(kind), title, lines)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_of_its_signature(name: str) -> None:
    (splat,) = find((LOGS / f"{name}.txt").read_text())
    signature = recognise(splat.headline)
    assert signature
    assert signature.name == VARIANTS.get(name, name)
    assert splat.kind is signature.kind


def test_every_signature_has_an_example_and_no_name_is_twice() -> None:
    names = [signature.name for signature in SIGNATURES]
    assert len(names) == len(set(names))
    assert set(names) | set(VARIANTS) == set(EXAMPLES)


def test_every_kind_has_a_signature() -> None:
    assert {signature.kind for signature in SIGNATURES} == set(Kind)


@pytest.mark.parametrize("line", HARMLESS)
def test_what_is_no_report_is_none(line: str) -> None:
    assert find(f"[    7.000001] {line}\n[    7.000002][   T71] {line}\n") == []
