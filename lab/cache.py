# SPDX-License-Identifier: GPL-2.0-only
"""Artefacts, kept by the hash of everything that made them.

An entry is a folder. It is made under a name that is never read, and renamed when it is whole:
what is in the cache is complete, whatever was interrupted. Beside its files lies
`provenance.json`: the inputs, when and in how long it was made, and what the maker adds.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from lab.proc import disk_full

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Entry:
    """One artefact: its folder, and how it came to be."""

    kind: str
    key: str
    path: Path

    @property
    def provenance(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.path / PROVENANCE).read_text())
        return loaded

    @property
    def used(self) -> float:
        """When it was last asked for, in seconds since the epoch."""
        return (self.path / PROVENANCE).stat().st_mtime

    def size(self) -> int:
        """Bytes on disk."""
        files = (p.lstat() for p in self.path.rglob("*"))
        return sum(status.st_blocks * 512 for status in files)


def key_of(inputs: Mapping[str, Any]) -> str:
    """The hash of what decides an artefact's bits; `inputs` is anything that JSON can write."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Cache:
    """The user's cache folder, shared by all labs and by several runs at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of_user(cls) -> "Cache":
        """`$VFIO_LAB_CACHE`, or the platform's own place."""
        given = os.environ.get("VFIO_LAB_CACHE")
        return cls(Path(given) if given else platformdirs.user_cache_path("vfio-lab"))

    def find(self, kind: str, inputs: Mapping[str, Any]) -> Entry | None:
        """The entry that these inputs made, or None. Asking counts as use."""
        key = key_of(inputs)
        entry = Entry(kind, key, self.root / kind / key)
        try:
            (entry.path / PROVENANCE).touch(exist_ok=True)
        except FileNotFoundError:
            return None
        except PermissionError:
            pass  # somebody else's cache can be read all the same
        return entry if (entry.path / PROVENANCE).exists() else None

    def make(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Mapping[str, Any] | None],
    ) -> Entry:
        """The entry for `inputs`; `maker` fills the given folder when there is none yet.

        What `maker` returns is added to the provenance. Of several processes that ask for the
        same entry one makes it and the others wait. Raises what `maker` raises, and
        InfrastructureError on a full disk (ENOSPC); then nothing is kept.
        """
        if entry := self.find(kind, inputs):
            return entry
        key = key_of(inputs)
        with self.lock(f"{kind}-{key}"):
            if entry := self.find(kind, inputs):
                return entry
            with self._unfinished(kind, key) as folder:
                started = time.time()
                extra = maker(folder) or {}
                provenance = {
                    "kind": kind,
                    "key": key,
                    "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                    "seconds": round(time.time() - started, 1),
                    "inputs": inputs,
                    **extra,
                }
                (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n")
                target = self.root / kind / key
                target.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(target)
        return Entry(kind, key, target)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Wait for, and hold, a lock that every process of this user sees."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            yield

    def entries(self) -> list[Entry]:
        """All entries, the last used first."""
        found = [
            Entry(path.parent.parent.name, path.parent.name, path.parent)
            for path in self.root.glob(f"*/*/{PROVENANCE}")
        ]
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def remove(self, entry: Entry) -> None:
        """Forget one entry. It is renamed first, so that nobody finds half of it."""
        with self.lock(f"{entry.kind}-{entry.key}"):
            doomed = self.root / "unfinished" / f"doomed-{entry.kind}-{entry.key}"
            doomed.parent.mkdir(parents=True, exist_ok=True)
            entry.path.rename(doomed)
            shutil.rmtree(doomed)

    def clean(self, *, older_than: float | None = None, max_size: int | None = None) -> list[Entry]:
        """Remove what was not used for `older_than` seconds, then the longest unused until no
        more than `max_size` bytes are left. Returns what was removed."""
        doomed: list[Entry] = []
        total = 0
        for entry in self.entries():
            total += entry.size() if max_size is not None else 0
            old = older_than is not None and time.time() - entry.used > older_than
            if old or (max_size is not None and total > max_size):
                doomed.append(entry)
        for entry in doomed:
            self.remove(entry)
        return doomed

    @contextmanager
    def _unfinished(self, kind: str, key: str) -> Iterator[Path]:
        # The name is the same each time, so that compilers put the same paths into what they
        # make; the lock that the caller holds keeps it ours.
        folder = self.root / "unfinished" / f"{kind}-{key}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
            yield folder
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(f"{self.root} ({error.strerror})") from error
            raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
