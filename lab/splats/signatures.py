# SPDX-License-Identifier: GPL-2.0-only
"""The table of what a kernel says of its own trouble, and nothing else does.

Each row: the kind, the first line, the title, where in the report the title's function stands, and
how the report ends. The first lines are those of printk's callers in Linux 4.4 to 7.3, on x86, arm,
arm64, loongarch, mips, powerpc, riscv and s390. Every row has an example in tests/unit/splats/logs.
"""

import re
from dataclasses import dataclass
from enum import Enum, StrEnum


class Kind(StrEnum):
    """What sort of trouble it is."""

    ATOMIC = "atomic"  # sleeping or scheduling where that is not allowed
    BUG = "bug"  # an assertion, BUG_ON(), or a complaint that begins with "BUG:"
    DMA_FAULT = "dma-fault"  # an IOMMU blocked a DMA
    FAULT = "fault"  # what x86 calls an exception: page fault, general protection, divide error
    HARD_LOCKUP = "hard-lockup"
    HUNG_TASK = "hung-task"
    INTERRUPT = "interrupt"  # one that nobody handles
    IOMMU = "iommu"  # an IOMMU's errors other than a blocked DMA
    KASAN = "kasan"
    KCSAN = "kcsan"
    KFENCE = "kfence"
    KMSAN = "kmsan"
    LEAK = "leak"  # kmemleak
    LIST = "list"  # a corrupt list
    LOCKDEP = "lockdep"
    ODEBUG = "odebug"  # an object that is used or freed in a state that forbids it
    OOM = "oom"
    PAGE = "page"  # a page, page table or memory map in a state that cannot be
    PAGE_ALLOCATION = "page-allocation"
    PANIC = "panic"  # one that no other report explains
    RCU_STALL = "rcu-stall"
    RCU_USAGE = "rcu-usage"
    REBOOT = "reboot"  # a second boot in one log that nothing announced
    REFCOUNT = "refcount"
    SLAB = "slab"
    SOFT_LOCKUP = "soft-lockup"
    SPINLOCK = "spinlock"
    STACK = "stack"  # an overflow or corruption of a kernel stack
    UBSAN = "ubsan"
    WARNING = "warning"
    WORKQUEUE = "workqueue"


STALLS = (Kind.RCU_STALL, Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP, Kind.HUNG_TASK, Kind.WORKQUEUE)


class Where(Enum):
    """In which place of a report the function stands that its title names."""

    NOWHERE = "the title names none"
    HEADLINE = "in the first line, as (?P<function>); if not, as CALLER"
    POINTER = "at the instruction pointer; if none is printed, as CALLER"
    CALLER = "the innermost in the call trace that does not belong to the detector"
    LOCK = "the one that takes the lock, 'at: f+0x1/0x2'; if not, as CALLER"
    ENTRY = "the outermost below system call, thread and interrupt: who stalls is seen anywhere"


# How a report ends: at a line that looks so, or, STACK, with the last line of its call trace.
TRACE = r"---\[ end trace"
RULE = r"={20,}$"
STACK = ""
LINE = r".*"  # it is the first line alone
PANIC = r"---\[ end Kernel panic|Rebooting in \d+ seconds"


@dataclass(frozen=True)
class Signature:
    """One row. `name` is that of its example, without the suffix.

    `first` matches at the start of a line that has lost its prefix. `title` is filled from the
    named groups of `first` and, where that has not all of them, of `more`, which is searched in
    the report; what neither gives is left out. " in FUNCTION" is added to it.
    """

    name: str
    kind: Kind
    first: str
    title: str
    where: Where = Where.NOWHERE
    ends: str = STACK
    more: str = ""


_F = (
    r"(?P<function>(?!at )[A-Za-z_][\w.]*)(?:\+0x| [\w./-]+\.[chS]:\d)"  # or a decoded one, inlined
)
_ACCESS = r"(?P<access>Read|Write) (?:of size|at addr)"
_BDF = r"(?:[\da-f]{4}:)?[\da-f]{2}:[\da-f]{2}\.\d"
_TASK = r"\S.*:\d+"  # name and number; a name may have spaces

