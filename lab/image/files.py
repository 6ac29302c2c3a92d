# SPDX-License-Identifier: GPL-2.0-only
"""Which files of which packages an image needs.

Of a package that the recipe names, everything that is not dropped; of what it depends on, only
the shared libraries that the kept programs name, and theirs.
"""

import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from lab.errors import ConfigurationError, InfrastructureError
from lab.image import cpio
from lab.image.recipe import Recipe
from lab.proc import CommandError, run

BUSYBOX = "usr/bin/busybox"
# Debian moved these into /usr; packages of before name the old places.
_MERGED = ("bin", "sbin", "lib", "lib64")
_NEEDED = re.compile(r"\(NEEDED\).*\[(?P<name>[^]]+)\]")
_LOADER = re.compile(r"program interpreter: (?P<path>[^]]+)\]")
_ELF = b"\x7fELF"

Tree = Mapping[str, Path]  # path in the image to a file, or link, on the host


def merged(path: str) -> str:
    """A package's path as it is when /bin, /sbin, /lib and /lib64 are links into /usr."""
    path = path.removeprefix("./").strip("/")
    return f"usr/{path}" if path.split("/", 1)[0] in _MERGED else path


def tree_of(deb: Path, folder: Path) -> Tree:
    """The files of one .deb, unpacked into an empty folder."""
    folder.mkdir(parents=True)
    try:
        run(["dpkg-deb", "-x", deb, folder])
    except CommandError as error:
        raise InfrastructureError(f"{deb} is damaged: {error.lines[-1:]}") from error
    found = (p for p in folder.rglob("*") if p.is_symlink() or p.is_file())
    return {merged(str(p.relative_to(folder))): p for p in found}


def choose(recipe: Recipe, trees: Mapping[str, Tree]) -> dict[str, Path]:
    """The files of the image; `trees` is by the packages' names."""
    everything = {path: file for tree in trees.values() for path, file in tree.items()}
    chosen = {
        path: file
        for name in recipe.content.packages
        for path, file in trees[name].items()
        if not recipe.drops(path)
    }
    libraries = {PurePosixPath(p).name: p for p in sorted(everything) if p.startswith("usr/lib")}
    waiting = list(chosen)
    while waiting:
        for wanted in _needs(chosen[path] for path in waiting):
            if wanted not in libraries:
                raise ConfigurationError(
                    f"{recipe.folder}: a program needs {wanted}, and no package of the recipe "
                    "or its dependencies has it"
                )
        names = sorted(_needs(chosen[path] for path in waiting))
        waiting = [libraries[name] for name in names if libraries[name] not in chosen]
        for path in list(waiting):
            chosen[path] = everything[path]
            target = _target(path, everything[path])
            if target and target not in chosen:
                chosen[target] = everything[target]
                waiting.append(target)
    return chosen


def members(chosen: Mapping[str, Path]) -> list[cpio.Member]:
    """The chosen files, the links into /usr, and a link for each of busybox's programs."""
    found = [cpio.link(name, f"usr/{name}") for name in _MERGED]
    found += [cpio.folder(f"usr/{name}") for name in _MERGED]
    for path, file in chosen.items():
        if file.is_symlink():
            found.append(cpio.link(path, str(file.readlink())))
        else:
            mode = stat.S_IMODE(file.stat().st_mode)
            found.append(cpio.file(path, file.read_bytes(), mode))
    if BUSYBOX in chosen:
        found += [m for m in _applets(chosen[BUSYBOX]) if m.name not in chosen]
    return found


def _applets(busybox: Path) -> list[cpio.Member]:
    try:
        paths = run([busybox, "--list-full"])
    except (CommandError, OSError) as error:
        raise InfrastructureError(f"{busybox.name} of the image does not run: {error}") from error
    names = [merged(path) for path in paths if "/" in path and path != "bin/busybox"]
    return [
        cpio.link(name, "busybox" if name.startswith("usr/bin/") else "../bin/busybox")
        for name in names
    ]


def _needs(files: Iterable[Path]) -> set[str]:
    """The names of the shared libraries, and of the loader, that some files name."""
    programs = [file for file in files if not file.is_symlink() and _is_elf(file)]
    if not programs:
        return set()
    lines = run(["readelf", "-ldW", *programs])
    needed = {found["name"] for line in lines if (found := _NEEDED.search(line))}
    loaders = {found["path"] for line in lines if (found := _LOADER.search(line))}
    return needed | {PurePosixPath(path).name for path in loaders}


def _is_elf(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == _ELF


def _target(path: str, file: Path) -> str | None:
    """Where a link in the image points to."""
    if not file.is_symlink():
        return None
    aim = file.readlink()
    if aim.is_absolute():
        return merged(str(aim))
    parts: list[str] = []
    for part in (PurePosixPath(path).parent / aim).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return merged("/".join(parts))
