# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel prints when it is asked for its backtraces, read: where each CPU and task is.

SysRq l, w and t print them (Documentation/admin-guide/sysrq.rst): of the CPUs, which interrupt
each other for it with NMIs (lib/nmi_backtrace.c), of the blocked tasks, and of all tasks
(kernel/sched/core.c: sched_show_task()).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PREFIX = re.compile(r"^\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?", re.MULTILINE)
_CPU = re.compile(
    r"^(?:NMI backtrace for cpu (?P<cpu>\d+)|sysrq: .*|Kernel panic .*)", re.MULTILINE
)
_TASK = re.compile(
    r"^(?:task:(?P<name>\S+)\s+state:(?P<state>\S).*? pid:(?P<pid>\d+)"
    r"(?:\s+tgid:(?P<tgid>\d+))?|sysrq: )"
)
_RUNS = re.compile(r"^CPU: (?P<cpu>\d+) .*?\bPID: (?P<pid>\d+) Comm: (?P<name>\S+)", re.MULTILINE)
_WAS = re.compile(r"^RIP: (?P<segment>[0-9a-f]{4}):(?P<function>[^\s+]*)")
_FRAME = re.compile(r"^ +(?P<function>[\w.]+)\+0x[0-9a-f]+/0x[0-9a-f]+")
_END = re.compile(r"^ *</(?:TASK|IRQ|SOFTIRQ)>")
_KERNEL = "0010"  # the code segment: __KERNEL_CS
_VARIANT = re.compile(r"\.(?:constprop|isra|part|cold|llvm)\b.*$")
_IDLE = {"do_idle", "cpu_idle_poll"}
# Innermost in every task that waits, and outermost in every one: they tell nobody anything.
_SCHEDULER = re.compile(r"^(?:__schedule|schedule|schedule_\w+|io_schedule\w*)$")
_OUTERMOST = re.compile(
    r"^(?:do_syscall_64|entry_SYSCALL\w*|ret_from_fork\w*|x64_sys_call|asm_\w+|common_startup_64)$"
)
_SHOWN = 4  # functions


@dataclass(frozen=True)
class Place:
    """Where a CPU or a task is.

    `functions` are the kernel's, innermost first; what is in user space has none. `below` are the
    task's own where the CPU serves an interrupt. `pid` and `name` are the task's, and `process` its
    thread group, as far as the kernel says it (6.2 and newer). `deaf` is a CPU in the kernel that
    takes no interrupt.
    """

    cpu: int | None = None
    pid: int | None = None
    name: str = ""
    functions: tuple[str, ...] = ()
    state: str = "R"  # as ps(1) says it
    process: int | None = None
    deaf: bool = False
    below: tuple[str, ...] = ()
    text: str = ""  # as the kernel printed it

    def __str__(self) -> str:
        task = f"{self.name} (pid {self.pid})" if self.pid is not None else ""
        chain = " < ".join(self.functions[:_SHOWN])
        chain += f", above {' < '.join(self.below[:_SHOWN])}" if self.below else ""
        if self.cpu is None:
            return f"{task} {'is blocked' if self.state == 'D' else 'waits'} in {chain}"
        words = f"CPU {self.cpu} runs {chain or 'user space'}"
        words += ", its interrupts off" if self.deaf else ""
        return f"{words}, in {task}" if task else words


def cpus(text: str) -> dict[int, Place]:
    """By its number, every CPU that does not idle, of what SysRq l or a panic printed."""
    found: dict[int, Place] = {}
    for block in _blocks(text, _CPU):
        runs = _RUNS.search("\n".join(block))
        if not runs or "skipped: idling" in block[0]:
            continue
        functions, below = _interrupted(block)
        if not _IDLE & set(functions):
            cpu, text = int(runs["cpu"]), "\n".join(block)
            below = () if _IDLE & set(below) else below
            place = Place(cpu, int(runs["pid"]), runs["name"], functions, below=below, text=text)
            found[cpu] = place
    return found


def tasks(text: str) -> dict[int, Place]:
    """By its PID, every task of what SysRq w or t printed."""
    found: dict[int, Place] = {}
    for block in _blocks(text, _TASK):
        if (head := _TASK.match(block[0])) and head["pid"]:
            functions = [name for name in _frames(block) if not _SCHEDULER.match(name)]
            pid, process = int(head["pid"]), int(head["tgid"] or head["pid"])
            text = "\n".join(block)
            found[pid] = Place(
                None, pid, head["name"], tuple(functions), head["state"], process, text=text
            )
    return found


def _blocks(text: str, start: re.Pattern[str]) -> Iterator[list[str]]:
    """The text in pieces, each from a line that matches `start` to before the next one."""
    block: list[str] = []
    for line in _PREFIX.sub("", text).splitlines():
        if start.match(line):
            if block:
                yield block
            block = [line]
        elif block:
            block.append(line)
    if block:
        yield block


def _interrupted(block: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a CPU did before it was asked: the function in the registers that were saved, and the
    frames behind it. The second is the task's own where an interrupt had stopped that."""
    contexts: list[list[str]] = [[]]
    begun = not any(map(_WAS.match, block))  # some traces have no registers
    for line in block:
        if was := _WAS.match(line):
            if was["segment"] != _KERNEL:
                break
            begun = True
            contexts[-1].append(_plain(was["function"]))
        elif not begun:
            continue
        elif _END.match(line):
            contexts.append([])
        elif frame := next(_frames([line]), None):
            contexts[-1].append(frame)
    told = [tuple(dict.fromkeys(context)) for context in contexts if context]
    return told[0] if told else (), told[1] if len(told) > 1 else ()


def _frames(block: list[str]) -> Iterator[str]:
    for line in block:
        if _END.match(line):
            return
        frame = _FRAME.match(line)
        if frame and not _OUTERMOST.match(frame["function"]):
            yield _plain(frame["function"])


def _plain(function: str) -> str:
    """A function's name in the source, without what the compiler added."""
    return _VARIANT.sub("", function)