SIGNATURES = (
    # --- sanitizers: report.c of mm/kasan, mm/kfence, mm/kmsan, kernel/kcsan; lib/ubsan.c
    Signature("kasan-invalid-free", Kind.KASAN,
              rf"BUG: KASAN: (?:double-free or invalid-free|invalid-free|double-free)(?: in {_F})?",
              "KASAN: invalid-free", Where.HEADLINE, RULE),
    Signature("kasan", Kind.KASAN, rf"BUG: KASAN: (?P<what>[\w-]+)(?: in {_F})?",
              "KASAN: {what} {access}", Where.HEADLINE, RULE, _ACCESS),
    Signature("kfence", Kind.KFENCE, rf"BUG: KFENCE: (?P<what>[a-z -]+?)(?: in {_F}|$)",
              "KFENCE: {what}", Where.HEADLINE, RULE),
    Signature("kmsan", Kind.KMSAN, rf"BUG: KMSAN: (?P<what>[\w-]+)(?: in {_F})?",
              "KMSAN: {what}", Where.HEADLINE, RULE),
    Signature("kcsan-race", Kind.KCSAN,
              r"BUG: KCSAN: (?P<what>[a-z: -]+) in (?P<one>[\w.]+) / (?P<other>[\w.]+)",
              "KCSAN: {what} in {one} / {other}", ends=RULE),
    Signature("kcsan", Kind.KCSAN, rf"BUG: KCSAN: (?P<what>[\w: -]+?)(?: in {_F}|$)",
              "KCSAN: {what}", Where.HEADLINE, RULE),
    Signature("ubsan", Kind.UBSAN, r"UBSAN: (?P<what>.+?) in \S+", "UBSAN: {what}", Where.CALLER,
              rf"{TRACE}|{RULE}"),
    Signature("ubsan-trap", Kind.UBSAN,
              r"(?:Internal error: )?UBSAN: (?P<what>[^:]+): [0-9a-f]+ ", "UBSAN: {what}",
              Where.POINTER, TRACE),
    # --- memory: lib/list_debug.c, lib/refcount.c, lib/debugobjects.c, mm/slub.c, mm/page_alloc.c
    Signature("list", Kind.LIST,
              r"(?P<what>list_(?:add|del)|slist_\w+|hlist_\w+)(?: corruption|: )",
              "{what} corruption", Where.CALLER, TRACE),
    Signature("list-bug", Kind.LIST, r"kernel BUG at (?:\S*/)?lib/list_debug\.c",
              "list corruption", Where.CALLER, TRACE),
    Signature("refcount", Kind.REFCOUNT, r"refcount_t: (?P<what>[^.;]+)", "refcount_t: {what}",
              Where.CALLER, TRACE),
    Signature("refcount-warning", Kind.REFCOUNT, r"WARNING: .*\blib/refcount\.c:",
              "refcount_t: misuse", Where.CALLER, TRACE),
    Signature("odebug", Kind.ODEBUG,
              r"ODEBUG: (?P<what>\w+ [\w ]+?) \(active state.*object type: (?P<type>\w+)",
              "ODEBUG: {what} {type}", Where.CALLER, TRACE),
    Signature("odebug-warning", Kind.ODEBUG, r"WARNING: .*\blib/debugobjects\.c:",
              "ODEBUG: misuse", Where.CALLER, TRACE),
    # Which kmalloc-rnd-NN serves a caller is drawn at each boot; a name may end with a cgroup's.
    Signature("slab", Kind.SLAB,
              r"BUG :?(?P<cache>[\w-]+?)(?:-rnd-\d+-\w+)?(?:\(\S*\))? ?\([^)]*\): "
              r"(?P<what>[A-Za-z'_ -]+)",
              "BUG {cache}: {what}", Where.CALLER),
    Signature("slab-warning", Kind.SLAB,
              r"(?:cache_from_obj: |Slab error |slab error in )(?P<what>.+)",
              "slab error: {what}"),
    Signature("usercopy", Kind.BUG,
              r"(?:usercopy: )?[Kk]ernel memory (?P<what>exposure|overwrite) attempt detected",
              "bad usercopy: memory {what}", Where.CALLER, TRACE),
    Signature("page-state", Kind.PAGE, r"BUG: Bad page (?P<what>state|cache) in process",
              "BUG: Bad page {what}", Where.CALLER),
    Signature("page-map", Kind.PAGE, r"BUG: Bad page map in process", "BUG: Bad page map",
              Where.CALLER),
    Signature("rss-counter", Kind.PAGE, r"BUG: Bad rss-counter state",
              "BUG: Bad rss-counter state", ends=LINE),
    Signature("page-tables", Kind.PAGE, r"BUG: non-zero (?P<what>\w+) on freeing mm",
              "BUG: non-zero {what} on freeing mm", ends=LINE),
    Signature("page-entry", Kind.PAGE, r"\S+:\d+: bad (?P<what>p[tmug4]+d|pte) ", "bad {what}",
              ends=LINE),
    Signature("page-allocation", Kind.PAGE_ALLOCATION,
              r"(?!warn_alloc)\S.*: page allocation (?:failure|stall)\w*[.:] *order:\d+",
              "page allocation failure", Where.CALLER),
    Signature("vmalloc", Kind.PAGE_ALLOCATION,
              r"\S.*: vmalloc (?:error|size)|vmalloc: allocation failure", "vmalloc failure",
              Where.CALLER),
    Signature("oom", Kind.OOM, r"\S.* invoked oom-killer: gfp_mask=", "out of memory",
              ends=r"(?:Memory cgroup o|O)ut of memory.*: Kill(?:ed)? process|oom_reaper: "),
    Signature("oom-killed", Kind.OOM,
              r"(?:Memory cgroup o|O)ut of memory(?: \(.*?\))?: Kill(?:ed)? process",
              "out of memory", ends=LINE),
    Signature("leak", Kind.LEAK, r"BUG: memory leak", "memory leak", Where.CALLER),
    Signature("leak-object", Kind.LEAK, r"(?:kmemleak: )?unreferenced object 0x", "memory leak",
              Where.CALLER),
    Signature("leak-count", Kind.LEAK, r"kmemleak: \d+ new suspected memory leaks",
              "memory leaks", ends=LINE),
    # --- locks: kernel/locking/lockdep.c, kernel/locking/spinlock_debug.c; to 4.14 "INFO: … ]"
    Signature("lockdep-circular", Kind.LOCKDEP,
              r"(?:WARNING: |\[ INFO: |INFO: )possible circular locking dependency detected",
              "possible deadlock", Where.LOCK),
    Signature("lockdep-recursive", Kind.LOCKDEP,
              r"(?:WARNING: |\[ INFO: |INFO: )possible recursive locking detected",
              "possible deadlock", Where.LOCK),
    Signature("lockdep-inversion", Kind.LOCKDEP,
              r"(?:WARNING: |\[ INFO: |INFO: )possible irq lock inversion dependency detected",
              "possible deadlock", Where.LOCK),
    Signature("lockdep-irq-order", Kind.LOCKDEP,
              r"(?:WARNING: |\[ INFO: |INFO: )\S+-safe -> \S+-unsafe lock order detected",
              "possible deadlock", Where.LOCK),
    Signature("lockdep-deadlock", Kind.LOCKDEP,
              r"(?:WARNING: |\[ )?[Pp]ossible deadlock detected", "possible deadlock",
              Where.LOCK),
    Signature("lockdep-inconsistent", Kind.LOCKDEP,
              r"(?:WARNING: |\[ INFO: |INFO: )inconsistent lock state",
              "inconsistent lock state", Where.LOCK),
    Signature("lockdep-wait-context", Kind.LOCKDEP, r"(?:\[ )?BUG: Invalid wait context",
              "BUG: invalid wait context", Where.LOCK),
    Signature("lockdep-unbalance", Kind.LOCKDEP,
              r"(?:WARNING: |\[ )?(?:BUG: )?bad (?P<what>unlock balance|contention) detected!",
              "WARNING: bad {what}", Where.CALLER),
    Signature("lockdep-nested", Kind.LOCKDEP, r"(?:WARNING: |\[ BUG: )Nested lock was not taken",
              "WARNING: nested lock was not taken", Where.LOCK),
    Signature("lockdep-freed", Kind.LOCKDEP, r"(?:WARNING: |\[ BUG: )held lock freed!",
              "WARNING: held lock freed", Where.CALLER),
    Signature("lockdep-held", Kind.LOCKDEP, r"(?:WARNING: |\[ BUG: ).+ still has locks held!",
              "WARNING: still has locks held", Where.LOCK),
    Signature("lockdep-user-space", Kind.LOCKDEP,
              r"(?:WARNING: |\[ BUG: )lock held when returning to user space!",
              "WARNING: lock held when returning to user space", Where.LOCK),
    Signature("lockdep-class", Kind.LOCKDEP, r"INFO: trying to register non-static key",
              "INFO: trying to register non-static key", Where.CALLER),
    Signature("lockdep-limit", Kind.LOCKDEP, r"BUG: (?P<what>MAX_\w+) too low!",
              "BUG: {what} too low"),
    Signature("lockdep-key", Kind.LOCKDEP,
              r"BUG: key \S+ (?:has not been registered|not in \.data)",
              "lock class key not registered", Where.CALLER),
    Signature("lockdep-warning", Kind.LOCKDEP, r"WARNING: .*\bkernel/locking/lockdep\.c:",
              "locking bug", Where.CALLER, TRACE),
    Signature("rcu-usage", Kind.RCU_USAGE, r"(?:WARNING: |\[ INFO: |INFO: )suspicious RCU usage",
              "WARNING: suspicious RCU usage", Where.CALLER),
    Signature("spinlock", Kind.SPINLOCK, r"BUG: (?P<what>(?:spinlock|rwlock) [a-z ]+?) on CPU#",
              "BUG: {what}", Where.CALLER),
    Signature("sleeping", Kind.ATOMIC, r"BUG: sleeping function called from invalid context",
              "BUG: sleeping function called from invalid context", Where.CALLER),
    Signature("atomic", Kind.ATOMIC,
              r"BUG: scheduling (?P<what>while atomic|in a non-blocking section)",
              "BUG: scheduling {what}", Where.CALLER),
    Signature("atomic-assumed", Kind.ATOMIC, r"BUG: assuming (?P<what>[a-z -]+) context",
              "BUG: assuming {what} context", Where.CALLER),
    Signature("preemptible", Kind.ATOMIC, r"BUG: using (?P<what>\w+)\(\) in preemptible",
              "BUG: using {what}() in preemptible code", Where.CALLER),
    Signature("workqueue-leak", Kind.ATOMIC, r"BUG: workqueue leaked (?:lock|atomic)",
              "BUG: workqueue leaked lock or atomic", Where.HEADLINE,
              more=r"(?:last function: |workfn=)(?P<function>[\w.]+)"),
    # --- nothing moves: kernel/rcu/tree_stall.h, kernel/watchdog.c, kernel/hung_task.c
    Signature("rcu-stall", Kind.RCU_STALL,
              r"(?:rcu: )?INFO: (?:\w+ )?(?:self-)?detected (?:expedited )?stalls? on",
              "INFO: rcu detected stall", Where.ENTRY),
    Signature("rcu-starved", Kind.RCU_STALL,
              r"(?:rcu: )?(?:INFO: )?\w+ (?:kthread starved for|detected expedited stalls)",
              "INFO: rcu detected stall", Where.ENTRY),
    Signature("soft-lockup", Kind.SOFT_LOCKUP,
              r"(?:(?:NMI )?watchdog: )?BUG: soft lockup - CPU#", "BUG: soft lockup",
              Where.ENTRY),
    Signature("hard-lockup", Kind.HARD_LOCKUP,
              r"(?:(?:NMI )?watchdog: )?(?:CPU\d+: )?(?:Watchdog|watchdog) (?:CPU \d+ )?"
              r"(?:self-)?detected (?:Self-)?[Hh]ard LOCKUP|CPU \d+ self-detected hard LOCKUP",
              "hard lockup", Where.ENTRY),
    Signature("hung-task", Kind.HUNG_TASK,
              rf"INFO: task {_TASK} (?:<writer> |<reader> )?blocked(?: in I/O wait)? for more than",
              "INFO: task hung", Where.CALLER),
    Signature("undead-task", Kind.HUNG_TASK, rf"INFO: task {_TASK} can't die for more than",
              "INFO: task can't die", Where.CALLER),
    Signature("workqueue-lockup", Kind.WORKQUEUE, r"BUG: workqueue lockup",
              "BUG: workqueue lockup"),
    Signature("netdevice", Kind.BUG, r"unregister_netdevice: waiting for (?P<what>[a-z]+)",
              "unregister_netdevice: waiting for {what}", ends=LINE),
    Signature("vfs-count", Kind.BUG, r"VFS: (?P<what>Close: file count is (?:0|zero))",
              "VFS: {what}", Where.CALLER, TRACE),
    Signature("dentry", Kind.BUG,
              r"BUG: Dentry .*still in use \(\d+\) ?(?:\[unmount of (?P<what>\w+))?",
              "BUG: Dentry of {what} still in use", Where.CALLER, TRACE),
    Signature("vfs-inodes", Kind.BUG, r"VFS: (?P<what>Busy inodes after unmount)", "VFS: {what}",
              ends=LINE),
    Signature("sysfs-duplicate", Kind.BUG, r"sysfs: cannot create duplicate filename",
              "sysfs: cannot create duplicate filename", Where.CALLER),
    Signature("interrupt", Kind.INTERRUPT, r"irq \d+: nobody cared",
              "irq: nobody cared", ends=r"Disabling IRQ #\d"),
    # --- stacks: arch/x86/mm/fault.c, arch/x86/kernel/unwind_frame.c, kernel/panic.c
    Signature("stack-guard", Kind.STACK, r"BUG: (?:.*)stack guard page was hit",
              "BUG: stack guard page was hit", Where.POINTER, TRACE),
    Signature("stack-overflow", Kind.STACK,
              r"(?i:(?:kernel )?stack overflow(?: detected|:| on|\.|$)|Insufficient stack space)",
              "kernel stack overflow", Where.POINTER, TRACE),
    Signature("stack-corrupt", Kind.STACK,
              r"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in:"
              r"(?: \[<[0-9a-f]+>\])? (?:[0-9a-f]{8,}$|(?P<function>[A-Za-z_][\w.]*))?",
              "kernel stack is corrupted", Where.HEADLINE, PANIC),
    Signature("stack-end", Kind.STACK, r"Kernel panic - not syncing: corrupted stack end",
              "corrupted stack end", Where.CALLER, PANIC),
    Signature("stack-registers", Kind.STACK,
              r"WARNING: kernel stack (?P<what>regs|frame pointer) at .* has bad",
              "bad kernel stack {what}", ends=LINE),
    Signature("stack-recursion", Kind.STACK, r"WARNING: stack recursion on stack type",
              "stack recursion", ends=LINE),
    Signature("stack-unwind", Kind.STACK,
              r"WARNING: (?P<what>stack going in the wrong direction|can't (?:access registers|"
              r"dereference registers)|unknown (?:unwind hint|ORC entry) type)",
              "{what}", ends=LINE),
    # --- faults: arch/x86/mm/fault.c, arch/x86/kernel/traps.c, dumpstack.c, and the other archs'
    Signature("double-fault", Kind.FAULT, r"(?:traps: )?PANIC: double fault",
              "PANIC: double fault", Where.POINTER, TRACE),
    Signature("null-pointer", Kind.FAULT,
              r"(?:BUG: |CPU \d+ )?(?:unable to handle kernel |Unable to handle kernel |[Kk]ernel )"
              r"NULL pointer dereference",
              "BUG: unable to handle kernel NULL pointer dereference", Where.POINTER, TRACE),
    Signature("user-access", Kind.FAULT,
              r"(?:BUG: )?(?:U|u)nable to handle kernel access to user memory",
              "BUG: unable to handle kernel access to user memory", Where.POINTER, TRACE),
    Signature("page-fault", Kind.FAULT,
              r"(?:BUG: |CPU \d+ )?[Uu]nable to handle (?:kernel |page fault|unknown )|"
              r"BUG: Unable to handle kernel (?:data|instruction)",
              "BUG: unable to handle kernel paging request", Where.POINTER, TRACE),
    Signature("general-protection", Kind.FAULT,
              r"(?:kasan: GPF could be caused by NULL-ptr deref or user memory access)?"
              r"(?:Oops: )?general protection fault(?:,.*?)?: [0-9a-f]{4} ",
              "general protection fault", Where.POINTER, TRACE),
    Signature("x86-fault", Kind.FAULT,
              r"(?:Oops: )?(?P<what>[a-z][a-zA-Z0-9 _-]*?)(?:,.*)?: [0-9a-f]{4} \[#\d+\]",
              "{what}", Where.POINTER, TRACE),
    Signature("s390-fault", Kind.FAULT,
              r"(?P<what>[a-z][a-z -]+ exception|Fixpoint divide exception|illegal operation): "
              r"[0-9a-f]{4} ilc:\d+ \[#\d+\]", "{what}", Where.POINTER, TRACE),
    Signature("powerpc-fault", Kind.FAULT,
              r"(?:Unrecoverable (?P<what>[A-Za-z ]+?)(?: [0-9a-f]+)? (?:at|exception)|"
              r"Bad kernel stack pointer )", "unrecoverable {what}", Where.POINTER, TRACE),
    Signature("arm-fault", Kind.FAULT,
              r"(?P<what>Unhandled fault|Alignment trap|Unhandled prefetch abort)\b", "{what}",
              Where.POINTER, TRACE),
    Signature("arm64-mode", Kind.FAULT,
              r"(?P<what>Bad mode) in .* handler|(?P<other>SError Interrupt) on",
              "{what}{other}", Where.POINTER, TRACE),
    Signature("internal-error", Kind.FAULT,
              r"Internal error: (?P<what>[A-Za-z][A-Za-z -]*[a-z])", "internal error: {what}",
              Where.POINTER, TRACE),
    Signature("oops", Kind.FAULT, r"Oops(?::? .*)? ?\[#\d+\]|Oops: |Oops\[#\d+\]", "Oops",
              Where.POINTER, TRACE),
    Signature("cfi", Kind.BUG, r"CFI failure (?:at|\()", "CFI failure", Where.POINTER, TRACE),
    Signature("kernel-bug", Kind.BUG, r"[Kk]ernel BUG at ", "kernel BUG", Where.POINTER, TRACE),
    Signature("kernel-bug-arm", Kind.BUG, r"Kernel BUG \[#\d+\]", "kernel BUG", Where.POINTER,
              TRACE),
    Signature("rust-panic", Kind.BUG, r"rust_kernel: panicked at", "Rust panic", Where.CALLER,
              TRACE),
    # --- IOMMUs: drivers/iommu/intel/dmar.c, amd/iommu.c, arm/arm-smmu-v3, arm-smmu
    Signature("dmar-fault", Kind.DMA_FAULT,
              r"(?:dmar: )?DMAR: ?\[(?:DMA )?(?P<what>Read|Write)\b.*\] "
              r"Request device \[(?P<device>[\w:.]+)\]",
              "DMA {what} of {device} blocked", ends=LINE),
    Signature("amd-fault", Kind.DMA_FAULT, r".*AMD-Vi: Event logged \[IO_PAGE_FAULT",
              "DMA of {device} blocked", ends=LINE, more=rf"(?P<device>{_BDF})"),
    Signature("smmu3-fault", Kind.DMA_FAULT,
              r"arm-smmu-v3 \S+: event 0x[0-9a-f]{2} rec",
              "DMA blocked: {device}", ends=r"arm-smmu-v3 \S+: (?:un)?priv ",
              more=rf"client: (?P<device>{_BDF})"),
    Signature("smmu-fault", Kind.DMA_FAULT, r"arm-smmu\S* \S+: Unhandled context fault",
              "DMA blocked", ends=LINE),
    Signature("amd-event", Kind.IOMMU,
              r".*AMD-Vi: (?:Event logged \[)?(?P<what>(?<=\[)[A-Z_]+|Completion-Wait loop)",
              "AMD-Vi: {what}", ends=LINE),
    Signature("dmar-interrupt", Kind.IOMMU,
              r"DMAR: \[INTR-REMAP\] Request device \[(?P<device>[\w:.]+)\]",
              "interrupt of {device} blocked", ends=LINE),
    Signature("dmar-queue", Kind.IOMMU, r"DMAR: VT-d detected (?P<what>[A-Za-z -]+ Error)",
              "DMAR: {what}", ends=LINE),
    Signature("dmar", Kind.IOMMU, r"DMAR: (?:ERROR: |.*[Hh]ardware error: )(?P<what>[A-Za-z ]+)",
              "DMAR: {what}", ends=LINE),
    # --- what is left
    Signature("warning", Kind.WARNING,
              rf"WARNING: (?:CPU: \d+ PID: \d+ (?:Comm: .* )?)?(?:\[.*\] )?(?:at )?"
              rf"(?:[\w./-]+:\d+,? ?)?(?:at )?(?:{_F}|0x)|"
              r"WARNING: (?:CPU: \d+ PID: \d+ )?at [\w./-]+:\d+", "WARNING", Where.HEADLINE,
              TRACE),
    Signature("reboot", Kind.REBOOT, r"Linux version \d+\.\d+", "unexpected reboot", ends=LINE),
    Signature("panic", Kind.PANIC, r"Kernel panic - not syncing: (?P<what>.*)",
              "kernel panic: {what}", ends=PANIC),
    Signature("bug", Kind.BUG, r"(?:\[ )?BUG: (?P<what>\S.*)", "BUG: {what}", Where.CALLER),
)  # fmt: skip


def unnamed(pattern: str) -> str:
    """The same without names of groups, which must be unique in a pattern."""
    return re.sub(r"\?P<\w+>", "?:", pattern)


FIRST = "|".join(f"(?P<s{n}>{unnamed(each.first)})" for n, each in enumerate(SIGNATURES))
_FIRST = re.compile(FIRST)


def recognise(line: str) -> Signature | None:
    """The signature whose first line this is; the table's first where several are."""
    match = _FIRST.match(line)
    return SIGNATURES[int(match.lastgroup[1:])] if match and match.lastgroup else None
