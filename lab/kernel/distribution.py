# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that Debian built: fetched and taken apart, and what a guest needs of it kept."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.cache import Cache, Entry
from lab.config import DebSource, Lab
from lab.debian import Archive, Package
from lab.errors import ConfigurationError, InfrastructureError
from lab.kernel import modules, versions
from lab.kernel.kernel import Kernel
from lab.proc import CommandError, run
from lab.progress import Progress

PREFIX = versions.Kind.BUILT.prefix  # before a package's name, or a version

_RECIPE = 1  # a new number makes every one anew
# Without the first three no guest is heard of; the others are what the tests are about.
WANTED = ("virtio_pci", "virtio_net", "pvpanic_mmio", "vfio_pci", "vfio_iommu_type1")
# A kernel comes in one package, or from 7.0 on in several; a metapackage depends on them.
_PART = re.compile(r"linux-(image|binary|modules|base)-")
_DEPMOD = "/sbin/depmod"  # not on every user's PATH


def prepare(
    name: str,
    source: DebSource,
    lab: Lab,
    cache: Cache,
    progress: Progress,
    *,
    update: bool = False,
) -> Kernel:
    """The kernel of a package, from the cache or put there.

    Raises ConfigurationError for a package that is not there or holds no kernel, and
    InfrastructureError when the mirror or the disk fails.
    """
    archive = Archive(lab.debian, cache, progress)
    packages = _resolved(source, lab, cache, archive, update=update)

    def maker(folder: Path) -> Mapping[str, Any]:
        debs = archive.fetch(packages)
        with progress.step(f"take {packages[0].name} apart"):
            root = folder / "unpacked"
            for deb in debs.values():
                _unpack(deb, root)
            release = _keep(root, packages[0], folder)
            shutil.rmtree(root)
        return {
            "name": name,
            "source": {"packages": [asdict(package) for package in packages]},
            "release": release,
        }

    return _kernel(name, cache.make("kernel", _inputs(packages), maker))


def refresh(source: DebSource, lab: Lab, cache: Cache, progress: Progress) -> None:
    """Look up anew which packages a kernel is. Raises as `prepare` does."""
    _resolved(source, lab, cache, Archive(lab.debian, cache, progress), update=True)


def look(name: str, source: DebSource, lab: Lab, cache: Cache) -> tuple[str | None, Kernel | None]:
    """The package in a few words, and the kernel, as far as the cache knows them."""
    known = cache.recall("parts", _asked(source, lab))
    if not known:
        return None, None
    packages = [Package(**package) for package in known["packages"]]
    entry = cache.peek("kernel", _inputs(packages))
    title = f"{packages[0].name} {packages[0].version}"
    return title, _kernel(name, entry) if entry else None


def _resolved(
    source: DebSource, lab: Lab, cache: Cache, archive: Archive, *, update: bool
) -> list[Package]:
    """The package that was asked for, and the others that the kernel is in."""
    asked = _asked(source, lab)
    known = None if update else cache.recall("parts", asked)
    if known:
        return [Package(**package) for package in known["packages"]]
    suites = (source.suite,) if source.suite else lab.debian.suites
    wanted = source.deb
    if versions.is_version(wanted):
        had = versions.offers(lab, cache, archive, update=update)
        wanted, update = had.choose(versions.Kind.BUILT, wanted).exactly, False
    found: dict[str, Package] = {}
    waiting = [wanted]
    while waiting:
        name = waiting.pop()
        try:
            found[name] = archive.resolve(name, *suites, update=update and not found)
        except ConfigurationError:
            # An old kernel leaves the archive part by part; what has to be there is seen later.
            if not found:
                raise
            continue
        needs = archive.depends(found[name])
        waiting += [need for need in needs if _PART.match(need) and need not in found]
    cache.remember("parts", asked, {"packages": [asdict(part) for part in found.values()]})
    return list(found.values())


def _asked(source: DebSource, lab: Lab) -> dict[str, Any]:
    debian = lab.debian
    suites = [source.suite] if source.suite else list(debian.suites)
    where = {"mirror": debian.mirror, "security": debian.security_mirror, "suites": suites}
    return {"deb": source.deb, **where}


def _inputs(packages: Sequence[Package]) -> dict[str, Any]:
    return {
        "recipe": _RECIPE,
        "packages": [package.identity for package in packages],
        "modules": list(WANTED),
    }


def _kernel(name: str, entry: Entry) -> Kernel:
    return Kernel(
        name=name,
        bzimage=entry.path / "bzImage",
        config=config if (config := entry.path / "config").is_file() else None,
        vmlinux=None,
        headers=None,
        release=entry.provenance["release"],
        build_id=None,
        key=entry.key,
        provenance=entry.provenance,
        modules=entry.path / modules.ARCHIVE,
    )


def _unpack(deb: Path, root: Path) -> None:
    try:
        run(["dpkg-deb", "-x", deb, root])
    except CommandError as error:
        raise InfrastructureError(f"{deb} is damaged: {error.lines[-1:]}") from error


def _keep(root: Path, package: Package, folder: Path) -> str:
    """Put the files of a kernel into `folder`; its release."""
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")  # where depmod looks
    images = [*root.glob("boot/vmlinuz-*"), *root.glob("lib/modules/*/vmlinuz")]
    configs = [*root.glob("boot/config-*"), *root.glob("lib/modules/*/config")]
    releases = [file.parent for file in root.glob("lib/modules/*/modules.builtin")]
    if not images or not releases:
        raise ConfigurationError(
            f"{package.name} {package.version} and what the archive still has of what it depends "
            "on hold no kernel with modules",
            hint="expected a package such as linux-image-amd64, or a newer one",
        )
    run([_DEPMOD, "-b", root, releases[0].name])
    images[0].rename(folder / "bzImage")
    if configs:
        configs[0].rename(folder / "config")
    (folder / modules.ARCHIVE).write_bytes(modules.archive(releases[0], WANTED))
    return releases[0].name
