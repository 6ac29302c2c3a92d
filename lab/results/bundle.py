# SPDX-License-Identifier: GPL-2.0-only
"""A run and all that it stood on as one file, to be replayed elsewhere.

| in the archive | what it is                                                           |
|----------------|----------------------------------------------------------------------|
| bundle.json    | the version of the lab, and size and SHA-256 of every other file     |
| run/           | the run's folder with its series, without the keys of its guests     |
| kernel/        | bzImage, configuration, modules, provenance; vmlinux, symbols/ if asked for |
| image/, agent/ | the initramfs, and the agent as it was compiled                      |
| lab/           | lab.yaml, tests, recorded deviations, fragments                      |

The same run makes the same archive, byte for byte: its files are sorted and have neither times nor
owners. What comes out of one is written only where its list says, with the bytes that it says.
"""

import contextlib
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

from lab.cache import PROVENANCE, hash_of_file
from lab.config import Lab
from lab.errors import ConfigurationError, InfrastructureError
from lab.kernel.prebuilt import of_bzimage
from lab.results.folder import RunFolder
from lab.results.record import Written
from lab.results.replay import Replay

LIST = "bundle.json"
SCHEMA = 1

_BLOCK = 1 << 20  # bytes
_LONGEST_LIST = 16 << 20  # bytes
SECRET = {"id_ed25519", "keys.cpio", "initramfs"}  # of guests that are gone
_ZSTD = b"\x28\xb5\x2f\xfd"
_GZIP = b"\x1f\x8b"
_Stream = IO[bytes] | gzip.GzipFile


@dataclass(frozen=True)
class File(Written):
    """What one file of a bundle has to be. `size` is in bytes."""

    size: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True)
class Contents(Written):
    """The content of bundle.json. `version` and `commit` are the lab's."""

    version: str
    commit: str | None
    files: Mapping[str, File]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Bundle:
    """One that is unpacked."""

    place: Path
    contents: Contents

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.place / "run")

    @property
    def agent(self) -> Path:
        return self.place / "agent" / "agent"

    def replay(self) -> Replay:
        """How the run is repeated with what is unpacked; its Python, cache and QEMU are still
        those of the machine that it comes from."""
        known = self.run.read_replay()
        return replace(
            known,
            lab=self.place / "lab",
            kernel=replace(known.kernel, path=self.place / "kernel" / "bzImage"),
            image=replace(known.image, path=self.place / "image" / "initramfs"),
            agent=replace(known.agent, path=self.agent),
        )


def pack(run: RunFolder, archive: Path, *, symbols: bool) -> Contents:
    """Write the bundle of a run to `archive`, which is not there yet.

    A name that ends in `.gz` is compressed by gzip, any other by zstd. Raises ConfigurationError
    for a run that cannot be repeated elsewhere, or no more.
    """
    replay = run.read_replay()
    files = dict(sorted(_files(run, replay, symbols=symbols).items()))
    contents = Contents(
        replay.version,
        replay.commit,
        {
            name: File(path.stat().st_size, hash_of_file(path), bool(path.stat().st_mode & 0o100))
            for name, path in files.items()
        },
    )
    unfinished = archive.with_name(f".{archive.name}.unfinished")
    try:
        with _compressed(unfinished, archive) as sink, _tar(sink) as tar:
            text = json.dumps(contents.to_json(), indent=1).encode() + b"\n"
            tar.addfile(_member(LIST, File(len(text), "")), io.BytesIO(text))
            for name, path in files.items():
                with path.open("rb") as file:
                    tar.addfile(_member(name, contents.files[name]), file)
        unfinished.replace(archive)
    except OSError as error:
        raise InfrastructureError(f"{archive}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return contents


def unpack(archive: Path, place: Path) -> Bundle:
    """Unpack into an empty folder. Raises ConfigurationError for what is no bundle, is damaged, or
    holds what its list does not."""
    try:
        with _uncompressed(archive) as source, tarfile.open(fileobj=source, mode="r|") as tar:
            contents = _contents(archive, tar)
            missing = set(contents.files)
            while member := tar.next():
                if member.name not in missing:
                    raise ConfigurationError(f"{archive}: '{member.name}' is not in its list")
                _write(archive, tar, member, contents.files[member.name], place)
                missing.remove(member.name)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigurationError(f"{archive} is no bundle, or is damaged: {error}") from error
    except OSError as error:
        raise InfrastructureError(f"{archive}: {error.strerror or error}") from error
    if missing:
        raise ConfigurationError(f"{archive}: {min(missing)} is missing: it is cut short")
    return Bundle(place, contents)


# What goes into it


def _files(run: RunFolder, replay: Replay, *, symbols: bool) -> dict[str, Path]:
    """The files by their names in the archive."""
    _check(run, replay)
    kernel = of_bzimage(replay.kernel.title, replay.kernel.path)
    parts = {
        "kernel/bzImage": kernel.bzimage,
        "kernel/config": kernel.config,
        "kernel/modules.cpio": kernel.modules,
        "kernel/vmlinux": kernel.vmlinux if symbols else None,
        f"kernel/{PROVENANCE}": kernel.bzimage.parent / PROVENANCE,
        "image/initramfs": replay.image.path,
        f"image/{PROVENANCE}": replay.image.path.parent / PROVENANCE,
        "agent/agent": replay.agent.path,
        "lab/lab.yaml": replay.lab / "lab.yaml",
        "lab/pyproject.toml": replay.lab / "pyproject.toml",  # pytest's settings
        "lab/kernels/known.yaml": replay.lab / "kernels" / "known.yaml",
    }
    found = {name: path for name, path in parts.items() if path and path.is_file()}
    if symbols and kernel.symbols:
        found |= _tree(f"kernel/{kernel.symbols.name}", kernel.symbols)
    found |= _tree("run", run.path)
    found |= _tree("lab/tests", replay.lab / "tests")
    for suite in Lab.load(replay.lab).suites.values():
        if not suite.tests.is_absolute():
            found |= _tree(f"lab/{suite.tests.as_posix()}", replay.lab / suite.tests)
    found |= _tree("lab/kernels/fragments", replay.lab / "kernels" / "fragments")
    return found


def _check(run: RunFolder, replay: Replay) -> None:
    """Raises ConfigurationError for a run that a bundle cannot repeat."""
    if not replay.is_of_tests:
        raise ConfigurationError("a bundle holds a run of tests, and this was one of a program")
    if programs := [test.program for test in run.read().tests if test.program]:
        raise ConfigurationError(
            f"{programs[0]} is built from the kernel's source, which a bundle does not hold",
            hint="bundle a run of another suite",
        )
    if outside := [word for word in replay.words if word.startswith("/")]:
        raise ConfigurationError(
            f"a bundle holds the lab's suites, and the run needs {outside[0]}, too",
            hint="bundle a run without --tests and --failed; -k chooses tests as well",
        )
    for part in (replay.kernel, replay.image, replay.agent):
        part.check()


def _tree(name: str, path: Path) -> dict[str, Path]:
    """The files of a folder, or the file that it is; links are left out."""
    if not path.is_dir():
        return {name: path} if path.is_file() else {}
    return {
        f"{name}/{file.relative_to(path).as_posix()}": file
        for file in path.rglob("*")
        if file.is_file()
        and not file.is_symlink()
        and "__pycache__" not in file.parts
        and file.name not in SECRET
    }


def _tar(sink: _Stream) -> tarfile.TarFile:
    return tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT)


