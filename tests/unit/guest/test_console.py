# SPDX-License-Identifier: GPL-2.0-only
"""Every byte of a console is stored, and whoever waits for one is woken."""

import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.deadline import Deadline
from lab.guest.console import Console

SOON = 0.05  # seconds
LATE = 10.0


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path / "console.log")


@contextmanager
def meanwhile(*acts: object) -> Iterator[None]:
    """Call these on another thread while the block waits."""

    def work() -> None:
        for act in acts:
            time.sleep(SOON)
            assert callable(act)
            act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_the_file_holds_every_byte_and_at_once(console: Console) -> None:
    console.data_received(b"one\r\n\x00\xff")
    assert console.path.read_bytes() == b"one\r\n\x00\xff"
    assert console.size == 7


def test_the_text_has_plain_lines_and_survives_noise(console: Console) -> None:
    console.data_received(b"one\r\ntwo \xff\r\n")
    assert console.text() == "one\ntwo \ufffd\n"


def test_a_letter_that_comes_in_two_pieces_is_whole(console: Console) -> None:
    console.data_received(b"\xc3")
    console.data_received(b"\xa4")
    assert console.text() == "ä"


def test_text_begins_where_one_was(console: Console) -> None:
    console.data_received(b"before\r\n")
    start = console.size
    console.data_received(b"after\r\n")
    assert console.text(start) == "after\n"
    assert console.text(console.size) == ""


def test_the_tail_is_the_last_lines(console: Console) -> None:
    console.data_received(b"".join(b"line %d\r\n" % n for n in range(20)))
    assert console.tail(2) == "    line 18\n    line 19"


def test_who_waits_is_woken_by_what_is_printed(console: Console) -> None:
    with meanwhile(lambda: console.data_received(b"not "), lambda: console.data_received(b"ready")):
        assert console.wait_until(lambda: "ready" in console.text(), Deadline.after(LATE))


def test_who_waits_is_woken_by_something_else(console: Console) -> None:
    changed = threading.Event()
    with meanwhile(changed.set, console.wake):
        assert console.wait_until(changed.is_set, Deadline.after(LATE))


def test_nobody_waits_for_a_console_that_has_ended(console: Console) -> None:
    started = time.monotonic()
    with meanwhile(lambda: console.connection_lost(None)):
        assert not console.wait_until(lambda: False, Deadline.after(LATE))
    assert console.ended
    assert console.wait_for_end(Deadline.after(0))
    assert time.monotonic() - started < LATE / 2


def test_waiting_ends_with_the_deadline(console: Console) -> None:
    started = time.monotonic()
    assert not console.wait_until(lambda: False, Deadline.after(SOON))
    assert not console.wait_for_end(Deadline.after(SOON))
    assert 2 * SOON <= time.monotonic() - started < LATE / 2


def test_what_was_printed_can_be_read_after_the_end(console: Console) -> None:
    console.data_received(b"last words")
    console.connection_lost(ConnectionResetError())
    assert console.text() == "last words"
    assert console.wait_until(lambda: "words" in console.text(), Deadline.after(0))


def test_a_full_disk_stops_no_reading(tmp_path: Path) -> None:
    (tmp_path / "console.log").symlink_to("/dev/full")
    console = Console(tmp_path / "console.log")
    console.data_received(b"one\n")
    console.data_received(b"two\n")
    assert console.text() == "one\ntwo\n"
    console.connection_lost(None)
    assert console.ended


def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(tmp_path: Path) -> None:
    """Of a file that may not grow, the kernel says EFBIG: it stands for a disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    console = Console(tmp_path / "console.log")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, limits[1]))
        console.data_received(b"one\ntwo\nthree\n")
        assert console.path.read_bytes() == b"one\ntw"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    console.data_received(b"four\n")
    assert console.path.read_bytes() == b"one\ntwo\nthree\nfour\n"


def test_memory_does_not_grow_with_what_is_printed(console: Console) -> None:
    chunk = b"%063d\n" * 1024
    count = 1500  # of 64 KiB
    for number in range(count):
        console.data_received(chunk % tuple(range(number * 1024, number * 1024 + 1024)))
    assert console.size == console.path.stat().st_size == count << 16
    assert 16 << 20 <= len(console.text()) <= 32 << 20
    last = f"{count * 1024 - 1:063d}\n"
    assert console.text().endswith(last)
    assert console.text(console.size - 64) == last
    assert console.text(console.size) == ""


def test_the_tail_of_a_line_that_does_not_end_is_short(console: Console) -> None:
    console.data_received(b"x" * 10_000_000 + b"END")
    assert len(console.tail()) < 10_000
    assert console.tail().endswith("END")


def test_the_tail_does_not_act_on_a_terminal(console: Console) -> None:
    """It stands in messages, and those are printed."""
    console.data_received(b"\x1b[2Jgone\r\n")
    assert console.tail() == "    \\x1b[2Jgone"
