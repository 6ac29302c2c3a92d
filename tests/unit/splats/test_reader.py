# SPDX-License-Identifier: GPL-2.0-only
"""Reports are cut out of a log: where they begin and end, and whose lines they are."""

import re
import time

import pytest

from lab.splats import Kind, Splat, find

WARNING = """\
------------[ cut here ]------------
WARNING: CPU: 0 PID: 80 at drivers/iommu/iommufd/device.c:312 iommufd_attach+0x1f/0x30
Modules linked in:
CPU: 0 UID: 0 PID: 80 Comm: agent Not tainted 6.12.57 #1
RIP: 0010:iommufd_attach+0x1f/0x30
Call Trace:
 <TASK>
 iommufd_fops_ioctl+0x1a2/0x250
 </TASK>
---[ end trace 0000000000000000 ]---
"""
OOPS = """\
BUG: kernel NULL pointer dereference, address: 0000000000000018
#PF: supervisor read access in kernel mode
Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI
CPU: 1 UID: 0 PID: 71 Comm: agent Not tainted 6.12.57 #1
RIP: 0010:vfio_df_open+0x3c/0x1a0
Call Trace:
 <TASK>
 vfio_device_fops_unl_ioctl+0x8f/0x120
 </TASK>
---[ end trace 0000000000000000 ]---
RIP: 0010:vfio_df_open+0x3c/0x1a0
"""
PANIC = """\
Kernel panic - not syncing: Fatal exception
Kernel Offset: disabled
---[ end Kernel panic - not syncing: Fatal exception ]---
"""
HUNG = """\
INFO: task agent:90 blocked for more than 122 seconds.
      Not tainted 6.12.57 #1
"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.
task:agent           state:D stack:0     pid:90    tgid:90    ppid:1      flags:0x00004002
Call Trace:
 <TASK>
 __schedule+0x3a1/0x9c0
 schedule+0x2b/0x90
 vfio_unregister_group_dev+0x12/0x40
 </TASK>
"""
NULL = "BUG: unable to handle kernel NULL pointer dereference in vfio_df_open"
ATTACH = "WARNING in iommufd_attach"
UNREGISTER = "INFO: task hung in vfio_unregister_group_dev"


def printed(text: str, caller: str = "", start: float = 10.0, step: float = 0.001) -> list[str]:
    """Its lines as the kernel prints them, with times and, where one is named, a caller."""
    who = f"[{caller:>6}]" if caller else ""
    return [f"[{start + n * step:12.6f}]{who} {line}" for n, line in enumerate(text.splitlines())]


def mixed(*printed_by: list[str]) -> str:
    """In the order of their times, as on a console."""
    return "\n".join(sorted((line for lines in printed_by for line in lines), key=lambda x: x[:14]))


def titles(log: str) -> list[str]:
    return [splat.title for splat in find(log)]


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "[    3.141592] ",
        "[12345.678901] ",
        "[    3.141592][   T71] ",
        "[    3.141592][    C1] ",
        "[    3.141592] [   T71] ",
        "<4>[    3.141592] ",
        "<4>[    3.141592][   T71] ",
        "[    3.141592] <0>",
        "[Sun Nov 22 10:00:00 2026] ",
        "Nov 22 10:00:00 host kernel: ",
        "Nov  2 10:00:00 host kernel: [    3.141592] ",
        "Nov 22 10:00:00 host kernel: [    3.141592][   T71] ",
        "2026-11-22T10:00:00.123456+01:00 host kernel: ",
        "2026-11-22T10:00:00+0000 host kernel: [    3.141592] ",
        "[    3.141592] host kernel: ",
        "login: [    3.141592] ",
        "[    3.141592 <    0.000012>] ",  # dmesg -d, -T -d, --time-format=delta, iso, -x, -H
        "[Sun Nov 22 10:00:00 2026 <    0.000012>] ",
        "[<    0.000012>] ",
        "2026-11-22T10:00:00,123456+01:00 ",
        "kern  :warn  : [    3.141592] ",
        "kern  :warn  : [Sun Nov 22 10:00:00 2026] ",
        "[Nov22 10:00] ",
        "[  +0.000123] ",
        "Nov 22 10:00:00.123456 host kernel: ",  # journalctl -o short-precise, -full, -unix
        "Sun 2026-11-22 10:00:00 UTC host kernel: ",
        "2026-11-22T10:00:00+01:00 host kernel: ",
        "1795341600.123456 host kernel: ",
        "Nov 22 10:00:00 host kern.warn kernel: [    3.141592] ",  # busybox, OpenWrt
        "Sun Nov 22 10:00:00 2026 kern.warn kernel: [    3.141592] ",
        "2026-11-22T10:00:00.123456Z [    3.141592] ",  # what a CI writes before the console's
        "[2026-11-22 10:00:00.123] [    3.141592] ",
        "4,1234,3141592,-;",  # /dev/kmsg, netconsole's extended format
        "6.12.57,4,1234,3141592,-,caller=T71;",
        "\x1b[32m[    3.141592] \x1b[0m\x1b[33m",
        "> ",  # quoted in a mail
        "> > [    3.141592] ",
        ">> ",
        "    ",
        "> \t",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_every_prefix_is_read(prefix: str, end: str) -> None:
    log = "".join(f"{prefix}{line}{end}" for line in ["before", *WARNING.splitlines(), "after"])
    (splat,) = find(log)
    assert (splat.kind, splat.title, splat.first, splat.last) == (Kind.WARNING, ATTACH, 2, 11)
    assert splat.headline == WARNING.splitlines()[1]
    plain = re.sub(r"\x1b\[\d+m", "", prefix)
    assert splat.text == "\n".join(f"{plain}{line}" for line in WARNING.splitlines())


