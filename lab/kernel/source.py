# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's source: a package of Debian's, a commit of a git tree, or a tarball.

`identify` says what a source is, quickly and without its files; `Identity.tree` gets the files.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from lab.cache import Cache, Entry, hash_of_file
from lab.config import GitSource, Lab, PackageSource, TarballSource, VersionSource
from lab.debian import Archive, Package, SourceFile, SourcePackage
from lab.errors import ConfigurationError, InfrastructureError
from lab.kernel import versions
from lab.proc import CommandError, run
from lab.progress import Progress

Source = PackageSource | VersionSource | GitSource | TarballSource

TREE = "linux"  # the name of the tree in its cache entry
_RECIPE = 1  # of extraction: a new number makes every tree anew
_TARBALLS = "*.tar.*"
_NAME_OF_DEBIAN = "linux-source"


@dataclass(frozen=True)
class Identity(ABC):
    """One version of a source. What it is decides the bits that come of it."""

    KIND: ClassVar = "source"  # of the cache's entry

    cache: Cache
    progress: Progress

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, Any]:
        """What the cache's key is made of."""

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, Any]:
        """Where it came from, for a reader."""

    @property
    @abstractmethod
    def title(self) -> str:
        """A few words for a person."""

    @abstractmethod
    def _extract(self, tree: Path) -> None:
        """Fill an empty folder with the files."""

    def tree(self) -> Path:
        """The files, from the cache or put there. They are only read from then on.

        Raises InfrastructureError when what should be extracted is damaged or the disk full.
        """
        return self._entry().path / TREE

    def _entry(self) -> Entry:
        def maker(folder: Path) -> Mapping[str, Any]:
            tree = folder / TREE
            tree.mkdir()
            self._extract(tree)
            if not (tree / "Kconfig").is_file():
                raise ConfigurationError(f"{self.title} holds no kernel: it has no Kconfig")
            return {"source": dict(self.provenance)}

        return self.cache.make(self.KIND, {"recipe": _RECIPE, **self.inputs}, maker)


@dataclass(frozen=True)
class PackageIdentity(Identity):
    """A tarball in a .deb."""

    archive: Archive
    package: Package

    @property
    def inputs(self) -> Mapping[str, Any]:
        return self.package.identity

    @property
    def provenance(self) -> Mapping[str, Any]:
        return asdict(self.package)

    @property
    def title(self) -> str:
        return f"{self.package.name} {self.package.version}"

    def _extract(self, tree: Path) -> None:
        deb = self.archive.fetch([self.package])[self.package]
        unpacked = tree.parent / "deb"
        with self.progress.step(f"extract {self.title}"):
            _unpack(["dpkg-deb", "-x", deb, unpacked], deb)
            found = sorted((unpacked / "usr" / "src").glob(_TARBALLS))
            tarballs = [file for file in found if file.name.startswith(_NAME_OF_DEBIAN)]
            if not tarballs:
                raise ConfigurationError(
                    f"{self.title} carries no kernel source: no {_NAME_OF_DEBIAN}*{_TARBALLS} "
                    "in its /usr/src"
                )
            _untar(tarballs[0], tree)
            run(["rm", "-rf", unpacked])


@dataclass(frozen=True)
class SourcePackageIdentity(Identity):
    """A source package of Debian's: upstream's tarball, and Debian's patches, which are applied."""

    archive: Archive
    package: SourcePackage

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {"source": self.package.identity}

    @property
    def provenance(self) -> Mapping[str, Any]:
        return asdict(self.package)

    @property
    def title(self) -> str:
        return f"{self.package.name} {self.package.version}"

    def _extract(self, tree: Path) -> None:
        dsc = self.archive.fetch_source(self.package)
        with self.progress.step(f"extract {self.title}"):
            tree.rmdir()  # dpkg-source makes it
            # The lists vouch for the files; whose signature a .dsc has is another question.
            _unpack(["dpkg-source", "--no-check", "--extract", dsc, tree], dsc)
            run(["rm", "-rf", tree / ".pc", tree / "debian"])