def _member(name: str, file: File) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = file.size
    member.mode = 0o755 if file.executable else 0o644
    return member


# What comes out of it


def _contents(archive: Path, tar: tarfile.TarFile) -> Contents:
    """The list, which comes first."""
    first = tar.next()
    file = tar.extractfile(first) if first and first.name == LIST and first.isfile() else None
    if not first or not file or first.size > _LONGEST_LIST:
        raise ConfigurationError(f"{archive} is no bundle: it does not begin with its list")
    try:
        content = json.loads(file.read())
        if content.get("schema") != SCHEMA:
            raise ConfigurationError(
                f"{archive}: schema {content.get('schema')} is not known; this lab reads {SCHEMA}"
            )
        contents = Contents.from_json(content)
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"{archive}: {LIST}: {error}") from error
    for name in contents.files:
        path = PurePosixPath(name)
        odd = str(path) != name or "\0" in name or name == LIST
        if odd or path.is_absolute() or ".." in path.parts:
            raise ConfigurationError(f"{archive}: '{name}' is no name of a file in a bundle")
    return contents


def _write(
    archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, wanted: File, place: Path
) -> None:
    """One file. No link is ever made, so that no name leads out of `place`."""
    source = tar.extractfile(member) if member.isreg() else None
    if not source or member.size != wanted.size:
        raise ConfigurationError(f"{archive}: {member.name} is not the file of its list")
    target = place / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as sink:
        while block := source.read(_BLOCK):
            digest.update(block)
            sink.write(block)
    target.chmod(0o755 if wanted.executable else 0o644)
    if digest.hexdigest() != wanted.sha256:
        raise ConfigurationError(f"{archive} is damaged: {member.name} has other bytes")


# Compression


@contextmanager
def _compressed(file: Path, named: Path) -> Iterator[_Stream]:
    if named.suffix == ".gz":
        # neither a name nor a time in its header
        with file.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as sink:
            yield sink
        return
    with file.open("wb") as raw, _zstd("-q", "-T1", "-6", stdout=raw) as process:
        assert process.stdin is not None
        yield process.stdin


@contextmanager
def _uncompressed(file: Path) -> Iterator[_Stream]:
    with file.open("rb", buffering=0) as raw:  # zstd has the same descriptor: no byte is read ahead
        magic = raw.read(4)
        raw.seek(0)
        if magic.startswith(_GZIP):
            with gzip.GzipFile(fileobj=raw) as source:
                yield source
        elif magic == _ZSTD:
            with _zstd("-q", "-d", "-c", stdin=raw) as process:
                assert process.stdout is not None
                yield process.stdout
        else:
            raise ConfigurationError(f"{file} is no bundle", hint="`vfio-lab bundle` makes one")


@contextmanager
def _zstd(
    *words: str, stdin: IO[bytes] | int = subprocess.PIPE, stdout: IO[bytes] | int = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """A zstd between a file and us. Raises InfrastructureError where there is none."""
    try:
        process = subprocess.Popen(["zstd", *words], stdin=stdin, stdout=stdout)
    except FileNotFoundError as error:
        raise InfrastructureError(
            "zstd is not installed", hint="apt-get install zstd, or name the bundle *.tar.gz"
        ) from error
    try:
        yield process
        if process.stdin:
            process.stdin.close()
        if process.stdout:
            process.stdout.read()  # what follows the archive's end
        if process.wait():
            raise InfrastructureError("zstd failed: see above")
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
