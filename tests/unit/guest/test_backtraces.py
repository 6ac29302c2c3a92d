# SPDX-License-Identifier: GPL-2.0-only
"""What SysRq l, w and t print, as guests printed it."""

from lab.guest import backtraces

_CPUS = """\
[   16.074722] sysrq: Show backtrace of all active CPUs
[   16.075078] NMI backtrace for cpu 0
[   16.075347] CPU: 0 UID: 0 PID: 93 Comm: agent Not tainted 6.12.117 #1
[   16.075564] Call Trace:
[   16.076045]  <IRQ>
[   16.076149]  dump_stack_lvl+0x4f/0x60
[   16.076248]  ? lapic_can_unplug_cpu+0x90/0x90
[   16.076263]  __handle_sysrq+0x94/0x180
[   16.076330]  common_interrupt+0x74/0xa0
[   16.076411]  </IRQ>
[   16.076425]  <TASK>
[   16.076428]  asm_common_interrupt+0x22/0x40
[   16.076535] RIP: 0010:vfio_df_open.constprop.0+0x13/0x20
[   16.076739] RSP: 0018:ffffffff81a03eb0 EFLAGS: 00010246
[   16.076865]  vfio_df_ioctl_bind_iommufd+0x5/0x10
[   16.076881]  ? vfio_df_iommufd_bind+0x5/0x10
[   16.076900]  do_syscall_64+0x37/0xb0
[   16.076953]  entry_SYSCALL_64_after_hwframe+0x4b/0x53
[   16.076960] RIP: 0033:0x403689
[   16.076975]  </TASK>
[   16.077044] Sending NMI from CPU 0 to CPUs 1-3:
[   16.107203] NMI backtrace for cpu 1
[   16.107661] CPU: 1 UID: 0 PID: 0 Comm: swapper/1 Not tainted 6.12.117 #1
[   16.107953] RIP: 0010:pv_native_safe_halt+0x13/0x20
[   16.109239] Call Trace:
[   16.109666]  <TASK>
[   16.109728]  default_idle+0x5/0x10
[   16.109787]  do_idle+0x8c/0xe0
[   16.109919]  </TASK>
[   16.110000] NMI backtrace for cpu 2 skipped: idling at pv_native_safe_halt+0x13/0x20
[   16.110203] NMI backtrace for cpu 3
[   16.110661] CPU: 3 UID: 0 PID: 99 Comm: sh Not tainted 6.12.117 #1
[   16.110953] RIP: 0033:0x401234
[   16.110954] RSP: 002b:00007fd7164a3db8 EFLAGS: 00000246
"""
_IN_A_SOFTIRQ = """\
[   16.107203][    C0] NMI backtrace for cpu 0
[   16.107661][    C0] CPU: 0 PID: {pid} Comm: {name} Not tainted 6.1.0 #1
[   16.107953][    C0] RIP: 0010:net_rx_action+0x13/0x20
[   16.109239][    C0] Call Trace:
[   16.109666][    C0]  <IRQ>
[   16.109728][    C0]  handle_softirqs+0x5/0x10
[   16.109750][    C0]  </IRQ>
[   16.109760][    C0]  <TASK>
[   16.109770][    C0]  asm_common_interrupt+0x22/0x40
[   16.109780][    C0] RIP: 0010:{function}+0x22/0x40
[   16.109787][    C0]  {caller}+0x8c/0xe0
[   16.109919][    C0]  </TASK>
"""
_TASKS = """\
[   20.123276] sysrq: Show State
[   20.123619] task:agent           state:D stack:0     pid:93    tgid:92    ppid:0
[   20.123824] Call Trace:
[   20.123925]  <TASK>
[   20.123959]  __schedule+0x228/0x530
[   20.124038]  schedule+0x1b/0x50
[   20.124039]  schedule_timeout+0x1b/0x50
[   20.124078]  __mutex_lock.isra.0+0x96/0xe0
[   20.124079]  ? mutex_lock+0x96/0xe0
[   20.124080]  vfio_df_open+0x96/0xe0
[   20.124140]  do_syscall_64+0x37/0xb0
[   20.124255] RIP: 0033:0x4165e5
[   20.133857]  </TASK>
[   20.134046] task:sleep           state:S stack:0     pid:57    ppid:1
[   20.134230]  do_nanosleep+0x228/0x530
[   20.137046] task:worker           state:R  running task     stack:0     pid:58    ppid:1
[   20.139962] sysrq: HELP : loglevel(0-9) reboot(b) crash(c)
"""


def test_cpus_that_do_not_idle() -> None:
    busy = backtraces.cpus(_CPUS)
    assert [str(place) for place in busy.values()] == [
        "CPU 0 runs vfio_df_open < vfio_df_ioctl_bind_iommufd, in agent (pid 93)",
        "CPU 3 runs user space, in sh (pid 99)",
    ]
    assert busy[0].text.startswith("NMI backtrace for cpu 0\nCPU: 0 UID: 0 PID: 93")
    assert not busy[3].functions


def test_an_interrupt_above_a_task() -> None:
    """A CPU that serves an interrupt does not idle, whatever it did before."""
    text = _IN_A_SOFTIRQ.format(pid=93, name="agent", function="vfio_df_open", caller="vfs_ioctl")
    (place,) = backtraces.cpus(text).values()
    words = "CPU 0 runs net_rx_action < handle_softirqs, above vfio_df_open < vfs_ioctl"
    assert str(place) == f"{words}, in agent (pid 93)"

    text = _IN_A_SOFTIRQ.format(pid=0, name="swapper/0", function="halt", caller="do_idle")
    (place,) = backtraces.cpus(text).values()
    assert str(place) == "CPU 0 runs net_rx_action < handle_softirqs, in swapper/0 (pid 0)"


def test_tasks_that_wait() -> None:
    """What every waiting task has in common, the scheduler, is left out."""
    tasks = backtraces.tasks(_TASKS)
    assert str(tasks[93]) == "agent (pid 93) is blocked in __mutex_lock < vfio_df_open"
    assert tasks[93].process == 92
    assert str(tasks[57]) == "sleep (pid 57) waits in do_nanosleep"
    assert tasks[57].process == 57
    assert tasks[58].state == "R"


def test_nothing_to_read() -> None:
    assert backtraces.cpus("") == {}
    assert backtraces.tasks("[    1.000000] Linux version 6.12.117\n") == {}