@dataclass(frozen=True)
class GitIdentity(Identity):
    """A commit. What is not committed is not part of it."""

    git: Path
    ref: str
    commit: str

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {"commit": self.commit}

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"git": str(self.git), "ref": self.ref, "commit": self.commit}

    @property
    def title(self) -> str:
        return f"{self.git} at {self.commit[:12]} ({self.ref})"

    def holds(self, commit: str) -> bool:
        """Whether the tree has this commit, too."""
        try:
            commit_of(self.git, commit)
        except ConfigurationError:
            return False
        return True

    def _extract(self, tree: Path) -> None:
        if changed := self._not_committed():
            self.progress.say(
                f"{self.git}: {len(changed)} changed files are not committed and not part of "
                "this kernel"
            )
        with self.progress.step(f"extract {self.title}"):
            script = 'set -o pipefail; git -C "$1" archive "$2" | tar -x -C "$3"'
            words = ("bash", "-c", script, "extract", self.git, self.commit, tree)
            _unpack(words, self.git)

    def _not_committed(self) -> list[str]:
        """The files that a user who names no commit may expect."""
        git = ("git", "--no-optional-locks", "-C", self.git)  # it would write the tree's index
        if self.ref != "HEAD" or run([*git, "rev-parse", "--is-bare-repository"]) == ["true"]:
            return []
        return run([*git, "status", "--porcelain", "--untracked-files=no"])


@dataclass(frozen=True)
class TarballIdentity(Identity):
    """A tarball, known by its bytes."""

    tarball: Path
    sha256: str

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {"tarball": self.sha256}

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"tarball": str(self.tarball), "sha256": self.sha256}

    @property
    def title(self) -> str:
        return self.tarball.name

    def _extract(self, tree: Path) -> None:
        with self.progress.step(f"extract {self.title}"):
            _untar(self.tarball, tree)


def identify(
    source: Source,
    lab: Lab,
    cache: Cache,
    progress: Progress,
    *,
    update: bool = False,
) -> Identity:
    """Which version of a source it is now.

    A package's, or a version's, is remembered until `update`; a git ref is asked for each time; a
    tarball is read again when its size or time changed. Raises ConfigurationError for what does
    not exist.
    """
    match source:
        case PackageSource():
            archive = Archive(lab.debian, cache, progress)
            package = _resolved(source, lab, cache, archive, update=update)
            return PackageIdentity(cache, progress, archive, package)
        case VersionSource():
            archive = Archive(lab.debian, cache, progress)
            return _of_version(source, lab, cache, archive, progress, update=update)
        case GitSource():
            git = lab.path(source.git)
            return GitIdentity(cache, progress, git, source.ref, commit_of(git, source.ref))
        case TarballSource():
            tarball = lab.path(source.tarball)
            return TarballIdentity(cache, progress, tarball, _hash(tarball, cache))


def again(
    provenance: Mapping[str, Any], lab: Lab, cache: Cache, progress: Progress
) -> Identity | None:
    """The identity that wrote this, whatever the lab means by its source now; None for packages
    of a kernel that is built already."""
    match dict(provenance):
        case {"git": git, "ref": ref, "commit": commit}:
            return GitIdentity(cache, progress, Path(git), ref, commit)
        case {"tarball": tarball, "sha256": sha256}:
            return TarballIdentity(cache, progress, Path(tarball), sha256)
        case {"packages": _}:
            return None
        case {"files": _}:
            archive = Archive(lab.debian, cache, progress)
            return SourcePackageIdentity(cache, progress, archive, _source_package(provenance))
    archive = Archive(lab.debian, cache, progress)
    return PackageIdentity(cache, progress, archive, Package(**provenance))


def recall(source: Source, lab: Lab, cache: Cache, progress: Progress) -> Identity | None:
    """What `identify` will say, or None where it would have to ask the network or read for long."""
    match source:
        case PackageSource() | VersionSource():
            if not cache.recall("package", _asked(source, lab)):
                return None
        case TarballSource():
            if not cache.recall("tarball", _asked_of(lab.path(source.tarball))):
                return None
    return identify(source, lab, cache, progress)