def test_what_bears_no_time_is_a_programs() -> None:
    assert titles("[    1.000000] boot\nBUG: a program says so\n") == []
    assert titles("BUG: a program says so\n") == ["BUG: a program says so"]
    assert find("BUG: a program says so\n", stamped=True) == []


def test_a_programs_words_in_a_report_are_left_out() -> None:
    lines = printed(WARNING)
    (splat,) = find("\n".join([*lines[:5], "a program's", *lines[5:]]))
    assert splat.text == "\n".join(lines)
    assert (splat.first, splat.last) == (1, 11)


def test_a_panic_belongs_to_the_oops_that_brought_it() -> None:
    (splat,) = find(mixed(printed(OOPS + "note: agent[71] exited\n" + PANIC, "T71")))
    assert splat.title == NULL
    assert splat.is_fatal
    assert splat.last == 15


def test_the_registers_that_follow_an_oops_belong_to_it() -> None:
    (splat,) = find(mixed(printed(OOPS + "vfio-pci 0000:00:05.0: resetting\n", "T71")))
    assert (splat.first, splat.last) == (1, 11)
    assert not splat.is_fatal


def test_a_panic_of_somebody_else_is_its_own() -> None:
    log = mixed(printed(OOPS, "T71"), printed(PANIC, "T1", start=10.1))
    assert titles(log) == [NULL, "kernel panic: Fatal exception"]


def test_a_panic_long_after_is_its_own() -> None:
    log = mixed(printed(OOPS, "T71"), printed(PANIC, "T71", start=60.0))
    assert titles(log) == [NULL, "kernel panic: Fatal exception"]


def test_a_warning_inside_an_oops_is_part_of_it() -> None:
    head, call, tail = OOPS.partition(" vfio_device_fops_unl_ioctl+0x8f/0x120\n")
    (splat,) = find(mixed(printed(head + call + WARNING + tail + PANIC, "T71")))
    assert splat.title == NULL
    assert splat.last == 24


def test_reports_of_two_callers_are_told_apart() -> None:
    first, second = printed(OOPS, "T71"), printed(HUNG, "T31", start=10.0005)
    oops, hung = find(mixed(first, second))
    assert (oops.title, oops.text) == (NULL, "\n".join(first))
    assert (hung.title, hung.text) == (UNREGISTER, "\n".join(second))
    assert (oops.first, oops.last, hung.first, hung.last) == (1, 21, 2, 20)


def test_a_hang_between_is_a_report_of_its_own_without_callers_too() -> None:
    head, tail = OOPS.split(" </TASK>\n")
    assert titles(mixed(printed(head + HUNG + tail))) == [NULL, UNREGISTER]


def test_two_hung_tasks_are_two_reports() -> None:
    again = HUNG.replace("vfio_unregister_group_dev", "vfio_df_close")
    assert titles(mixed(printed(HUNG + again, "T31"))) == [
        UNREGISTER, "INFO: task hung in vfio_df_close"]  # fmt: skip


