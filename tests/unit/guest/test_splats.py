# SPDX-License-Identifier: GPL-2.0-only
"""Each report that a kernel makes of its own trouble is found, and nothing else is."""

import pytest

from lab.guest.splats import find

OOPS = """\
[    2.104113] vfio_pci: add [1234:11e8[ffffffff:ffffffff]] class 0x000000/00000000
[    9.213001] BUG: kernel NULL pointer dereference, address: 0000000000000018
[    9.213377] #PF: supervisor read access in kernel mode
[    9.213701] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI
[    9.214102] CPU: 1 UID: 0 PID: 71 Comm: agent Not tainted 6.12.57 #1
[    9.214501] RIP: 0010:vfio_df_ioctl_bind_iommufd+0x3c/0x1a0
[    9.215777] Call Trace:
[    9.216001]  <TASK>
[    9.216222]  vfio_device_fops_unl_ioctl+0x8f/0x120
[    9.216601]  </TASK>
[    9.217333] ---[ end trace 0000000000000000 ]---
[    9.219001] RIP: 0010:vfio_df_ioctl_bind_iommufd+0x3c/0x1a0
[    9.219301] Kernel panic - not syncing: Fatal exception
[    9.219555] ---[ end Kernel panic - not syncing: Fatal exception ]---
"""
KASAN = """\
[   14.700101] ==================================================================
[   14.700513] BUG: KASAN: slab-use-after-free in iommufd_device_unbind+0x41/0x60 [iommufd]
[   14.700913] Read of size 8 at addr ffff888004d3a918 by task agent/92
[   14.701402] Call Trace:
[   14.710000] ==================================================================
"""
WARNING = """\
[   21.000001] ------------[ cut here ]------------
[   21.000321] WARNING: CPU: 0 PID: 80 at drivers/iommu/iommufd/device.c:312 iommufd_attach+0x1f
[   21.000777] Modules linked in:
[   21.001444] ---[ end trace 0000000000000000 ]---
"""
LIST = """\
[   30.100001] list_del corruption. prev->next should be ffff888003a1c2d8, but was dead000000000100
[   30.100305] ------------[ cut here ]------------
[   30.100509] kernel BUG at lib/list_debug.c:62!
[   30.100911] Oops: invalid opcode: 0000 [#1] PREEMPT SMP
[   30.102555] ---[ end trace 0000000000000000 ]---
"""

ONE_LINERS = [
    "BUG: KCSAN: data-race in vfio_group_ioctl / vfio_group_fops_release",
    "BUG: KFENCE: use-after-free read in vfio_device_put+0x10/0x30",
    "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:585",
    "BUG: soft lockup - CPU#0 stuck for 26s! [agent:71]",
    "BUG: Bad page state in process agent  pfn:04d3a",
    "kernel BUG at drivers/vfio/group.c:212!",
    "Oops: general protection fault, probably for non-canonical address 0xdead000000000108: 0000",
    "general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1]",
    "divide error: 0000 [#1] PREEMPT SMP NOPTI",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "UBSAN: array-index-out-of-bounds in drivers/vfio/pci/vfio_pci_config.c:1700:12",
    "refcount_t: underflow; use-after-free.",
    "list_add corruption. next->prev should be prev (ffffffff82a5c2d0), but was 0000000000000000.",
    "watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [agent:77]",
    "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3",
    "INFO: task agent:71 blocked for more than 122 seconds.",
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 21 jiffies",
    "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
]

HARMLESS = [
    "[    0.000000] Linux version 6.12.57 (vfio-lab@vfio-lab) #1 SMP PREEMPT_DYNAMIC",
    "[    0.000000] Kernel command line: console=ttyS0 panic=-1 oops=panic",
    "[    0.120001] NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
    "[    0.120333] watchdog: Delayed init of the lockup detector failed: -19",
    "[    0.222003] DMAR: Intel(R) Virtualization Technology for Directed I/O",
    "[    7.000001] DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0x100000",
    "[    7.100001] vfio-pci 0000:00:03.0: resetting",
    "[    7.200001] FAULT_INJECTION: forcing a failure.",
    "[    7.300001] rcu: Hierarchical RCU implementation.",
    "[    7.400001] traps: agent[71] general protection fault ip:401000 sp:7ffc error:0",
    "BUG: a program says so",
    "PASS: no WARNING: was seen",
]


def titles(console: str) -> list[str]:
    return [splat.title for splat in find(console)]


@pytest.mark.parametrize("line", ONE_LINERS)
def test_a_report_is_found_by_its_first_line(line: str) -> None:
    console = f"[    1.000001] before\n[   10.123456] {line}\n[   10.123999] after\n"
    assert titles(console) == [line]


@pytest.mark.parametrize("line", HARMLESS)
def test_what_is_no_report_is_none(line: str) -> None:
    assert titles(f"{line}\n") == []


@pytest.mark.parametrize("stamp", ["[    3.141592]", "[12345.678901]", "[    3.141592][   T71]",
                                   "[    3.141592][    C1]"])  # fmt: skip
def test_every_form_of_time_is_known(stamp: str) -> None:
    assert titles(f"{stamp} WARNING: suspicious RCU usage\n") == ["WARNING: suspicious RCU usage"]


def test_an_oops_is_one_report_and_the_panic_that_follows_another() -> None:
    oops, panic = find(OOPS)
    assert oops.title == "BUG: kernel NULL pointer dereference, address: 0000000000000018"
    assert "vfio_device_fops_unl_ioctl" in oops.text
    assert oops.text.endswith("---[ end trace 0000000000000000 ]---")
    assert "vfio_pci: add" not in oops.text
    assert panic.title == "Kernel panic - not syncing: Fatal exception"


def test_a_corrupt_list_is_one_report_and_not_three() -> None:
    (splat,) = find(LIST)
    assert splat.title.startswith("list_del corruption")
    assert "kernel BUG at lib/list_debug.c:62!" in splat.text


def test_a_report_without_an_end_is_taken_with_what_follows() -> None:
    (splat,) = find(KASAN)
    assert splat.title.startswith("BUG: KASAN: slab-use-after-free in iommufd_device_unbind")
    assert "Read of size 8" in splat.text


def test_a_report_without_an_end_does_not_swallow_the_console() -> None:
    console = KASAN + "".join(f"[   15.{n:06}] line {n}\n" for n in range(100)) + WARNING
    kasan, warning = find(console)
    assert len(kasan.text.splitlines()) == 60
    assert warning.title.startswith("WARNING: CPU: 0 PID: 80 at drivers/iommu/iommufd/device.c:312")


def test_reports_come_in_order() -> None:
    assert [title[:8] for title in titles(WARNING + LIST)] == ["WARNING:", "list_del"]


def test_a_report_that_is_cut_off_is_still_one() -> None:
    assert titles("[   21.000321] WARNING: CPU: 0 PID: 80 at mm/x.c:1") == [
        "WARNING: CPU: 0 PID: 80 at mm/x.c:1"
    ]
    assert titles("") == []
