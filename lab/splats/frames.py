# SPDX-License-Identifier: GPL-2.0-only
"""Lines of a report: what looks like one, its call traces, and the function to be named."""

import re
from collections.abc import Iterable, Iterator, Sequence

from lab.splats.functions import ENTRIES, MACHINERY
from lab.splats.signatures import Kind, Signature, Where

# A line of a call trace, on any architecture, with or without a file and line behind it.
_ADDRESSES = r"\s*(?:\(?\[ ?<?[0-9a-f]{4,}>?\]\)?\s*)*"
_FRAME = re.compile(
    rf"{_ADDRESSES}(?P<unsure>\? )?\(?(?P<function>[A-Za-z_][\w.$]*)\)?"
    r"(?:\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?|\s+from (?:\[<|\w)|\s+[\w./-]+\.[chS]:\d+)"
)
_POINTER = re.compile(
    r"(?:[RE]?IP\s*: (?:0010:|0060:|0061:)?(?:\[<[0-9a-f]+>\] ){0,2}"  # x86
    r"|pc ?: (?:\[<[0-9a-f]+>\] )?|PC is at |NIP \[[0-9a-f]+\] |epc\s*: (?:[0-9a-f]+ )?"
    r"|\s*ERA: [0-9a-f]+ |TPC: <|Krnl PSW : \S+ \S+ \()"
    r"(?P<function>(?!(?:lr|ra) *:|[0-9a-f]{8,}\b)[A-Za-z_][\w.$]*)(?:\+0x|\+\d|\s|$)"
)
_TRACE = re.compile(r"\s*(?:Call [Tt]race|Backtrace|stack backtrace)\b|\s*<TASK>$")
_AT = re.compile(rf".*\bat: {_ADDRESSES}(?P<function>[A-Za-z_][\w.$]*)(?:\+0x|\s|$)")
_TAKES = re.compile(
    r".*(?:is trying to (?:acquire|release|lock)|trying to contend|just changed the state of lock"
    r"| takes:|is leaving the kernel)|\d+ locks? held by"
)
_INTERRUPT_ENDS = re.compile(r"\s*<(?:/(?:SOFT)?IRQ|/NMI|EOI|EOE)>")

_REGISTERS = (
    r"[RE]IP|[RE]SP:|R[A-D]X:|E[A-D]X:|R\d\d:|[RE]BP:|ES[IP]:|[FDCEGS]S: |[CD]R\d:|PKRU:|ORIG_RAX"
    r"|Code: |Modules linked in|Call Trace"
)
# How lines begin that reports have and other messages have not: a report without an end ends
# before the first that is none of them.
_INSIDE = (
    # who and where: kernel/printk, lib/dump_stack.c, arch/*/kernel/traps.c
    r"CPU: ?\d|CPU#|PID:|Comm:|Hardware name:|Workqueue: |\s*Tainted|\s*Not tainted|Oops|Stack"
    r"|EFLAGS|[xrsatg]\d{1,2} ?: |[px]c ?: |lr ?: |sp ?: |pstate|psr|epc|Register |Process "
    r"|Flags: |Control: |[0-9a-f]{4}: |NIP|MSR|CFAR|GPR|Krnl "
    r"|LR is at|PC is at|Last |Kernel Offset|Dumping ftrace|\s+\(ftrace|Rebooting|hex dump"
    r"|---\[|------------\[|={20,}|-{20,}|#PF|PGD|PTE|Mem abort|Data abort|swapper pg|user pg"
    r"|  (?:ESR|EC|SET|FSC|ISV|CM|EA) ?=|\[[0-9a-f]+\] \*?pgd",
    # memory: mm/kasan/report.c, mm/slub.c, mm/show_mem.c, mm/oom_kill.c, mm/kmemleak.c
    r"(?:Read|Write) of|Allocated|Freed|The buggy|Memory state|Uninit was|Local variable|addr:"
    r"|page:|raw:|flags:|head:|page dumped|[ >][0-9a-f]{8,}[: ]|[0-9a-f]{8,} |[0-9a-f]{16}:"
    r"|\s+\^|Object|Redzone|Padding|Bytes b4|INFO: (?:Slab|Object)|FIX |file:|vma|Disabling lock"
    r"|Mem-Info|Node |[a-z]\w*_?anon|\s+(?:active|isolated|unevict|slab|mapped|kernel|free)\w*[:_]"
    r"|lowmem_reserve|\d+ (?:total )?page|Swap cache|(?:Free|Total) swap|DMA(?:32)?[: ]|Normal[: ]"
    r"|HighMem|Tasks state|\[ *\d+\] +\d+|\[ +pid +\]|oom-kill:|Memory cgroup "
    r"|(?:memory|swap|kmem): |  comm |  backtrace|  [0-9a-f]{2} [0-9a-f]{2} ",
    # locks and stalls: kernel/locking/lockdep.c, kernel/rcu/tree_stall.h, kernel/workqueue.c
    r"\d+ locks? held|\s*#\d+:|no locks held|INFO: lockdep|irq event stamp|hardirqs|softirqs|\s*->"
    r"|\s*lock\(|other info|\s*Possible |\s+CPU\d|\s+---|\s*\*\*\*|and this|but |which "
    r"|the (?:existing|depend)|rcu: |\t|\(detected|\(t=\d|Sending NMI|NMI backtrace|Showing "
    r"|task:\S"
    r"|\S+ +[RSDTtXZI] |Task dump|pool \d|  pwq|  pending|  in-flight|workqueue \w+:|\"echo 0"
    r"|Future hung",
    # IOMMUs and interrupts: drivers/iommu/arm/arm-smmu-v3, kernel/irq/spurious.c
    r"arm-smmu-v3 \S+: (?:\t|event|(?:un)?priv)|handlers:|Disabling IRQ",
)
_BELONGS = re.compile(
    rf"\s*$|{_FRAME.pattern}|{_TRACE.pattern}|\s*</?[#\w]+>|{_REGISTERS}|{'|'.join(_INSIDE)}"
)
_REGISTER = re.compile(_REGISTERS)
# a disambiguator or a reference back, how long a name is that follows, or what binds these
_RUST = re.compile(r"[sB][0-9a-zA-Z]*_|(?P<length>[1-9]\d*)_?|[A-Za-z0-9_]")
_WRAPPER = re.compile(r"__(?:(?:x64|ia32|arm64|riscv|s390x?|se|do)_)(?:compat_)?sys_")
# What differs between two boots, or two builds, that say the same.
_PASSING = re.compile(
    r"\b0x[0-9a-f]+|\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b|(?<=[\w.]):\d+\b|(?<=#)\d+"
    r"|(?<![\w-])-?\d\d+(?:\.\d+)*(?!\w)"
)