def test_two_warnings_are_two_reports_even_where_the_first_has_no_end() -> None:
    cut = WARNING.replace("---[ end trace 0000000000000000 ]---\n", "")
    for caller in ("T71", ""):
        first, second = find(mixed(printed(cut + WARNING, caller)))
        assert (first.first, first.last, second.first, second.last) == (1, 9, 10, 19)


def test_backtraces_of_other_cpus_belong_to_the_stall() -> None:
    stall = printed("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n"
                    "rcu: \t1-...0: (1 GPs behind) idle=1234/1/0x4000000000000000\n"
                    "Sending NMI from CPU 0 to CPUs 1:\n", "C0")  # fmt: skip
    other = printed("NMI backtrace for cpu 1\nRIP: 0010:vfio_pin_map_dma+0x3c/0x1a0\nCall Trace:\n"
                    " <TASK>\n vfio_pin_map_dma+0x1a2/0x250\n </TASK>\nunrelated\n",
                    "C1", start=10.5)  # fmt: skip
    (splat,) = find(mixed(stall, printed("unrelated", "T9", start=10.2), other))
    assert splat.title == "INFO: rcu detected stall in vfio_pin_map_dma"
    assert splat.text == "\n".join([*stall, *other[:-1]])


def test_a_backtrace_that_was_asked_for_is_no_report() -> None:
    words = (
        "sysrq: Show backtrace of all active CPUs\nNMI backtrace for cpu 1\nCall Trace:\n f+0x1/0x2"
    )
    assert titles(mixed(printed(words, "C1"))) == []


@pytest.mark.parametrize("caller", ["T71", ""])
def test_a_report_without_an_end_ends_where_it_evidently_does(caller: str) -> None:
    cut = WARNING.replace("---[ end trace 0000000000000000 ]---\n", "")
    log = mixed(printed(cut + "".join(f"vfio-pci line {n}\n" for n in range(100)), caller))
    (splat,) = find(log)
    assert (splat.first, splat.last) == (1, 9)


def test_a_report_ends_where_its_caller_falls_silent() -> None:
    kasan = (
        "BUG: KASAN: slab-use-after-free in vfio_df_open+0x41/0x60\nRead of size 8 at addr ffff8880"
    )
    log = mixed(printed(kasan, "T71"), printed("CPU: 0 much later", "T71", start=60.0))
    (splat,) = find(log)
    assert (splat.first, splat.last) == (1, 2)


def test_one_line_in_the_middle_of_a_report_is_its_own() -> None:
    fault = "DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr 0x100000\n"
    head, tail = WARNING.split("Call Trace:\n")
    warning, dma = find(mixed(printed(head + fault + "Call Trace:\n" + tail)))
    assert (warning.title, warning.first, warning.last) == (ATTACH, 1, 11)
    assert (dma.kind, dma.title, dma.first) == (Kind.DMA_FAULT, "DMA Write of 00:05.0 blocked", 6)


def test_a_report_that_is_cut_off_is_still_one() -> None:
    (splat,) = find("[   21.000321] WARNING: CPU: 0 PID: 80 at mm/x.c:1")
    assert (splat.title, splat.first, splat.last) == ("WARNING", 1, 1)
    assert find("") == []


@pytest.mark.parametrize(
    ("log", "reboots"),
    [
        ("[    0.000000] Linux version 6.12.57\n[    1.000000] up\n", 0),
        ("[    0.000000] Linux version 6.12.57\n[    5.000000] up\n"
         "[    0.000000] Linux version 6.12.57\n", 1),
        ("[   99.000000] up\n[    0.000000] Linux version 6.12.57\n", 1),
        ("[    0.000000] Booting Linux on CPU 0\n[    0.000000] Linux version 6.12.57\n", 0),
        ("[    0.000000] Linux version 6.12.57\n[    9.000000] reboot: Restarting system\n"
         "[    0.000000] Linux version 6.12.57\n", 0),
        ("Nov 22 10:00:00 host kernel: Linux version 6.12.57\n"
         "Nov 23 10:00:00 host kernel: Linux version 6.12.57\n", 0),
    ],
)  # fmt: skip
def test_a_second_boot_that_nothing_announced_is_told(log: str, reboots: int) -> None:
    assert titles(log) == ["unexpected reboot"] * reboots


