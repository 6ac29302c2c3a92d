# SPDX-License-Identifier: GPL-2.0-only
"""The archive that the kernel unpacks, read back by cpio(1)."""

import shutil
import subprocess

import pytest

from lab.image import cpio

MEMBERS = (
    cpio.file("etc/key", b"secret", 0o600),
    cpio.link("bin", "usr/bin"),
    cpio.node("dev/console", 5, 1),
    cpio.folder("home/tester", 0o700, owner=1000),
)


def test_the_same_members_are_the_same_bytes_in_any_order() -> None:
    assert cpio.archive(MEMBERS) == cpio.archive(reversed(MEMBERS))


def test_an_archive_can_stand_behind_another() -> None:
    assert len(cpio.archive(MEMBERS)) % 512 == 0


def test_the_last_of_two_members_of_one_name_counts() -> None:
    old, new = cpio.file("a", b"old"), cpio.file("a", b"new")
    assert cpio.archive([old, new]) == cpio.archive([new])


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_what_was_written() -> None:
    listing = subprocess.run(
        ["cpio", "-itvn", "--quiet"],
        input=cpio.archive(MEMBERS),
        capture_output=True,
        check=True,
    )
    found = [line.split() for line in listing.stdout.decode().splitlines()]
    assert [(words[0], words[2]) for words in found] == [
        ("lrwxrwxrwx", "0"),
        ("drwxr-xr-x", "0"),
        ("crw-------", "0"),
        ("drwxr-xr-x", "0"),
        ("-rw-------", "0"),
        ("drwxr-xr-x", "0"),
        ("drwx------", "1000"),
    ]
    assert [words[-1] for words in found] == [
        *("usr/bin", "dev", "dev/console", "etc", "etc/key", "home", "home/tester")
    ]
