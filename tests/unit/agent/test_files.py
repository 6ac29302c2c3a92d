# SPDX-License-Identifier: GPL-2.0-only
"""Open files, and small files of /sys and /proc."""

import errno
from pathlib import Path

import pytest

from lab.agent.errors import RemoteError
from lab.agent.process import Process


def test_an_open_file_goes_with_its_block(process: Process) -> None:
    before = process.fds()
    with process.open("/dev/null") as file:
        assert process.fds() == before | {file.fd: "/dev/null"}
    assert process.fds() == before


def test_a_closed_file_has_no_fd(process: Process) -> None:
    file = process.open("/dev/null")
    file.close()
    file.close()
    assert file.closed
    with pytest.raises(ValueError, match="/dev/null is closed"):
        file.read(1)


def test_a_detached_file_stays_open(process: Process) -> None:
    with process.open("/dev/null") as file:
        fd = file.detach()
    assert process.fds()[fd] == "/dev/null"
    with process.adopt(fd, "null") as again:
        assert again.read(10) == b""


def test_an_eventfd_counts(process: Process) -> None:
    with process.eventfd(5) as event:
        event.write((2).to_bytes(8, "little"))
        assert int.from_bytes(event.read(8), "little") == 7


def test_a_memfd_that_cannot_have_its_length_leaves_nothing_open(process: Process) -> None:
    with pytest.raises(RemoteError) as caught:
        process.memfd(-1)
    assert caught.value.errno == errno.EINVAL
    assert set(process.fds()) == {0, 1, 2}


def test_a_missing_file_is_named_in_the_error(process: Process) -> None:
    with pytest.raises(RemoteError, match=r"openat /no/such: No such file.*\(ENOENT\)") as caught:
        process.open("/no/such")
    assert caught.value.errno == errno.ENOENT


def test_text_is_read_whole_in_one_round_trip(process: Process) -> None:
    expected = Path("/proc/sys/kernel/ostype").read_text()
    assert process.read_text("/proc/sys/kernel/ostype") == expected
    with pytest.raises(RemoteError) as caught:
        process.read_text("/proc")
    assert caught.value.errno == errno.EISDIR


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 300_000])
def test_text_of_any_size_is_read_whole(process: Process, tmp_path: Path, size: int) -> None:
    text = ("0123456789" * (size // 10 + 1))[:size]
    (tmp_path / "text").write_text(text)
    assert process.read_text(tmp_path / "text") == text


def test_a_file_of_short_reads_is_read_whole(process: Process) -> None:
    # seq_file gives at most a page a read, and cuts at a line.
    names = {line.split()[-1] for line in process.read_text("/proc/self/maps").splitlines()}
    assert {"[heap]", "[stack]", "[vdso]"} & names
    symbols = process.read_text("/proc/kallsyms")
    assert len(symbols) > 100_000


def test_text_is_written(process: Process, tmp_path: Path) -> None:
    (tmp_path / "attribute").write_text("something longer")
    process.write_text(tmp_path / "attribute", "vfio-pci")
    assert (tmp_path / "attribute").read_text() == "vfio-pci"


def test_a_refused_write_raises_its_errno(process: Process) -> None:
    with pytest.raises(RemoteError, match="write /dev/full") as caught:
        process.write_text("/dev/full", "x")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(RemoteError, match="openat"):
        process.write_text("/no/such", "x")
    assert len(process.fds()) == 3


@pytest.mark.parametrize("count", [0, 3, 3000])
def test_a_directory_is_listed_whole(process: Process, tmp_path: Path, count: int) -> None:
    names = sorted(f"{number:04}-{'n' * 40}" for number in range(count))
    for name in names:
        (tmp_path / name).touch()
    assert process.listdir(tmp_path) == names


def test_the_longest_name_is_listed(process: Process, tmp_path: Path) -> None:
    names = sorted(f"{number:03}".ljust(255, "n") for number in range(60))
    for name in names:
        (tmp_path / name).touch()
    assert process.listdir(tmp_path) == names


def test_links_and_existence(process: Process, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    assert process.readlink(tmp_path / "link") == "target"
    assert not process.exists(tmp_path / "link")
    (tmp_path / "target").touch()
    assert process.exists(tmp_path / "link")
    assert not process.exists(tmp_path / "target" / "below")
    with pytest.raises(RemoteError) as caught:
        process.exists(tmp_path / ("n" * 300))
    assert caught.value.errno == errno.ENAMETOOLONG


def test_fds_leave_out_the_listing_itself(process: Process) -> None:
    fds = process.fds()
    assert set(fds) == {0, 1, 2}
    assert fds[2] == str(Path(f"/proc/{process.pid}/fd/2").readlink())
