# SPDX-License-Identifier: GPL-2.0-only
"""The store: a folder that all machines of a fleet see, by a URL.

| in it                             | what it is                                              |
|-----------------------------------|---------------------------------------------------------|
| KIND/KEY.json                     | an entry of a cache: which parcel it is in              |
| nights/NIGHT/kernels/HASH.json    | the kernel that this night means by a name              |
| nights/NIGHT/cells/NAME.json      | what became of an order; of several the first           |
| nights/NIGHT/cells/NAME.cut.json  | what of it there was when it was ended                  |
| nights/NIGHT/cells/NAME.tries/    | workers that began it, and did not come to an end       |
| parcels/SHA256.tar.gz             | a folder, by its content: `lab.fleet.parcel`            |
| claims/NAME.N                     | who makes something just now: `lab.fleet.claim`         |

Names that are read are written as a whole. What is in it may be anybody's who can write there: it
is checked, and it names no file.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lab.errors import ConfigurationError, InfrastructureError


class StoreLost(InfrastructureError):
    """The store cannot be read or written just now; it may come again."""


class Store:
    """The folder at a URL, as fsspec knows it: a path, file://, s3://…

    Raises ConfigurationError for a URL that fsspec does not know. All else raises StoreLost where
    the place cannot be read or written.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # noqa: PLC0415 (extra)

        self.url = url
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"store {url}: {error}",
                hint="expected a folder, or a URL such as s3://BUCKET/FOLDER (and its s3fs)",
            ) from error

    def read(self, name: str) -> dict[str, Any] | None:
        """The JSON of that name; None where there is none, or its writer has not come to the end
        of it."""
        with self._reached():
            try:
                content = json.loads(self._files.cat_file(self._path(name)))
            except (FileNotFoundError, ValueError):
                return None
        return content if isinstance(content, dict) else None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Put JSON there, in the place of what was."""
        with self._moved_to(name) as draft:
            self._files.pipe_file(draft, json.dumps(content, indent=1).encode())

    def create(self, name: str, content: Mapping[str, Any]) -> bool:
        """The same where nothing is yet; whether that was so. Of several that ask, one is told
        so."""
        path = self._path(name)
        with self._reached():
            self._files.makedirs(self._parent(path), exist_ok=True)
            try:
                with self._files.open(path, "xb") as file:
                    file.write(json.dumps(content, indent=1).encode())
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """What has that name goes, and all below it, where there is any."""
        with self._reached(), suppress(FileNotFoundError):
            self._files.rm(self._path(name), recursive=True)

    def names(self, folder: str) -> list[str]:
        """What is in a folder."""
        with self._reached():
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def has(self, name: str) -> bool:
        """Whether there is something of that name."""
        with self._reached():
            self._files.invalidate_cache()
            return bool(self._files.exists(self._path(name)))

    def upload(self, file: Path, name: str) -> None:
        """Put a file there; whoever reads it sees all of it."""
        with self._moved_to(name) as draft:
            self._files.put_file(str(file), draft)

    def download(self, name: str, file: Path) -> None:
        """Get a file from there. Raises InfrastructureError where there is none."""
        with self._reached():
            try:
                self._files.get_file(self._path(name), str(file))
            except FileNotFoundError as error:
                raise InfrastructureError(f"{self.url} has no {name} any more") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @staticmethod
    def _parent(path: str) -> str:
        return path.rpartition("/")[0]

    @contextmanager
    def _moved_to(self, name: str) -> Iterator[str]:
        path = self._path(name)
        draft = f"{path}.{uuid.uuid4().hex}"
        with self._reached():
            self._files.makedirs(self._parent(path), exist_ok=True)
            try:
                yield draft
                self._files.mv(draft, path)
            except BaseException:
                with suppress(OSError):
                    self._files.rm_file(draft)
                raise

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreLost(f"the store {self.url}: {error}") from error
