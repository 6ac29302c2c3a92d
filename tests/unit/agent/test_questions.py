# SPDX-License-Identifier: GPL-2.0-only
"""Questions to the kernel, `lab.condition.asking`: the host's own answers them here."""

import os
import subprocess
from collections.abc import Sequence
from errno import EISDIR
from pathlib import Path
from typing import Any

import pytest

from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.agent.program import Op, Result
from lab.condition.asking import Question, ask, links, names, stream, text, texts, together


class Counting:
    """A process that counts its round trips."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.trips = 0

    def batch(self, ops: Sequence[Op]) -> Sequence[Result]:
        self.trips += 1
        return self.process.batch(ops)


def asked(process: Process, question: Question[Any]) -> tuple[Any, int]:
    """The answer, and how many round trips it took."""
    counting = Counting(process)
    return ask(counting, question), counting.trips  # type: ignore[arg-type]


def test_small_files_take_one_round_trip(process: Process, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).write_text(f"{number}\n")
    paths = [str(tmp_path / str(number)) for number in range(20)]
    answer, trips = asked(process, texts([*paths, str(tmp_path / "not-there")]))
    assert answer == {path: f"{n}\n" for n, path in enumerate(paths)} | {
        str(tmp_path / "not-there"): None
    }
    assert trips == 1


def test_a_process_that_goes_while_it_is_asked_has_no_files(process: Process) -> None:
    """Between openat() and getdents64(), here while its folder is held open."""
    with subprocess.Popen(["sleep", "60"]) as other:
        flags = os.O_RDONLY | os.O_DIRECTORY
        with process.open(f"/proc/{other.pid}/fd", flags) as folder:
            held = f"/proc/self/fd/{folder.fd}"
            assert "0" in (ask(process, names(held)) or ())
            other.kill()
            other.wait()
            assert ask(process, names(held)) is None


@pytest.mark.parametrize("length", [0, 63, 64, 65, 512, 5000])
def test_a_file_comes_whole(process: Process, tmp_path: Path, length: int) -> None:
    content = "0123456789" * length
    (tmp_path / "file").write_text(content[:length])
    assert ask(process, text(str(tmp_path / "file"))) == content[:length]
    assert ask(process, stream(str(tmp_path / "file"), 64)) == content[:length]


def test_what_seq_file_gives_in_pieces_comes_whole(process: Process) -> None:
    """/proc/PID/smaps is one, and no read of it gives more than a page."""
    asked_for = ask(process, stream("/proc/self/smaps")) or ""
    assert len(asked_for) > process.page_size
    whole = process.read_text("/proc/self/smaps")
    assert [line.split()[0] for line in asked_for.splitlines()] == [
        line.split()[0] for line in whole.splitlines()
    ]


def test_a_large_directory_comes_whole(process: Process, tmp_path: Path) -> None:
    wanted = [f"{number:0100}" for number in range(200)]
    for name in wanted:
        (tmp_path / name).touch()
    assert ask(process, names(str(tmp_path))) == wanted
    assert ask(process, names(str(tmp_path / "not-there"))) is None
    assert ask(process, names(str(tmp_path / wanted[0]))) is None


def test_links_of_every_length(process: Process, tmp_path: Path) -> None:
    targets = {str(tmp_path / str(n)): "x" * n for n in (1, 63, 64, 65, 600)}
    for path, target in targets.items():
        Path(path).symlink_to(target)
    nowhere = str(tmp_path / "not-there")
    assert ask(process, links([*targets, nowhere])) == targets | {nowhere: None}


def test_what_cannot_be_read_is_an_error(process: Process, tmp_path: Path) -> None:
    for question in (text(str(tmp_path)), stream(str(tmp_path))):
        with pytest.raises(RemoteError, match=f"read {tmp_path}") as raised:
            ask(process, question)
        assert raised.value.errno == EISDIR


def test_together_they_take_as_long_as_the_longest(process: Process, tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * 100)  # takes two steps
    (tmp_path / "short").write_text("y")

    def one_after_the_other() -> Question[tuple[str | None, str | None]]:
        first = yield from text(str(tmp_path / "long"))
        second = yield from text(str(tmp_path / "short"))
        return first, second

    def without_a_step() -> Question[str]:
        yield from ()
        return "nothing to ask"

    answers, trips = asked(
        process,
        together(without_a_step(), text(str(tmp_path / "short")), one_after_the_other()),
    )
    assert answers == ["nothing to ask", "y", ("x" * 100, "y")]
    assert trips == 3
