# SPDX-License-Identifier: GPL-2.0-only
"""A folder on its way through the store: one archive, named by its own hash.

The same files make the same archive, byte for byte: they are sorted and have neither times nor
owners. No link is ever packed or made, so that no name leads out of the folder.
"""

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from lab.cache import hash_of_file
from lab.errors import InfrastructureError
from lab.fleet.store import Store
from lab.results.record import Written

_LEVEL = 1  # of gzip: more takes longer than a network does


@dataclass(frozen=True)
class Parcel(Written):
    """One in the store. `sha256` is of the archive, `size` its bytes."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: int

    @property
    def name(self) -> str:
        """Its file's."""
        return f"parcels/{self.sha256}.tar.gz"


def send(store: Store, folder: Path, *, without: Collection[str] = ()) -> Parcel:
    """Put the files of a folder into the store, but for those of the names `without`. What is there
    already is not sent again. Raises InfrastructureError."""
    with _draft() as archive:
        _pack(folder, archive, without)
        parcel = Parcel(hash_of_file(archive), archive.stat().st_size)
        if not store.has(parcel.name):
            store.upload(archive, parcel.name)
    return parcel


def receive(store: Store, parcel: Parcel, folder: Path) -> None:
    """Unpack one into an empty folder. Raises InfrastructureError for one that is damaged, or holds
    anything but files below that folder, and where these cannot be written; what it has unpacked
    until then stays."""
    with _draft() as archive:
        store.download(parcel.name, archive)
        if hash_of_file(archive) != parcel.sha256:
            raise InfrastructureError(f"{store.url}: {parcel.name} is damaged")
        try:
            with tarfile.open(archive, "r:gz") as tar:
                for member in tar:
                    _unpack(tar, member, folder)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise InfrastructureError(f"{store.url}: {parcel.name}: {error}") from error


def _pack(folder: Path, archive: Path, without: Collection[str]) -> None:
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as sink,
        tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or path.name in without:
                continue
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            with path.open("rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                member.mode = _mode(os.fstat(file.fileno()).st_mode)
                tar.addfile(member, file)


def _mode(mode: int) -> int:
    return 0o755 if mode & 0o100 else 0o644


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    file = tar.extractfile(member) if member.isreg() else None
    if not file or name.is_absolute() or ".." in name.parts:
        raise tarfile.TarError(f"{member.name!r} is no file of a folder")
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as sink:
        shutil.copyfileobj(file, sink)
    target.chmod(_mode(member.mode))


@contextmanager
def _draft() -> Iterator[Path]:
    """A file that goes with the block."""
    with tempfile.TemporaryDirectory(prefix="vfio-lab-") as folder:
        yield Path(folder, "parcel.tar.gz")
