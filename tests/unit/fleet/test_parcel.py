# SPDX-License-Identifier: GPL-2.0-only
"""What comes out of a parcel is what went in, and nothing anywhere else."""

import errno
import io
import os
import shutil
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from lab.cache import hash_of_file
from lab.errors import InfrastructureError
from lab.fleet.parcel import Parcel, receive, send
from lab.fleet.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "folder"
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "file").write_text("whole")
    (place / "run.sh").write_text("#!/bin/sh\n")
    (place / "run.sh").chmod(0o755)
    return place


def test_files_and_what_may_be_run_come_back(store: Store, folder: Path, tmp_path: Path) -> None:
    os.link(folder / "run.sh", folder / "second.sh")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "id_ed25519").write_text("secret")
    back = tmp_path / "back"
    receive(store, send(store, folder, without={"id_ed25519"}), back)
    assert (back / "deep" / "file").read_text() == "whole"
    assert (back / "run.sh").stat().st_mode & 0o111
    assert not (back / "deep" / "file").stat().st_mode & 0o111
    assert (back / "second.sh").read_text() == "#!/bin/sh\n"
    assert not (back / "link").is_symlink()
    assert not (back / "id_ed25519").exists()


def test_the_same_files_are_the_same_parcel(store: Store, folder: Path) -> None:
    first = send(store, folder)
    os.utime(folder / "run.sh", (1, 1))
    assert send(store, folder) == first
    assert store.names("parcels") == [f"{first.sha256}.tar.gz"]


def test_a_damaged_one_is_refused(store: Store, folder: Path, tmp_path: Path) -> None:
    parcel = send(store, folder)
    (tmp_path / "other").write_bytes(b"something else")
    store.upload(tmp_path / "other", parcel.name)
    with pytest.raises(InfrastructureError, match="is damaged"):
        receive(store, parcel, tmp_path / "back")
    with pytest.raises(InfrastructureError, match="has no "):
        receive(store, replace(parcel, sha256="1" * 64), tmp_path / "back")


def test_one_that_was_packed_damaged_is_refused(store: Store, tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        (member := tarfile.TarInfo("file")).size = 1 << 17
        tar.addfile(member, io.BytesIO(bytes(1 << 17)))
    packer = zlib.compressobj(wbits=31)
    good = packer.compress(sink.getvalue()[: 1 << 16]) + packer.flush(zlib.Z_FULL_FLUSH)
    (archive := tmp_path / "archive").write_bytes(good + b"\xff" * 100)
    parcel = Parcel(hash_of_file(archive), archive.stat().st_size)
    store.upload(archive, parcel.name)
    with pytest.raises(InfrastructureError, match="invalid block type"):
        receive(store, parcel, tmp_path / "back")


def test_where_there_is_no_room_that_is_told(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    parcel = send(store, folder)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(InfrastructureError, match="No space left"):
        receive(store, parcel, tmp_path / "back")


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "members",
    [
        [_member("../outside")],
        [_member("a/../../outside")],
        [_member("/tmp/outside")],
        [_member("link", tarfile.SYMTYPE, "/tmp"), _member("link/outside")],
        [_member("link", tarfile.LNKTYPE, "../outside")],
        [_member("node", tarfile.CHRTYPE)],
        [_member("fifo", tarfile.FIFOTYPE)],
        [_member("twice"), _member("twice")],
    ],
    ids=["up", "down-and-up", "absolute", "symlink", "hardlink", "device", "fifo", "twice"],
)
def test_a_hostile_one_writes_nothing_elsewhere(
    store: Store, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    archive = tmp_path / "hostile.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO())
    parcel = Parcel(hash_of_file(archive), archive.stat().st_size)
    store.upload(archive, parcel.name)
    with pytest.raises(InfrastructureError, match=r"is no file of a folder|File exists"):
        receive(store, parcel, tmp_path / "inner" / "back")
    assert not list(tmp_path.rglob("outside"))
    assert not Path("/tmp/outside").exists()
