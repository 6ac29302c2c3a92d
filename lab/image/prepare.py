# SPDX-License-Identifier: GPL-2.0-only
"""From a recipe to an initramfs."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.cache import PROVENANCE, Cache, Entry, hash_of_file
from lab.config import Lab
from lab.debian import Archive, ListsTooOld, Package
from lab.errors import ConfigurationError
from lab.image import cpio, files, recipe
from lab.image.recipe import Recipe
from lab.progress import Progress

_RECIPE = 1  # a new number makes every image anew
INITRAMFS = "initramfs"

# What no package brings. The console must be there before devtmpfs is, for init's own words.
_FOUNDATION = (
    cpio.folder("."),  # else the kernel leaves it writable for all, and no SSH server trusts that
    cpio.node("dev/console", 5, 1),
    *(cpio.folder(name) for name in ("proc", "sys", "run", "etc", "home", "var", "mnt")),
    cpio.folder("tmp", 0o1777),
    cpio.link("var/run", "../run"),
    cpio.folder("root", 0o700),
    cpio.folder("root/.ssh", 0o700),
    cpio.folder("home/tester", 0o700, owner=1000),
    cpio.folder("home/tester/.ssh", 0o700, owner=1000),
    # each guest's keys come in an archive of its own before this one
    cpio.folder("etc/vfio-lab"),
    cpio.link("root/.ssh/authorized_keys", "/etc/vfio-lab/authorized_keys"),
    cpio.link("home/tester/.ssh/authorized_keys", "/etc/vfio-lab/authorized_keys"),
)


@dataclass(frozen=True)
class Image:
    """An initramfs. `provenance` names its packages; `key` changes when the bits do."""

    name: str
    initramfs: Path
    key: str
    provenance: Mapping[str, Any]


def prepare(
    name: str, lab: Lab, cache: Cache, progress: Progress, *, update: bool = False
) -> Image:
    """The image of lab.yaml's name, from the cache or made into it; or an initramfs, by its path.

    With `update` the newest packages are looked up anew. Raises ConfigurationError (recipe,
    packages, size) and InfrastructureError (mirror, disk).
    """
    check(name, lab)
    if name not in lab.images:
        return _of_file(name, Path(name).expanduser().absolute())
    described = recipe.read(lab.path(lab.image(name).recipe), lab)
    archive = Archive(lab.debian, cache, progress)

    def attempt(*, update: bool) -> Image:
        packages = _resolved(described, lab, cache, archive, update=update)
        return _made(name, described, packages, archive, cache, progress)

    try:
        return attempt(update=update)
    except ListsTooOld:
        return attempt(update=True)


def check(name: str, lab: Lab) -> None:
    """Raises ConfigurationError where there is neither such an image nor such a file."""
    if name in lab.images or Path(name).expanduser().is_file():
        return
    if "/" in name:
        raise ConfigurationError(
            f"{name} is no file; expected an initramfs, or an image of lab.yaml: "
            + ", ".join(lab.images)
        )
    lab.image(name)


def look(name: str, lab: Lab, cache: Cache) -> Image | None:
    """The image if it is in the cache. Nothing is fetched, made, or counted as used."""
    described = recipe.read(lab.path(lab.image(name).recipe), lab)
    known = cache.recall("closure", _asked(described, lab))
    if not known:
        return None
    packages = [Package(**package) for package in known["packages"]]
    entry = cache.peek("image", _inputs(described, packages))
    return _image(name, entry) if entry else None


def _resolved(
    described: Recipe, lab: Lab, cache: Cache, archive: Archive, *, update: bool
) -> list[Package]:
    wanted, suites = described.content.packages, described.content.suites
    asked = _asked(described, lab)
    known = None if update else cache.recall("closure", asked)
    if known:
        return [Package(**package) for package in known["packages"]]
    try:
        packages = archive.closure(wanted, suites, update=update)
    except ConfigurationError as error:
        message = f"{described.folder / recipe.FILE}: packages: {error.message}"
        raise ConfigurationError(message, hint=error.hint) from error
    cache.remember("closure", asked, {"packages": [asdict(package) for package in packages]})
    return packages


def _asked(described: Recipe, lab: Lab) -> dict[str, Any]:
    return {
        "packages": described.content.packages,
        "suites": described.content.suites,
        "mirror": lab.debian.mirror,
        "security": lab.debian.security_mirror,
    }


def _made(
    name: str,
    described: Recipe,
    packages: Sequence[Package],
    archive: Archive,
    cache: Cache,
    progress: Progress,
) -> Image:
    def maker(folder: Path) -> Mapping[str, Any]:
        debs = archive.fetch(packages)
        with progress.step(f"make image {name}") as step:
            # Not compressed: an emulated CPU takes 0.3 s to undo it, and QEMU loads 6 MB in 0.01 s.
            whole = cpio.archive(_members(described, debs, folder / "unpacked"))
            _check_size(described, len(whole))
            (folder / INITRAMFS).write_bytes(whole)
            step.result(f"{len(whole) / 1e6:.1f} MB")
        versions = {package.name: package.version for package in packages}
        return {"name": name, "packages": versions, "size": len(whole)}

    return _image(name, cache.make("image", _inputs(described, packages), maker))


def _inputs(described: Recipe, packages: Sequence[Package]) -> dict[str, Any]:
    return {
        "recipe": _RECIPE,
        **described.inputs(),
        "packages": [package.identity for package in packages],
    }


def _image(name: str, entry: Entry) -> Image:
    return Image(name, entry.path / INITRAMFS, entry.key, entry.provenance)


def _of_file(name: str, initramfs: Path) -> Image:
    """One that was made already: here, with its provenance beside it, or elsewhere."""
    known = initramfs.parent / PROVENANCE
    if known.is_file():
        entry = Entry("image", initramfs.parent.name, initramfs.parent)
        known_as = entry.provenance.get("name", name)
        return Image(known_as, initramfs, entry.provenance["key"], entry.provenance)
    digest = hash_of_file(initramfs)
    return Image(name, initramfs, digest[:24], {"sha256": digest})


def _members(described: Recipe, debs: Mapping[Package, Path], folder: Path) -> list[cpio.Member]:
    trees = {p.name: files.tree_of(deb, folder / p.name) for p, deb in debs.items()}
    found = [*_FOUNDATION, *files.members(files.choose(described, trees))]
    found += [cpio.link(path, target) for path, target in described.content.links.items()]
    for path, file in described.files().items():
        # git keeps one bit of a file's mode; an umask may have taken others
        mode = 0o755 if file.stat().st_mode & 0o100 or path == "init" else 0o644
        found.append(cpio.file(path, file.read_bytes(), mode))
    shutil.rmtree(folder)
    return found


def _check_size(described: Recipe, size: int) -> None:
    if size > described.limit:
        raise ConfigurationError(
            f"{described.folder / recipe.FILE}: limit: the image has {size} bytes; expected at "
            f"most {described.limit} ({described.content.limit})",
            hint="drop files or packages, or raise the limit",
        )
