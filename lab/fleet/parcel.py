# SPDX-License-Identifier: GPL-2.0-only
"""A folder on its way through the store: one archive, named by its own hash."""

import gzip
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
    """Put what is in a folder into the store, but for files of the names `without`. What is there
    already is not sent again. Raises InfrastructureError."""
    with _draft() as archive:
        _pack(folder, archive, lambda member: Path(member.name).name not in without)
        parcel = Parcel(hash_of_file(archive), archive.stat().st_size)
        if not store.has(parcel.name):
            store.upload(archive, parcel.name)
    return parcel


def receive(store: Store, parcel: Parcel, folder: Path) -> None:
    """Unpack one into an empty folder. Raises InfrastructureError for one that is damaged, or
    would put anything elsewhere; what it has unpacked until then stays."""
    with _draft() as archive:
        store.download(parcel.name, archive)
        if hash_of_file(archive) != parcel.sha256:
            raise InfrastructureError(f"{store.url}: {parcel.name} is damaged")
        try:
            with tarfile.open(archive, "r:gz") as tar:
                # neither paths nor links out of it, no devices, no owners
                tar.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
            raise InfrastructureError(f"{store.url}: {parcel.name}: {error}") from error


def _pack(folder: Path, archive: Path, wanted: Callable[[tarfile.TarInfo], bool]) -> None:
    with (
        archive.open("wb") as raw,
        # neither a name nor a time in its header
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as sink,
        tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        tar.add(folder, ".", filter=lambda member: member if wanted(member) else None)


@contextmanager
def _draft() -> Iterator[Path]:
    """A file that goes with the block."""
    with tempfile.TemporaryDirectory(prefix="vfio-lab-") as folder:
        yield Path(folder, "parcel.tar.gz")
