# SPDX-License-Identifier: GPL-2.0-only
"""Questions to a guest's kernel, so many in one round trip as can be.

A question is a generator: it yields the ops of its next step, is sent their results, and returns
its answer. Questions that are asked together take their steps together: what the longest of them
takes in round trips is what all of them take. Each raises RemoteError where the kernel refuses;
what is not there is None. The results' buffers travel whole, so they are small.
"""

import os
from collections.abc import Generator, Iterable, Sequence
from errno import ENOENT, ENOTDIR, ESRCH
from typing import Any, TypeVar

from lab.agent.calls import at, close, openat
from lab.agent.errors import check
from lab.agent.process import Process, entry_names
from lab.agent.program import Buf, Call, Imm, Op, Reg, Result
from lab.agent.syscalls import Syscall

Answer = TypeVar("Answer")
Question = Generator[Sequence[Op], Sequence[Result], Answer]

ABSENT = (ENOENT, ENOTDIR, ESRCH)  # ESRCH is what /proc says of a process that is just going
_LARGER = 8  # times, for what did not fit
_PROBE = 8  # bytes; a read that finds any tells that the one before it did not reach the end
_PROBE_ENTRY = 320  # the same for a directory: the longest name must fit
_STREAM = 4096  # bytes; seq_file(9) gives no more at once


def ask(process: Process, question: Question[Answer]) -> Answer:
    """The answer. Raises what the question raises, and what `Process.batch` does."""
    try:
        ops = next(question)
        while True:
            ops = question.send(process.batch(ops))
    except StopIteration as end:
        answer: Answer = end.value
        return answer


def together(*questions: Question[Any]) -> Question[list[Any]]:
    """The answers of all, which take their steps together."""
    answers: list[Any] = [None] * len(questions)
    steps: dict[int, Sequence[Op]] = {}

    def go_on(number: int, results: Sequence[Result] | None) -> None:
        try:
            question = questions[number]
            steps[number] = next(question) if results is None else question.send(results)
        except StopIteration as end:
            answers[number] = end.value

    for number in range(len(questions)):
        go_on(number, None)
    while steps:
        taken, steps = steps, {}
        results = yield [op for ops in taken.values() for op in ops]
        start = 0
        for number, ops in taken.items():
            go_on(number, results[start : start + len(ops)])
            start += len(ops)
    return answers


def texts(paths: Iterable[str], size: int = 64) -> Question[dict[str, str | None]]:
    """Files of sysfs and the like, each whole in one read; most have less than `size` bytes."""
    found: dict[str, str | None] = dict.fromkeys(paths)
    wanted = list(found)
    while wanted:
        results = yield [op for path in wanted for op in _read(path, size)]
        larger = []
        for path, (opened, read) in zip(wanted, _groups(results, 3, 2), strict=True):
            if opened.errno in ABSENT or read.errno in ABSENT:
                continue
            check(opened, f"openat {path}")
            if check(read, f"read {path}").value == size:
                larger.append(path)
            else:
                found[path] = _decoded(read)
        wanted, size = larger, size * _LARGER
    return found


def text(path: str, size: int = 64) -> Question[str | None]:
    """One of them."""
    found = yield from texts([path], size)
    return found[path]


def stream(path: str, size: int = _STREAM, pieces: int = 1) -> Question[str | None]:
    """A file of any length, such as seq_file(9)'s, which end no read where they end; most are
    `pieces` of at most `size` bytes."""
    sizes = [size] * pieces + [_PROBE]
    while True:
        reads = [_read_call(each) for each in sizes]
        opened, *parts, _ = yield [openat(path, flags=os.O_RDONLY), *reads, close()]
        if opened.errno in ABSENT:
            return None
        check(opened, f"openat {path}")
        for part in parts:
            check(part, f"read {path}")
        if parts[-1].value == 0:
            return "".join(map(_decoded, parts))
        sizes = [_STREAM] * (_LARGER * len(sizes))


def exists(path: str) -> Question[bool]:
    """Whether it leads somewhere."""
    (result,) = yield [Call(Syscall.FACCESSAT, (*at(path), Imm(os.F_OK)))]
    return result.errno not in ABSENT and check(result, f"faccessat {path}").ok


def names(path: str, size: int = 1024) -> Question[list[str] | None]:
    """What a directory holds, sorted."""
    while True:
        opened, listed, probe, _ = yield [
            openat(path, flags=os.O_RDONLY | os.O_DIRECTORY),
            _entries_call(size),
            _entries_call(_PROBE_ENTRY),
            close(),
        ]
        # fs/proc/fd.c: of a process that has just gone, what was opened lists nothing
        if any(each.errno in ABSENT for each in (opened, listed, probe)):
            return None
        check(opened, f"openat {path}")
        check(listed, f"getdents64 {path}")
        if check(probe, f"getdents64 {path}").value == 0:
            entries = entry_names(listed.data[: listed.value])
            return sorted(name for name in entries if name not in (".", ".."))
        size *= _LARGER


def links(paths: Iterable[str], size: int = 64) -> Question[dict[str, str | None]]:
    """Where symbolic links point to."""
    found: dict[str, str | None] = dict.fromkeys(paths)
    wanted = list(found)
    while wanted:
        results = yield [
            Call(Syscall.READLINKAT, (*at(path), Buf(size=size), Imm(size))) for path in wanted
        ]
        larger = []
        for path, result in zip(wanted, results, strict=True):
            if result.errno in ABSENT:
                continue
            if check(result, f"readlinkat {path}").value == size:
                larger.append(path)
            else:
                found[path] = _decoded(result)
        wanted, size = larger, size * _LARGER
    return found


def _read(path: str, size: int) -> tuple[Op, Op, Op]:
    return openat(path, flags=os.O_RDONLY), _read_call(size), close()


def _read_call(size: int) -> Call:
    return Call(Syscall.READ, (Reg(0), Buf(size=size), Imm(size)))


def _entries_call(size: int) -> Call:
    return Call(Syscall.GETDENTS64, (Reg(0), Buf(size=size), Imm(size)))


def _groups(results: Sequence[Result], step: int, first: int) -> Iterable[Sequence[Result]]:
    """Of each `step` results the `first` ones."""
    return (results[start : start + first] for start in range(0, len(results), step))


def _decoded(result: Result) -> str:
    return os.fsdecode(result.data[: result.value])