def _resolved(
    source: PackageSource, lab: Lab, cache: Cache, archive: Archive, *, update: bool
) -> Package:
    asked = _asked(source, lab)
    known = None if update else cache.recall("package", asked)
    if known:
        return Package(**known)
    package = archive.resolve(source.package, source.suite, update=update)
    # `linux-source` is empty and depends on the newest `linux-source-X.Y`.
    pattern = re.compile(rf"{re.escape(source.package)}-[0-9.]+$")
    if follow := [name for name in archive.depends(package) if pattern.match(name)]:
        package = archive.resolve(follow[0], source.suite)
    cache.remember("package", asked, asdict(package))
    return package


def _of_version(
    source: VersionSource,
    lab: Lab,
    cache: Cache,
    archive: Archive,
    progress: Progress,
    *,
    update: bool,
) -> Identity:
    asked = _asked(source, lab)
    found = None if update else cache.recall("package", asked)
    if not found:
        offers = versions.offers(lab, cache, archive, update=update)
        offer = offers.choose(versions.Kind.SOURCE, source.version)
        if offer.dsc:
            version = offer.package_version
            found = asdict(archive.resolve_source(offer.package, version, *lab.debian.suites))
        else:
            found = asdict(archive.resolve(offer.exactly, *lab.debian.suites))
        cache.remember("package", asked, found)
    if "files" in found:
        return SourcePackageIdentity(cache, progress, archive, _source_package(found))
    return PackageIdentity(cache, progress, archive, Package(**found))


def _source_package(fields: Mapping[str, Any]) -> SourcePackage:
    return SourcePackage(
        **{**fields, "files": tuple(SourceFile(**file) for file in fields["files"])}
    )


def _asked(source: PackageSource | VersionSource, lab: Lab) -> dict[str, Any]:
    debian = lab.debian
    where = {"mirror": debian.mirror, "security": debian.security_mirror}
    if isinstance(source, VersionSource):
        where["suites"] = " ".join(debian.suites)
    return {**where, **source.model_dump()}


def commit_of(git: Path, ref: str) -> str:
    """The commit that a git tree means by a name. Raises ConfigurationError where there is none."""
    if not git.is_dir():
        raise ConfigurationError(f"{git} is no folder; expected a git tree of the kernel")
    verify = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    try:
        return run(["git", "-C", git, *verify])[-1]
    except CommandError as error:
        raise _not_a_commit(git, ref) from error


def _not_a_commit(git: Path, ref: str) -> ConfigurationError:
    try:
        run(["git", "-C", git, "rev-parse", "--git-dir"])
    except CommandError as error:
        reason = next((line for line in error.lines if line.startswith("fatal:")), "no git tree")
        return ConfigurationError(
            f"{git} is no git tree: {reason}",
            hint="the lab builds commits; a source that is in no git can be given as a tarball",
        )
    return ConfigurationError(f"{git} has no commit named {ref}")


def _hash(tarball: Path, cache: Cache) -> str:
    try:
        asked = _asked_of(tarball)
        if known := cache.recall("tarball", asked):
            return str(known["sha256"])
        value = hash_of_file(tarball)
    except OSError as error:
        raise _no_tarball(tarball, error) from error
    cache.remember("tarball", asked, {"sha256": value})
    return value


def _asked_of(tarball: Path) -> dict[str, Any]:
    try:
        status = tarball.stat()
    except OSError as error:
        raise _no_tarball(tarball, error) from error
    return {"path": str(tarball), "size": status.st_size, "time": status.st_mtime_ns}


def _no_tarball(tarball: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{tarball}: {error.strerror}; expected a tarball of a kernel")


def _untar(tarball: Path, tree: Path) -> None:
    _unpack(["tar", "-x", "-f", tarball, "-C", tree, "--strip-components=1"], tarball)


def _unpack(words: Sequence[str | Path], what: Path) -> None:
    try:
        run(words)
    except CommandError as error:
        first = next((line for line in error.lines if line.strip()), f"status {error.status}")
        raise InfrastructureError(
            f"{what} is truncated or damaged: {first}",
            hint="get it again, and run the command again",
        ) from error