def begins_trace(line: str) -> bool:
    """Whether a call trace begins here."""
    return _TRACE.match(line) is not None


def belongs(line: str) -> bool:
    """Whether a line looks as those in reports do."""
    return _BELONGS.match(line) is not None


def is_register(line: str) -> bool:
    """Whether it is of what x86 prints once more when an oops has ended."""
    return _REGISTER.match(line) is not None


def title(signature: Signature, headline: re.Match[str], lines: Sequence[str]) -> str:
    """The title of a report, without anything that changes from boot to boot or build to build.

    `lines` are those of the report from its first on, without prefixes.
    """
    found = {name: value for name, value in headline.groupdict().items() if value}
    if signature.more:
        matches = (re.search(signature.more, line) for line in lines)
        more = next((match.groupdict() for match in matches if match), {})
        found = {**more, **found}
    told = {name: value if name == "device" else _PASSING.sub("", value)
            for name, value in found.items()}  # fmt: skip
    filled = re.sub(r"\{(\w+)\}", lambda name: told.get(name[1], ""), signature.title)
    words = " ".join(filled.split()).rstrip(" .:,!(=")
    function = _function(signature, found.get("function"), lines)
    return f"{words} in {function}" if function else words


def _function(signature: Signature, told: str | None, lines: Sequence[str]) -> str | None:
    found: str | None = None
    match signature.where:
        case Where.NOWHERE:
            return None
        case Where.HEADLINE:
            found = told
        case Where.POINTER:
            found = _first(_POINTER, lines)
        case Where.LOCK:
            found = _locker(lines)
            if found and ENTRIES.match(found):
                found = None
        case Where.ENTRY:
            found = _outermost(lines)
        case Where.CALLER:
            pass
    if not found or MACHINERY.match(_plain(found)):
        trace = _last_trace(lines) if signature.kind is Kind.LOCKDEP else lines
        found = _innermost(trace) or told or _first(_POINTER, lines)
    return _plain(found) if found else None


def _plain(function: str) -> str:
    """Without what the compiler, or an architecture's system call table, made of its name."""
    if function.startswith("_R"):
        return _rust(function) or function
    return _WRAPPER.sub("sys_", function.partition(".")[0])


def _rust(symbol: str) -> str:
    """The path in a symbol of Rust's, without the hashes of a build: RFC 2603."""
    words: list[str] = []
    place = 2
    while match := _RUST.match(symbol, place):
        place = match.end()
        if match["length"]:
            words.append(symbol[place : place + int(match["length"])])
            place += int(match["length"])
    return "::".join(words)


def _first(pattern: re.Pattern[str], lines: Iterable[str]) -> str | None:
    return next((m["function"] for line in lines if (m := pattern.match(line))), None)


def _calls(lines: Iterable[str]) -> Iterator[str]:
    """The functions of call traces, innermost first, without guesses."""
    for line in lines:
        match = _FRAME.match(line)
        if match and not match["unsure"]:
            yield _plain(match["function"])


def _innermost(lines: Iterable[str]) -> str | None:
    known = [name for name in _calls(lines) if not MACHINERY.match(name)]
    work = (name for name in known if not ENTRIES.match(name))
    return next(work, None) or next(iter(known), None)


def _is_common(function: str) -> bool:
    return bool(MACHINERY.match(function) or ENTRIES.match(function))


def _last_trace(lines: Sequence[str]) -> Sequence[str]:
    """Lockdep shows where locks were taken before, and then its own call trace."""
    starts = [number for number, line in enumerate(lines) if begins_trace(line)]
    return lines[starts[-1] :] if starts else lines


def _locker(lines: Sequence[str]) -> str | None:
    """Who takes a lock: "f+0x1/0x2" after "is trying to acquire lock:"."""
    for number, line in enumerate(lines):
        if _TAKES.match(line):
            return _first(_AT, lines[number : number + 6])
    return None


def _outermost(lines: Sequence[str]) -> str | None:
    """Of the first call trace that is a task's: its outermost function but the entry."""
    traces: list[list[str]] = [[]]
    for line in lines:
        if begins_trace(line):
            traces.append([])
        elif _INTERRUPT_ENDS.match(line):
            traces[-1].clear()  # what came until here was the interrupt's own
        else:
            traces[-1] += (name for name in _calls([line]) if not _is_common(name))
    return next((trace[-1] for trace in traces if trace), None)
