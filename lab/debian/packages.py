# SPDX-License-Identifier: GPL-2.0-only
"""What the archive's lists say of a package, and how apt prints it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from lab.errors import InfrastructureError


@dataclass(frozen=True)
class Package:
    """One version of a binary package. `size` is that of its .deb in bytes.

    `suite` is where it was looked for; several are joined by "+".
    """

    name: str
    version: str
    suite: str
    sha256: str
    size: int
    uri: str

    @property
    def identity(self) -> dict[str, str]:
        """What decides its bits."""
        return {"package": self.name, "version": self.version, "sha256": self.sha256}

    @property
    def file(self) -> str:
        """The name that apt gives to the .deb."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self._architecture}.deb"

    @property
    def _architecture(self) -> str:
        return Path(self.uri).stem.rsplit("_", 1)[-1]


@dataclass(frozen=True)
class SourceFile:
    """One file of a source package. `size` is in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class SourcePackage:
    """One version of a source package: its .dsc, and what that names.

    `suite` is where it was looked for; several are joined by "+".
    """

    name: str
    version: str
    suite: str
    files: tuple[SourceFile, ...]

    @property
    def dsc(self) -> SourceFile:
        """The file that names the others, with their hashes."""
        return next(file for file in self.files if file.name.endswith(".dsc"))

    @property
    def identity(self) -> dict[str, str]:
        """What decides its bits."""
        return {"package": self.name, "version": self.version, "sha256": self.dsc.sha256}


@dataclass(frozen=True)
class Listed:
    """A version of a package that the archive's lists have. `source`: of a source package."""

    name: str
    version: str
    suite: str
    source: bool


def package_in(line: str, suites: Sequence[str]) -> Package:
    """A package from a line of --print-uris: 'URI' NAME_VERSION_ARCH.deb SIZE SHA256:HASH."""
    uri = line.split(maxsplit=1)[0].strip("'")
    file = source_file_in(line)
    name, version, _ = unquote(file.name).removesuffix(".deb").split("_")
    return Package(name, version, "+".join(suites), file.sha256, file.size, uri)


def source_file_in(line: str) -> SourceFile:
    _, file, size, digest = line.split()
    kind, _, value = digest.partition(":")
    if kind != "SHA256":
        raise InfrastructureError(f"apt names no SHA-256 for {file}: {digest}")
    return SourceFile(file, value, int(size))


def listed_in(line: str) -> Listed:
    """A line of madison: NAME | VERSION | URI SUITE/COMPONENT ARCH Packages, or with Sources."""
    name, version, where = (part.strip() for part in line.split("|"))
    _, place, *_, kind = where.split()
    return Listed(name, version, place.partition("/")[0], source=kind == "Sources")
