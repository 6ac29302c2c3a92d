# SPDX-License-Identifier: GPL-2.0-only
"""A kernel out of packages, in the two ways in which Debian has put it into them."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.debian import Package
from lab.errors import ConfigurationError
from lab.kernel import Kernel, distribution, look, prepare
from lab.progress import Progress

OLD, NEW = "6.12.9+deb12-amd64", "7.3.4+deb13-amd64"
BUILT_IN = "".join(f"kernel/drivers/{name}.ko\n" for name in distribution.WANTED)

OLD_FILES = {f"boot/vmlinuz-{OLD}": "old image", f"boot/config-{OLD}": "CONFIG_VFIO=m\n"}
NEW_FILES = {f"usr/lib/modules/{NEW}/vmlinuz": "new image"}
CONTENT = {
    "linux-image-amd64": {},
    f"linux-image-{OLD}": {**OLD_FILES, f"lib/modules/{OLD}/modules.builtin": BUILT_IN},
    f"linux-image-{NEW}": {},
    f"linux-binary-{NEW}": NEW_FILES,
    f"linux-base-{NEW}": {f"usr/lib/modules/{NEW}/config": "CONFIG_VFIO=m\n"},
    f"linux-modules-{NEW}": {f"usr/lib/modules/{NEW}/modules.builtin": BUILT_IN},
    "kmod": {},
}
DEPENDS = {
    "linux-image-amd64": ["linux-base", f"linux-image-{OLD}"],
    f"linux-image-{OLD}": ["kmod", "linux-base"],
    f"linux-image-{NEW}": ["kmod", f"linux-binary-{NEW}", f"linux-modules-{NEW}"],
    f"linux-modules-{NEW}": [f"linux-base-{NEW}"],
}


@dataclass
class Archive:
    """Debian's archive, with packages of a file or two."""

    folder: Path
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def resolve(self, package: str, *suites: str, update: bool = False) -> Package:
        del update
        self.asked.append((package, *suites))
        if package not in CONTENT:
            raise ConfigurationError(f"no package {package}")
        return Package(package, "1", "+".join(suites), f"hash of {package}", 1, f"{package}.deb")

    def depends(self, package: Package) -> Sequence[str]:
        return DEPENDS.get(package.name, [])

    def fetch(self, packages: Sequence[Package]) -> Mapping[Package, Path]:
        return {package: self._deb(package.name) for package in packages}

    def _deb(self, name: str) -> Path:
        root = self.folder / name
        for path, text in CONTENT[name].items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (root / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: a\n"
        (root / "DEBIAN" / "control").write_text(control)
        deb = self.folder / f"{name}.deb"
        subprocess.run(["dpkg-deb", "-b", root, deb], check=True, capture_output=True)
        return deb


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    archive = Archive(tmp_path / "archive")
    monkeypatch.setattr(distribution, "Archive", lambda *_: archive)
    return archive


@pytest.fixture
def fetched(
    archive: Archive, lab: Lab, cache: Cache, progress: Progress
) -> Callable[[str], Kernel]:
    assert not archive.asked
    return lambda spec: prepare(spec, lab, cache, progress)


@pytest.mark.parametrize(
    ("release", "image"), [(OLD, "old image"), (NEW, "new image")], ids=["one", "several"]
)
def test_a_kernel_is_found_in_one_package_or_several(
    fetched: Callable[[str], Kernel], release: str, image: str
) -> None:
    kernel = fetched(f"deb:linux-image-{release}")
    assert kernel.release == release
    assert kernel.bzimage.read_text() == image
    assert kernel.config
    assert kernel.config.read_text() == "CONFIG_VFIO=m\n"
    assert kernel.modules
    assert kernel.modules.is_file()
    assert not list(kernel.bzimage.parent.glob("*/"))


def test_a_metapackage_leads_to_the_kernel_and_to_nothing_else(
    fetched: Callable[[str], Kernel], archive: Archive
) -> None:
    assert fetched("deb:linux-image-amd64").release == OLD
    assert [name for name, *_ in archive.asked] == ["linux-image-amd64", f"linux-image-{OLD}"]
    assert {asked[1:] for asked in archive.asked} == {("bookworm",)}


def test_a_part_that_left_the_archive_is_missed_only_where_it_is_needed(
    fetched: Callable[[str], Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(CONTENT, f"linux-base-{NEW}")
    assert fetched(f"deb:linux-image-{NEW}").config is None


def test_without_its_modules_a_kernel_is_none(
    fetched: Callable[[str], Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(CONTENT, f"linux-modules-{NEW}")
    with pytest.raises(ConfigurationError, match=r"linux-image-7\.3\.4.* hold no kernel"):
        fetched(f"deb:linux-image-{NEW}")


def test_a_second_time_nobody_is_asked(
    fetched: Callable[[str], Kernel], archive: Archive, lab: Lab, cache: Cache
) -> None:
    spec = f"deb:linux-image-{OLD}"
    assert look(spec, lab, cache).built is None
    first = fetched(spec)
    asked = list(archive.asked)
    assert fetched(spec) == first
    assert look(spec, lab, cache).built == first
    assert archive.asked == asked


def test_a_package_without_a_kernel_is_told(fetched: Callable[[str], Kernel]) -> None:
    with pytest.raises(ConfigurationError, match=r"kmod 1 and .* hold no kernel"):
        fetched("deb:kmod")


def test_a_built_kernel_takes_no_fragment(
    lab: Lab, cache: Cache, progress: Progress, archive: Archive
) -> None:
    text = (lab.root / "lab.yaml").read_text()
    kernels = "kernels:\n  debian: {source: {deb: linux-image-amd64, suite: bookworm}}\n"
    (lab.root / "lab.yaml").write_text(text.replace("kernels:\n", kernels))
    changed = Lab.load(lab.root)
    assert prepare("debian", changed, cache, progress).release == OLD
    assert archive.asked
    with pytest.raises(ConfigurationError, match="is built already and takes no fragment"):
        prepare("debian+less", changed, cache, progress)
