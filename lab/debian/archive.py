# SPDX-License-Identifier: GPL-2.0-only
"""Debian's packages, looked up and fetched with apt and a state of the lab's own.

The host's package lists, caches and locks are neither read nor written: apt gets a private
sources.list, private lists and an empty dpkg status, and no rights of root. Everything is
checked against Debian's archive keyring. The host's apt.conf (proxies) stays in force.
"""

import difflib
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.cache import Cache, hash_of_file
from lab.config import Debian
from lab.debian.apt import is_gone, private, said, show, trouble
from lab.debian.mirrors import Mirrors, mirrors_of_host, targets_of_host
from lab.debian.packages import (
    Listed,
    Package,
    SourcePackage,
    listed_in,
    package_in,
    source_file_in,
)
from lab.errors import ConfigurationError, InfrastructureError, LabError
from lab.proc import CommandError, disk_full, run
from lab.progress import Progress

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_HASHES = ("-o", "Acquire::ForceHash=SHA256")  # what --print-uris prints
_LISTS = 100_000_000  # bytes that the lists of a suite or two take, with apt's caches of them


class Archive:
    """Debian's archive as lab.yaml names it. Use it within one command."""

    def __init__(self, settings: Debian, cache: Cache, progress: Progress) -> None:
        self._settings = settings
        self._cache = cache
        self._progress = progress
        self._root = cache.root / "apt"

    def resolve(self, package: str, *suites: str, update: bool = False) -> Package:
        """The newest version of a package in some suites.

        Raises ConfigurationError when none of them has such a package, InfrastructureError when
        the mirror fails.
        """
        with self._apt(suites, update=update) as apt:
            words = ["apt-get", *apt, "download", "--print-uris", package]
            return self._packages(words, (package,), suites, apt)[0]

    def closure(
        self, packages: Sequence[str], suites: Sequence[str], *, update: bool = False
    ) -> list[Package]:
        """The packages and all that they depend on, newest versions, sorted by name."""
        with self._apt(suites, update=update) as apt:
            words = ["apt-get", *apt, "install", "--yes", "--no-install-recommends"]
            found = self._packages([*words, "--print-uris", *packages], packages, suites, apt)
            return sorted(found, key=lambda package: package.name)

    def resolve_source(self, package: str, version: str, *suites: str) -> SourcePackage:
        """A version of a source package. Raises as `resolve` does."""
        with self._apt(suites, sources=True) as apt:
            words = ["apt-get", *apt, *_HASHES, "source", "--download-only", "--print-uris"]
            try:
                lines = run([*words, f"{package}={version}"])
            except CommandError as error:
                what = f"apt cannot resolve the source of {package} {version} in {_of(suites)}"
                raise trouble(what, error) from error
        files = tuple(source_file_in(line) for line in lines if line.startswith("'"))
        return SourcePackage(package, version, _of(suites), files)

    def listed(self, pattern: str, source: str, *suites: str, update: bool = False) -> list[Listed]:
        """Every version that the suites have of the packages whose name begins as `source` does
        and matches a pattern, of the source packages that they come of, and of `source` itself.

        Raises InfrastructureError.
        """
        with self._apt(suites, sources=True, update=update) as apt:
            names = run(["apt-cache", *apt, "pkgnames", f"{source}-"])
            wanted = [name for name in names if re.fullmatch(pattern, name)]
            lines = run(["apt-cache", *apt, "madison", *wanted, source])
        return [listed_in(line) for line in lines if line.count("|") == 2]

    def depends(self, package: Package) -> list[str]:
        """The names of the packages that a package depends on directly."""
        with self._apt(package.suite.split("+")) as apt:
            words = ["apt-cache", *apt, "show", f"{package.name}={package.version}"]
            for line in run(words):
                if line.startswith("Depends:"):
                    names = re.split(r"[,|]", line.partition(":")[2])
                    return [name.split()[0].partition(":")[0] for name in names]
        return []

    def fetch(self, packages: Sequence[Package]) -> dict[Package, Path]:
        """The .debs of some packages, from the cache or downloaded into it together."""

        def maker(folder: Path) -> Mapping[str, Any]:
            self.download(packages, folder)
            return {"packages": [asdict(package) for package in packages]}

        inputs = {"packages": [package.identity for package in packages]}
        folder = self._cache.make("deb", inputs, maker).path
        files = {package: folder / package.file for package in packages}
        for package, file in files.items():
            _check_hash(file, package.sha256)
        return files

    def fetch_source(self, package: SourcePackage) -> Path:
        """The .dsc of a source package with its other files beside it, from the cache or
        downloaded into it. Raises as `download` does."""

        def maker(folder: Path) -> Mapping[str, Any]:
            total = sum(file.size for file in package.files)
            step = f"download the source of {package.name} {package.version}"
            words = ["--download-only", "source", f"{package.name}={package.version}"]
            with self._apt(package.suite.split("+"), sources=True) as apt:
                self._get(step, [*apt, *words], total, folder)
            for file in package.files:
                _check_size(folder / file.name, file.size)
            return {"packages": [package.identity]}

        folder = self._cache.make("deb", {"source": package.identity}, maker).path
        for file in package.files:
            _check_hash(folder / file.name, file.sha256)
        return folder / package.dsc.name

    def download(self, packages: Sequence[Package], folder: Path) -> list[Path]:
        """Fetch the .debs into a folder; apt checks each against the signed lists.

        Raises ListsTooOld when the mirror has a newer version by now.
        """
        suites = tuple(dict.fromkeys(s for package in packages for s in package.suite.split("+")))
        names = packages[0].file if len(packages) == 1 else f"{len(packages)} packages"
        with self._apt(suites) as apt:
            words = [f"{package.name}={package.version}" for package in packages]
            total = sum(package.size for package in packages)
            self._get(f"download {names}", [*apt, "download", *words], total, folder)
        files = [folder / package.file for package in packages]
        for file, package in zip(files, packages, strict=True):
            _check_size(file, package.size)
        return files

    def _get(self, title: str, words: Sequence[str], size: int, folder: Path) -> None:
        """Have apt-get fetch `size` bytes into a folder."""
        total = size / 1e6
        with self._progress.step(title) as step:
            step.result(f"{total:.1f} MB")
            _check_space(folder, size)
            try:
                run(
                    ["apt-get", "-o", "APT::Status-Fd=1", *words],
                    cwd=folder,
                    on_line=lambda line: show(line, total, step),
                )
            except CommandError as error:
                raise trouble("the download failed", error) from error

    def _packages(
        self, words: list[str], wanted: Sequence[str], suites: Sequence[str], apt: list[str]
    ) -> list[Package]:
        try:
            lines = run([*words, *_HASHES])
        except CommandError as error:
            raise self._unknown(error, wanted, suites, apt) from error
        found = [package_in(line, suites) for line in lines if line.startswith("'")]
        if not found:
            raise ConfigurationError(f"{', '.join(wanted)}: {_of(suites)} has nothing to download")
        return found

    def _unknown(
        self, error: CommandError, wanted: Sequence[str], suites: Sequence[str], apt: list[str]
    ) -> LabError:
        missing = re.compile(
            r"(?:Unable to locate package|Can't find a source to download|has no installation "
            r"candidate|Couldn't find any package|Can't select (?:versions|candidate))"
        )
        line = next((line for line in error.lines if missing.search(line)), None)
        if line is None:
            return trouble(f"apt cannot resolve {', '.join(wanted)} in {_of(suites)}", error)
        names = run(["apt-cache", *apt, "pkgnames"])
        absent = [name for name in wanted if name not in set(names)] or list(wanted)
        near = difflib.get_close_matches(absent[0], names, 4, 0.7)
        return ConfigurationError(
            f"{_of(suites)} has no package {', '.join(absent)}",
            hint=f"the nearest names there: {', '.join(near)}" if near else None,
        )

    @contextmanager
    def _apt(
        self, suites: Sequence[str], *, sources: bool = False, update: bool = False
    ) -> Iterator[list[str]]:
        """The options that make apt the lab's own, with lists of `suites` on disk; with `sources`
        those of the source packages, too."""
        if not KEYRING.is_file():
            raise InfrastructureError(
                f"{KEYRING} is missing: packages cannot be checked",
                hint="apt-get install debian-archive-keyring",
            )
        # Two runs must not write the same lists; apt's own locks are off, because they fail
        # where these wait.
        with self._cache.lock("apt"):
            kinds = ("deb", "deb-src") if sources else ("deb",)
            lines = [self._line(kind, suite) for kind in kinds for suite in suites]
            name = hashlib.sha256("".join(lines).encode()).hexdigest()[:12]
            state = self._root / name
            for folder in (state, self._root / "lists" / "partial"):
                folder.mkdir(parents=True, exist_ok=True)
            (state / "sources.list").write_text("".join(lines))
            (state / "status").touch()
            options = private(self._root, state)
            if update or not (state / "updated").exists():
                self._update(options, suites)
                (state / "updated").touch()
            yield options

    def _update(self, options: list[str], suites: Sequence[str]) -> None:
        with self._progress.step(f"read Debian's package lists ({', '.join(suites)})"):
            _check_space(self._root, _LISTS)
            try:
                # Without the error mode apt-get exits with 0 when a mirror does not answer.
                run(["apt-get", *options, "-o", "APT::Update::Error-Mode=any", "update"])
            except CommandError as error:
                # apt says the same of a wrong suite and of a proxy in the way: 404 is the former
                missing = any("does not have a Release file" in line for line in error.lines)
                if missing and is_gone(error):
                    raise ConfigurationError(
                        f"the mirror has no suite {' or '.join(suites)}: {said(error)}",
                        hint="correct the suite, or debian.mirror, in lab.yaml",
                    ) from error
                raise trouble("the Debian mirror failed", error) from error

    def _line(self, kind: str, suite: str) -> str:
        uri = self.mirrors().of(suite)
        return f"{kind} [signed-by={KEYRING} arch=amd64] {uri} {suite} main\n"

    def mirrors(self) -> Mirrors:
        """Where the archive is, as lab.yaml or this host's apt says.

        Raises ConfigurationError where neither does.
        """
        main, security = self._settings.mirror, self._settings.security_mirror
        if main == "auto":
            found = mirrors_of_host(targets_of_host(self._root / "host"))
            main, default = found.main, found.security
        else:
            default = f"{main.rstrip('/')}-security"
        return Mirrors(main, default if security == "auto" else security)


def _check_size(file: Path, size: int) -> None:
    if not file.is_file() or file.stat().st_size != size:
        raise InfrastructureError(
            f"apt downloaded {file.name}, but it is not the {size} bytes that the archive's lists "
            "name"
        )


def _check_hash(file: Path, sha256: str) -> None:
    """The lists vouched for it once; a copy that rotted on disk is caught here."""
    if not file.is_file() or hash_of_file(file) != sha256:
        raise InfrastructureError(
            f"{file} is not what was downloaded: its SHA-256 differs from the archive's",
            hint=f"remove {file.parent} and run the command again",
        )


def _check_space(folder: Path, size: int) -> None:
    """apt that meets a full disk while it reads lists waits for ever: it must not meet one."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise disk_full(f"{folder} has {free // 10**6} MB; expected {size // 10**6} MB")


def _of(suites: Sequence[str]) -> str:
    return "+".join(suites)
