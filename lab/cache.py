# SPDX-License-Identifier: GPL-2.0-only
"""Artefacts, kept by the hash of everything that made them.

An entry is a folder. It is made under a name that is never read, and renamed when it is whole:
what is in the cache is complete, whatever was interrupted. (A work place alone changes later.)
Beside its files lies `provenance.json`: the inputs, when and in how long it was made, and what the
maker adds.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from lab.errors import InfrastructureError
from lab.proc import room_in

PROVENANCE = "provenance.json"
WORK = "work"  # the kind of all work places
LINKED = "tree"  # the kind of trees whose files are most of them links to another entry's
_UNFINISHED = "unfinished"
_PATIENCE = 2.0  # seconds for which nobody is told that a lock is held


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
        """Bytes on disk; of what is a tree of links, those that are its own."""
        return size_of(self.path, linked=self.kind not in (WORK, LINKED))


def key_of(inputs: Mapping[str, Any]) -> str:
    """The hash of what decides an artefact's bits; `inputs` is anything that JSON can write."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path, *, linked: bool = True) -> int:
    """Bytes that a file, or a folder with all that is in it, takes on disk.

    Without `linked`, files that have a name elsewhere too are left out: whoever removes this one
    frees nothing.
    """
    try:
        with os.scandir(path) as found:
            items = list(found)
    except NotADirectoryError:
        return path.lstat().st_blocks * 512
    except (FileNotFoundError, PermissionError):
        return 0
    total = 0
    for item in items:
        if item.is_dir(follow_symlinks=False):
            total += size_of(Path(item), linked=linked)
        with contextlib.suppress(FileNotFoundError):  # somebody is at work there
            status = item.stat(follow_symlinks=False)
            if linked or status.st_nlink == 1 or item.is_dir(follow_symlinks=False):
                total += status.st_blocks * 512
    return total