def test_a_title_is_the_same_in_the_next_boot_and_build() -> None:
    def built(offset: str, line: str, address: str, pid: str) -> Splat:
        log = f"""\
BUG: KASAN: slab-use-after-free in vfio_df_open{offset}
Read of size 8 at addr {address} by task agent/{pid}
CPU: 0 UID: 0 PID: {pid} Comm: agent Not tainted 6.12.57 #{line}
Call Trace:
 kasan_report.cold.7+0xb/0x20
 vfio_df_open.isra.0{offset}
"""
        return find(log)[0]

    one = built("+0x41/0x60", "1", "ffff888004d3a918", "71")
    other = built("+0x33/0x50", "2", "ffff88800413a918", "8122")
    assert one.title == other.title == "KASAN: slab-use-after-free Read in vfio_df_open"


@pytest.mark.parametrize(
    "line",
    [
        "x" * 200,
        "[    1.000000][   T71] DMAR: DRHD: handling fault status reg 2 " + "y" * 150,
        "[    1.000000][   T71] a: b: c: d " + ": e" * 60,
        "[    1.000000][   T71] " + "[<ffffffff81>] " * 15,
        " ".join(WARNING.splitlines())[:200],
    ],
)
def test_a_flood_is_read_quickly(line: str) -> None:
    log = f"{line}\n" * (2_000_000 // len(line))
    began = time.process_time()
    find(log, stamped=True)
    assert time.process_time() - began < 2.0  # 0.1 s for these 2 MB where nothing else runs


def test_a_flood_of_reports_is_read_quickly() -> None:
    log = mixed(printed(WARNING * 2000, "T71"))
    began = time.process_time()
    assert len(find(log)) == 2000
    assert time.process_time() - began < 5.0


def test_a_warning_inside_an_oops_does_not_end_it() -> None:
    """What follows the warning's own end is still the oops: it has lines no other report has."""
    head, call, tail = OOPS.partition(" vfio_device_fops_unl_ioctl+0x8f/0x120\n")
    log = mixed(printed(head + call + WARNING + "a line of its own\n" + tail, "T71"))
    assert [(splat.title, splat.last) for splat in find(log)] == [(NULL, 22)]


def test_a_foreign_line_in_a_call_trace_does_not_end_it_where_nobody_is_named() -> None:
    head, tail = HUNG.split(" schedule+0x2b/0x90\n")
    log = mixed(printed(head + "eth0: link is up\n schedule+0x2b/0x90\n" + tail + "eth0: 1\n" * 9))
    assert [(splat.title, splat.first, splat.last) for splat in find(log)] == [(UNREGISTER, 1, 11)]


def test_after_its_call_trace_a_callers_next_line_is_none_of_the_report() -> None:
    log = mixed(printed(HUNG + "eth0: link is up\n __schedule+0x3a1/0x9c0\n", "T31"))
    assert [splat.last for splat in find(log)] == [10]


def test_a_backtrace_after_another_report_is_none_of_it() -> None:
    log = mixed(printed(WARNING, "T71"),
                printed("NMI backtrace for cpu 1\nCPU: 1", "C1", start=10.5))  # fmt: skip
    assert [splat.last for splat in find(log)] == [10]


@pytest.mark.parametrize(
    ("cache", "told"),
    [
        ("kmalloc-96", "kmalloc-96"),
        ("kmalloc-rnd-05-64", "kmalloc"),
        ("bio-136(252:0)", "bio-136"),
        (":A-0000192", "A-"),
    ],
)
def test_a_slab_cache_has_the_name_of_every_boot(cache: str, told: str) -> None:
    """mm/slub.c: slab_bug(); mm/slab_common.c: kmalloc_caches, with RANDOM_KMALLOC_CACHES."""
    assert titles(f"[    1.000000] BUG {cache} (Tainted: G    B): Poison overwritten\n") == [
        f"BUG {told}: Poison overwritten"
    ]


def test_what_a_mail_says_after_a_report_is_none_of_it() -> None:
    (splat,) = find(HUNG + "\nThis came with the second device.\n\nAny idea?\n\nThanks\n")
    assert splat.last == len(HUNG.splitlines())


def test_an_address_in_brackets_is_no_time() -> None:
    """32-bit arm prints "[<80192868>] (f) from [<80118054>] (g+0x1/0x2)"."""
    trace = "[<80192868>] (vfio_df_close) from [<80118054>] (vfio_device_put+0x60/0xdc)\n"
    (splat,) = find("INFO: task agent:90 blocked for more than 122 seconds.\nBacktrace: \n" + trace)
    assert splat.title == "INFO: task hung in vfio_df_close"


def test_a_panic_without_an_end_belongs_to_its_fault() -> None:
    """s390 ends an oops with the panic's line."""
    cut = OOPS.partition("---[ end")[0] + "Kernel panic - not syncing: Fatal exception"
    (splat,) = find(mixed(printed(cut)))
    assert splat.is_fatal


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("pc : [<ffffffdeadbeef>] lr : [<ffffff90080ed944>] pstate: 60400145", "vfio_caller"),
        ("epc: ffffffe000207654 ra : ffffffe000207654 sp : ffffffe00b777cd0", "vfio_caller"),
        ("PC is at 0x0\nLR is at vfio_other+0x1/0x2", "vfio_caller"),
        ("pc 9000000000f4a3c4 ra 9000000000f4a3b8\n  ERA: 9000000000f4a3c4 vfio_df_open+0x3c/0x1a0",
         "vfio_df_open"),
        ("epc : vfio_df_open+0x3c/0x1a0\n ra : vfio_other+0x20/0x1a0", "vfio_df_open"),
        ("epc   : 8058a3c4 vfio_df_open+0x3c/0x1a0", "vfio_df_open"),
        ("NIP [c008000000123456] vfio_df_open+0x3c/0x1a0 [vfio]", "vfio_df_open"),
        ("RIP: 0010:vfio_df_open drivers/vfio/vfio_main.c:1 [inline]", "vfio_df_open"),
        ("RIP: 0010:__x64_sys_mremap+0x3c/0x1a0", "sys_mremap"),
        ("Register r0 information: slab kmalloc-512 start 84e11000\n" * 25 + "8058: 12345678",
         "vfio_caller"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_the_instruction_pointer_and_no_other(lines: str, told: str) -> None:
    what = "nable to handle kernel NULL pointer dereference"
    log = f"U{what} at 0\n{lines}\nCall trace:\n vfio_caller+0x1/0x2\n"
    assert titles(log) == [f"BUG: u{what} in {told}"]


@pytest.mark.parametrize(
    "headline",
    [
        "WARNING: CPU: 1 PID: 5 at vfio/group.c:1 vfio_inner vfio/group.c:1 [inline]",
        "BUG: KFENCE: use-after-free read in vfio_inner vfio/group.c:1 [inline]",
    ],
)
def test_a_decoded_headline_names_the_inlined_function(headline: str) -> None:
    """As scripts/decode_stacktrace.sh and syzbot print them, each with the outer one's after it."""
    outer = headline.replace("vfio_inner", "vfio_outer+0x12/0x34").replace(" [inline]", "")
    (splat,) = find(f"{headline}\n{outer}\nCall Trace:\n vfio_caller+0x1/0x2 x.c:1\n")
    assert splat.title.endswith(" in vfio_inner")


def test_two_blocked_transfers_are_two_reports() -> None:
    one = """\
arm-smmu-v3 arm-smmu-v3.0.auto: event 0x10 received:
arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000000800000010
arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000020800000000
"""
    assert titles(mixed(printed(one * 2))) == ["DMA blocked"] * 2


@pytest.mark.parametrize("pointer", ["00000000f1b4b3c1", "ffff888004d3a900"])
def test_a_dentry_in_use_has_the_title_of_every_boot(pointer: str) -> None:
    """fs/dcache.c: umount_check()."""
    log = (
        f"BUG: Dentry {pointer}{{i={pointer[-3:]},n=lo}}  still in use (1) [unmount of proc proc]\n"
    )
    assert titles(log) == ["BUG: Dentry of proc still in use"]


@pytest.mark.parametrize("build", ["hgDM7dBCdno", "43vyB533jt3"])
def test_a_function_in_rust_has_the_name_of_every_build(build: str) -> None:
    symbol = f"_RNvMs3_NtCs{build}_11rust_binder7processNtB5_7Process10update_ref"
    log = (
        "rust_kernel: panicked at drivers/android/binder/process.rs:1:2:\nCall Trace:\n"
        f" _RNvCs{build}_7___rustc17rust_begin_unwind+0x1/0x2\n"
        f" _RNvNtCs{build}_4core9panicking9panic_fmt+0x1/0x2\n {symbol}+0x1/0x2\n"
    )
    assert titles(log) == ["Rust panic in rust_binder::process::Process::update_ref"]
