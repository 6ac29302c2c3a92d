# SPDX-License-Identifier: GPL-2.0-only
"""Races: threads of one process, and of two."""

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.agent.calls import at, close, openat
from lab.agent.errors import AgentRefused
from lab.agent.process import Process
from lab.agent.program import BARRIER_SIZE, Buf, Call, Delay, Imm, Program, Result
from lab.agent.race import run_together, shared_mapping
from lab.agent.syscalls import Syscall

ROUNDS = 300


def create(path: Path, register: int) -> Call:
    return openat(path, register, flags=os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)


def unlink(path: Path) -> Call:
    return Call(Syscall.UNLINKAT, (*at(path), Imm(0)))


def assert_one_wins(contenders: list[Result]) -> None:
    assert sorted(result.errno for result in contenders) == [0, errno.EEXIST]


def assert_some_overlap(pairs: list[tuple[Result, Result]]) -> None:
    """With one processor they can only take turns."""
    assert len(os.sched_getaffinity(0)) == 1 or any(
        max(first.start_ns, second.start_ns) < min(first.end_ns, second.end_ns)
        for first, second in pairs
    )


def test_two_threads_race_and_one_wins_each_round(process: Process, tmp_path: Path) -> None:
    path = tmp_path / "prize"
    winners: Counter[int] = Counter()
    # On a busy host the same one may win each round: either gets a head start on purpose.
    for starts in ((Delay(0), Delay(100_000)), (Delay(100_000), Delay(0))):
        program = Program(
            threads=tuple((starts[fd], create(path, fd)) for fd in (0, 1)),
            teardown=(close(0), close(1), unlink(path)),
            rounds=ROUNDS,
        )
        rounds = process.run(program).rounds
        assert len(rounds) == ROUNDS
        for each in rounds:
            contenders = [thread[1] for thread in each.threads]
            assert_one_wins(contenders)
            winners[[result.ok for result in contenders].index(True)] += 1
            # The loser's close() is an EBADF that harms nothing.
            assert [result.ok for result in each.teardown].count(True) == 2
    assert len(winners) == 2, winners
    assert len(process.fds()) == 3


def test_threads_run_at_the_same_time(process: Process, tmp_path: Path) -> None:
    path = tmp_path / "prize"
    program = Program(
        threads=((create(path, 0),), (create(path, 1),)),
        teardown=(close(0), close(1), unlink(path)),
        rounds=ROUNDS,
    )
    rounds = process.run(program).rounds
    assert_some_overlap([(each.threads[0][0], each.threads[1][0]) for each in rounds])


def test_setup_comes_before_and_teardown_after_all_threads(process: Process) -> None:
    program = Program(
        setup=(Delay(1000),),
        threads=tuple((Delay(ns),) for ns in (1000, 200_000, 50_000)),
        teardown=(Delay(1000),),
        rounds=20,
    )
    previous = 0
    for each in process.run(program).rounds:
        (setup,), (teardown,) = each.setup, each.teardown
        threads = [thread[0] for thread in each.threads]
        assert previous <= setup.start_ns
        assert setup.end_ns <= min(result.start_ns for result in threads)
        assert max(result.end_ns for result in threads) <= teardown.start_ns
        previous = teardown.end_ns


def test_more_threads_than_processors(process: Process) -> None:
    threads = tuple((Call(Syscall.GETTID),) for _ in range(16))
    rounds = process.run(Program(threads=threads, rounds=20)).rounds
    for each in rounds:
        assert len({thread[0].value for thread in each.threads}) == 16
    assert len(process.listdir("/proc/self/task")) == 2


def test_racing_leaves_the_process_all_its_processors(process: Process) -> None:
    process.run(Program(threads=((Delay(0),), (Delay(0),))))
    assert os.sched_getaffinity(process.pid) == os.sched_getaffinity(0)


def test_racers_go_where_the_process_is_not(process: Process) -> None:
    """It may be kept on one processor, as in a guest; those who race are not, and it is after."""
    processors = os.sched_getaffinity(0)
    home = {min(processors)}
    os.sched_setaffinity(process.pid, home)
    look = Call(Syscall.SCHED_GETAFFINITY, (Imm(0), Imm(128), Buf(size=128)))
    (result,) = process.run(Program(threads=((look,), (look,)))).rounds
    racers = [thread[0].buffers[0] for thread in result.threads]
    assert len(set(racers)) == min(2, len(processors))
    assert os.sched_getaffinity(process.pid) == home


def test_processes_race_over_a_shared_barrier(spawn: Callable[[], Process], tmp_path: Path) -> None:
    path = tmp_path / "prize"
    first, second = spawn(), spawn()
    with shared_mapping(first, second, BARRIER_SIZE) as barriers:
        # Only one unlinks; the finish barrier keeps it from doing so under the other's race.
        programs = [
            Program(
                threads=((create(path, 0),),),
                teardown=(close(0), *more),
                rounds=ROUNDS,
                barrier=mapping.address,
                parties=2,
            )
            for mapping, more in zip(barriers, ((unlink(path),), ()), strict=True)
        ]
        for _ in range(2):  # a barrier can be used again
            results = run_together(list(zip((first, second), programs, strict=True)))
            rounds = list(zip(*(result.rounds for result in results), strict=True))
            winners: Counter[int] = Counter()
            for one, other in rounds:
                contenders = [one.threads[0][0], other.threads[0][0]]
                assert_one_wins(contenders)
                winners[[result.ok for result in contenders].index(True)] += 1
            assert len(winners) == 2, winners
            assert_some_overlap([(a.threads[0][0], b.threads[0][0]) for a, b in rounds])


def test_without_a_common_barrier_processes_do_not_exclude_each_other(
    spawn: Callable[[], Process], tmp_path: Path
) -> None:
    """The control of the test above: each runs by itself, and wins every round."""
    path = tmp_path / "prize"
    program = Program(threads=((create(path, 0),),), teardown=(close(0), unlink(path)), rounds=5)
    for process in (spawn(), spawn()):
        rounds = process.run(program).rounds
        assert all(each.threads[0][0].ok for each in rounds)


@pytest.mark.parametrize("address", [0x1000, 0x1001])
def test_a_barrier_at_a_bad_address_is_refused(process: Process, address: int) -> None:
    program = Program(threads=((Delay(0),),), barrier=address, parties=2)
    with pytest.raises(AgentRefused, match="barrier"):
        process.run(program)
    assert process.syscall(Syscall.GETPID) == process.pid


def test_parties_without_a_barrier_are_refused(process: Process) -> None:
    with pytest.raises(AgentRefused, match="shared barrier"):
        process.run(Program(threads=((Delay(0),),), parties=2))


def test_programs_of_different_length_cannot_meet(spawn: Callable[[], Process]) -> None:
    work = [(spawn(), Program(rounds=1)), (spawn(), Program(rounds=2))]
    with pytest.raises(ValueError, match="same number of rounds"):
        run_together(work)