class Cache:
    """The user's cache folder, shared by all labs and by several runs at once."""

    def __init__(self, root: Path, on_wait: Callable[[str], None] | None = None) -> None:
        self.root = root
        self._on_wait = on_wait or _tell
        """Called once with words for the user who waits for another run."""

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

    def peek(self, kind: str, inputs: Mapping[str, Any]) -> Entry | None:
        """The same as `find`, but to be looked at only: it is not used."""
        return self.entry(kind, key_of(inputs))

    def entry(self, kind: str, key: str) -> Entry | None:
        """The entry with this key, to be looked at only, or None."""
        entry = Entry(kind, key, self.root / kind / key)
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
        with self._writing(), self.lock(f"{kind}-{key}"):
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
                return self._keep(kind, key, folder)

    def adopt(self, kind: str, key: str, filler: Callable[[Path], None]) -> Entry:
        """The entry with this key, made by another cache: `filler` puts its files, with their
        provenance, into the given folder when there is none yet.

        Raises what `filler` raises, and InfrastructureError as `make` does and for what is another
        entry; then nothing is kept.
        """
        with self._writing(), self.lock(f"{kind}-{key}"):
            if entry := self.entry(kind, key):
                return entry
            with self._unfinished(kind, key) as folder:
                filler(folder)
                made = Entry(kind, key, folder)
                if made.provenance["kind"] != kind or key_of(made.provenance["inputs"]) != key:
                    raise InfrastructureError(f"what was to be {kind}/{key} is another entry")
                return self._keep(kind, key, folder)

    def _keep(self, kind: str, key: str, folder: Path) -> Entry:
        """Have a folder that is whole found from now on."""
        target = self.root / kind / key
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return Entry(kind, key, target)

    @contextmanager
    def work_place(
        self, inputs: Mapping[str, Any], maker: Callable[[Path], Mapping[str, Any]]
    ) -> Iterator[Path]:
        """A folder that is kept from one use to the next and changed by each, by one at a time.

        `maker` fills it where it stays, because compilers put its path into what they make; one
        whose maker did not come to its end is made anew. `entries` lists it, `remove` waits for
        who is at work in it. Raises as `make` does.
        """
        key = key_of(inputs)
        folder = self.root / WORK / key
        with self._writing(), self.lock(f"{WORK}-{key}"):
            if (folder / PROVENANCE).exists():
                (folder / PROVENANCE).touch()  # this is use
            else:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                provenance = {"kind": WORK, "key": key, "made": made, "inputs": inputs}
                text = json.dumps({**provenance, **maker(folder)}, indent=1)
                # The name that makes it whole comes last.
                (folder / f".{PROVENANCE}").write_text(text + "\n")
                (folder / f".{PROVENANCE}").rename(folder / PROVENANCE)
            yield folder

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Wait for, and hold, a lock that every process of this user sees."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            self._on_wait(f"waiting for another vfio-lab that is at work on {name}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def recall(self, kind: str, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """A small fact that `remember` kept under these inputs, or None."""
        try:
            fact: dict[str, Any] = json.loads(self._fact(kind, inputs).read_text())["fact"]
        except (OSError, ValueError):
            return None
        return fact

    def remember(self, kind: str, inputs: Mapping[str, Any], fact: Mapping[str, Any]) -> None:
        """Keep a small fact about the world outside; `inputs` say when it holds."""
        path = self._fact(kind, inputs)
        # Written beside and renamed: another run reads the old fact or the new one.
        whole = path.with_suffix(f".{os.getpid()}")
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                whole.write_text(json.dumps({"inputs": inputs, "fact": fact}, indent=1) + "\n")
                whole.replace(path)
            finally:
                whole.unlink(missing_ok=True)

    def forget(self, kind: str, inputs: Mapping[str, Any]) -> None:
        """Drop what `remember` kept under these inputs, if anything."""
        with self._writing():
            self._fact(kind, inputs).unlink(missing_ok=True)

    def _fact(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        return self.root / "facts" / f"{kind}-{key_of(inputs)}.json"

    def entries(self) -> list[Entry]:
        """All entries, the last used first."""
        found = []
        for path in self.root.glob(f"*/*/{PROVENANCE}"):
            entry = Entry(path.parent.parent.name, path.parent.name, path.parent)
            if entry.kind == _UNFINISHED:
                continue
            with contextlib.suppress(FileNotFoundError):  # another run removes it just now
                found.append((entry.used, entry))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def remove(self, entry: Entry) -> None:
        """Forget one entry. It is renamed first, so that nobody finds half of it."""
        with self.lock(f"{entry.kind}-{entry.key}"):
            doomed = self.root / _UNFINISHED / f"doomed-{entry.kind}-{entry.key}"
            doomed.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was interrupted
            with contextlib.suppress(FileNotFoundError):  # another run was faster
                entry.path.rename(doomed)
                shutil.rmtree(doomed)

    def clean(self, *, older_than: float | None = None, max_size: int | None = None) -> list[Entry]:
        """Remove what was not used for `older_than` seconds, then the longest unused until no
        more than `max_size` bytes are left. Returns what was removed.

        What a killed maker left behind goes, too.
        """
        self._sweep()
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

    def _sweep(self) -> None:
        for folder in self.root.glob(f"{_UNFINISHED}/*"):
            lock = FileLock(self.root / "locks" / f"{folder.name.removeprefix('doomed-')}.lock")
            with contextlib.suppress(Timeout), lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _unfinished(self, kind: str, key: str) -> Iterator[Path]:
        # The name is the same each time, so that compilers put the same paths into what they
        # make; the lock that the caller holds keeps it ours.
        folder = self.root / _UNFINISHED / f"{kind}-{key}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
            yield folder
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with room_in(self.root):
                yield
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise InfrastructureError(
                    f"cannot write to the cache: {error.filename or self.root}: {error.strerror}",
                    hint="name a folder of your own in VFIO_LAB_CACHE",
                ) from error
            raise


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
