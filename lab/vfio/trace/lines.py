# SPDX-License-Identifier: GPL-2.0-only
"""From what was recorded to lines, one a call."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lab.agent.program import (
    Arg,
    Buf,
    Call,
    Delay,
    Fault,
    Field,
    Imm,
    Load,
    Op,
    Operand,
    Program,
    Read,
    Reg,
    Result,
    Round,
    Store,
    Write,
)
from lab.agent.trace import Began, Ended, Event, Exchange
from lab.vfio.trace.process import ProcessState
from lab.vfio.trace.syscalls import Given, Made, apply, value_words, words
from lab.vfio.trace.values import error, number, quoted, signal_name

_NS = 1e9
_COMMON, _RARE = 2, 4  # of the ways in which a race ended, so many are shown
_UNFINISHED = " = ?"


@dataclass(frozen=True)
class Line:
    """`seconds` are of the guest's clock, CLOCK_MONOTONIC; `thread` counts from 1 in a race.

    `times` says how often it was done in a row, and `last` when the last time was.
    """

    pid: int
    seconds: float
    text: str
    duration: float | None = None
    thread: int | None = None
    times: int = 1
    last: float = 0.0


class Reader:
    """Reads the events of one guest in their order; what it knows of each process grows with it.

    `clock` is what `host_clock` says.
    """

    def __init__(self, events: Iterable[Event], clock: float) -> None:
        self.names: dict[int, str] = {}
        """Names of processes by their PID."""
        self._processes: dict[int, ProcessState] = {}
        self._events = events
        self._host = clock

    def lines(self) -> Iterator[Line]:
        """Each call, the same call many times in a row as one."""
        return _once(self._lines())

    def _lines(self) -> Iterator[Line]:
        for event in self._events:
            match event:
                case Began(pid, name):
                    self.names[pid] = name
                    self._processes[pid] = ProcessState(pid)
                case Ended(pid, why, at):
                    yield Line(pid, at + self._host, f"+++ gone: {why} +++")
                case Exchange():
                    yield from self._exchange(event)

    def _exchange(self, exchange: Exchange) -> Iterator[Line]:
        process = self._processes.setdefault(exchange.pid, ProcessState(exchange.pid))
        program, result = exchange.program, exchange.result()
        sent = exchange.sent + self._host
        if result is None:
            yield from self._unanswered(exchange, process, sent)
        elif program.rounds == 1:
            yield from self._round(program, result.rounds[0], process, 0)
        else:
            yield from self._race(program, result.rounds, process)

    def _unanswered(self, exchange: Exchange, process: ProcessState, sent: float) -> Iterator[Line]:
        program = exchange.program
        if program.rounds > 1:
            yield Line(process.pid, sent, f"{_race_words(program)}, of which nothing is known:")
        for op, thread in _ops(program):
            text = _words(op, None, process, {}, 0) + _UNFINISHED
            yield Line(process.pid, sent, f"{text} {exchange.note}".rstrip(), thread=thread)
        if exchange.note:
            process.memory.clear()  # an agent of its own, as execve() leaves it

    def _race(
        self, program: Program, rounds: Sequence[Round], process: ProcessState
    ) -> Iterator[Line]:
        """How often it ended in which way, and of each way the first round."""
        ways: dict[tuple[str, ...], list[int]] = {}
        for place, each in enumerate(rounds):
            ways.setdefault(_way(program, each), []).append(place)
        ordered = sorted(ways.values(), key=len, reverse=True)
        shown = ordered
        if len(ordered) > _COMMON + _RARE:
            shown = [*ordered[:_COMMON], *ordered[-_RARE:]]
        begin, end = _begin(rounds[0]), _end(rounds[-1])
        text = f"{_race_words(program)}, which ended in {_counted(len(ways), 'way')}:"
        yield Line(process.pid, begin, text, end - begin)
        for places in shown:
            each = rounds[places[0]]
            count = f"{len(places)} of {len(rounds)} rounds"
            yield Line(process.pid, _begin(each), f"{count}, the first of them round {places[0]}:")
            yield from self._round(program, each, process, places[0])
        if len(shown) < len(ordered):
            yield Line(process.pid, end, f"{len(ordered) - len(shown)} other ways are not shown")

    def _round(
        self, program: Program, each: Round, process: ProcessState, place: int
    ) -> Iterator[Line]:
        registers: dict[int, int] = {}
        for op, result, thread in _done(program, each):
            yield self._line(op, result, process, registers, place, thread)

    def _line(
        self,
        op: Op,
        result: Result,
        process: ProcessState,
        registers: dict[int, int],
        place: int,
        thread: int | None,
    ) -> Line:
        text = _words(op, result, process, registers, place)
        made = _made(op, result, registers) if isinstance(op, Call) else None
        if made and result.ok:
            apply(made, process, self._processes)
        _fill(op, result, registers)
        begin, end = result.start_ns / _NS, result.end_ns / _NS
        text += _outcome(op, result, made, process)
        return Line(process.pid, begin, text, end - begin, thread)


def host_clock(events: Iterable[Event]) -> float:
    """What the host's clock lacks to the guest's, in seconds; good for milliseconds."""
    differences = []
    for event in events:
        result = event.result() if isinstance(event, Exchange) else None
        if result and isinstance(event, Exchange):
            differences.append(_begin(result.rounds[0]) - event.sent)
    return min(differences, default=0.0)


def _once(lines: Iterable[Line]) -> Iterator[Line]:
    """What is polled is told once."""
    waiting: Line | None = None
    for line in lines:
        if waiting and (line.pid, line.thread, line.text) == (
            waiting.pid,
            waiting.thread,
            waiting.text,
        ):
            waiting = replace(waiting, times=waiting.times + 1, last=line.seconds)
            continue
        if waiting:
            yield waiting
        waiting = line
    if waiting:
        yield waiting


# Rounds


def _ops(program: Program) -> Iterator[tuple[Op, int | None]]:
    yield from ((op, None) for op in program.setup)
    for thread, ops in enumerate(program.threads, 1):
        yield from ((op, thread) for op in ops)
    yield from ((op, None) for op in program.teardown)


def _results(each: Round) -> list[Result]:
    return [*each.setup, *(result for thread in each.threads for result in thread), *each.teardown]


def _done(program: Program, each: Round) -> list[tuple[Op, Result, int | None]]:
    """Ops with their results in the order in which they were begun."""
    every = [
        (op, result, thread)
        for (op, thread), result in zip(_ops(program), _results(each), strict=True)
    ]
    first, last = len(program.setup), len(every) - len(program.teardown)
    racing = sorted(every[first:last], key=lambda done: done[1].start_ns)
    return [*every[:first], *racing, *every[last:]]


def _begin(each: Round) -> float:
    return min((result.start_ns for result in _results(each)), default=0) / _NS


def _end(each: Round) -> float:
    return max((result.end_ns for result in _results(each)), default=0) / _NS


def _way(program: Program, each: Round) -> tuple[str, ...]:
    """What the calls of a round returned, in which two rounds may differ."""
    return tuple(
        f"signal {result.fault.signal}" if result.fault else str(result.errno)
        for (op, _), result in zip(_ops(program), _results(each), strict=True)
        if not isinstance(op, Delay)
    )


def _race_words(program: Program) -> str:
    threads = f" of {_counted(len(program.threads), 'thread')}" if program.threads else ""
    return f"{_counted(program.rounds, 'round')}{threads}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


# Ops


def _fill(op: Op, result: Result, registers: dict[int, int]) -> None:
    """What an op leaves in registers."""
    if isinstance(op, Call | Load) and op.register is not None:
        registers[op.register] = result.value if result.ok else -1
    if isinstance(op, Call):
        returned = [arg for arg in op.args if isinstance(arg, Buf) and arg.returned]
        for arg, after in zip(returned, result.buffers, strict=True):
            for chosen in arg.outputs:
                data = after[chosen.offset : chosen.offset + chosen.width]
                ok = result.ok
                registers[chosen.register] = int.from_bytes(data, "little") if ok else -1


def _number(operand: Operand, registers: Mapping[int, int]) -> int:
    if isinstance(operand, Imm):
        return operand.value
    return registers.get(operand.number, -1) + operand.offset


def _given(arg: Arg, after: bytes | None, registers: Mapping[int, int], known: bool) -> Given:
    match arg:
        case Reg(place) if not known:
            return Given(unknown=f"r{place}")
        case Imm() | Reg():
            return Given(_number(arg, registers))
        case Buf():
            data = bytearray(arg.data.ljust(arg.length, b"\0"))
            for chosen in arg.inputs:
                _put(data, chosen, registers)
            return Given(before=bytes(data), after=after)


def _put(data: bytearray, chosen: Field, registers: Mapping[int, int]) -> None:
    value = registers.get(chosen.register, -1) & ((1 << 8 * chosen.width) - 1)
    data[chosen.offset : chosen.offset + chosen.width] = value.to_bytes(chosen.width, "little")


def _made(op: Call, result: Result | None, registers: Mapping[int, int]) -> Made:
    buffers = iter(result.buffers if result else ())
    args = [
        _given(
            arg,
            next(buffers, None) if isinstance(arg, Buf) and arg.returned else None,
            registers,
            result is not None,
        )
        for arg in op.args
    ]
    return Made(op.nr, args, result.value if result else None)


def _words(
    op: Op,
    result: Result | None,
    process: ProcessState,
    registers: Mapping[int, int],
    place: int,
) -> str:
    """What was asked for; `place` is the round's."""

    def operand(given: Operand, show: Callable[[int], str] = process.address) -> str:
        if isinstance(given, Reg) and result is None:
            return f"r{given.number}"
        return show(_number(given, registers))

    match op:
        case Call():
            return words(_made(op, result, registers), process)
        case Read(address, length):
            data = quoted(result.data) if result and result.ok else "..."
            return f"memcpy({data}, {operand(address)}, {length})"
        case Write(address, data):
            return f"memcpy({operand(address)}, {quoted(data)}, {len(data)})"
        case Load(address, width):
            return f"load{8 * width}({operand(address)})"
        case Store(address, width, value):
            return f"store{8 * width}({operand(address)}, {operand(value, hex)})"
        case Delay(ns, step_ns):
            return f"delay({ns + place * step_ns} ns)"


def _outcome(op: Op, result: Result, made: Made | None, process: ProcessState) -> str:
    if result.fault:
        return f" {_fault(result.fault)}"
    if made:
        return f" = {error(result.errno) if result.errno else value_words(made, process)}"
    return f" = {result.value:#x}" if isinstance(op, Load) else ""


def _fault(fault: Fault) -> str:
    detail = f"si_code={number(fault.code)}, si_addr={fault.address:#x}"
    return f"--- {signal_name(fault.signal)} {{{detail}}} ---"
