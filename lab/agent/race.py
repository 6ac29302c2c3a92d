# SPDX-License-Identifier: GPL-2.0-only
"""Races between processes: their threads meet at a barrier in memory that they share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.agent.memory import Mapping
from lab.agent.process import Process
from lab.agent.program import Program, ProgramResult


@contextmanager
def shared_mapping(owner: Process, peer: Process, length: int) -> Iterator[tuple[Mapping, Mapping]]:
    """The same zeroed memory in two processes of one guest; a barrier may live in it."""
    with (
        owner.memfd(length, "shared") as file,
        peer.open(f"/proc/{owner.pid}/fd/{file.fd}") as same_file,
        file.mmap(length) as mapping,
        same_file.mmap(length) as same_mapping,
    ):
        yield mapping, same_mapping


def run_together(
    work: Sequence[tuple[Process, Program]], *, timeout: float | None = None
) -> list[ProgramResult]:
    """Run programs that meet at one barrier; results in the order of `work`.

    When one process fails the others may wait for it for ever: all are closed then.
    """
    if len({program.rounds for _, program in work}) > 1:
        raise ValueError("programs that meet at a barrier have the same number of rounds")
    try:
        pending = [process.start(program, timeout=timeout) for process, program in work]
        return [each.wait() for each in pending]
    except BaseException:
        for process, _ in work:
            process.close()
        raise
