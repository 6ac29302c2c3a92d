# SPDX-License-Identifier: GPL-2.0-only
"""Kernels by version: what the archive's lists hold, and which of it a version means."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.debian import Listed, Package, SourceFile, SourcePackage
from lab.errors import ConfigurationError
from lab.kernel import source, versions
from lab.kernel.features import Feature, Known
from lab.kernel.fragment import Wish
from lab.kernel.prepare import prepare, source_of
from lab.kernel.versions import Kind, Offers, is_version, order
from lab.progress import Progress

LISTED = [
    Listed("linux-image-6.1.0-47-amd64", "6.1.170-3", "bookworm", source=False),
    Listed("linux-image-6.1.0-50-amd64", "6.1.176-1", "bookworm", source=False),
    Listed("linux-image-6.12-amd64", "6.12.117-1~deb12u1", "bookworm-security", source=False),
    Listed("linux-image-6.12.117+deb12-amd64", "6.12.117-1~deb12u1", "bookworm", source=False),
    Listed("linux-image-6.12.8+deb13-amd64", "6.12.8-1", "trixie", source=False),
    Listed("linux-image-7.3-amd64", "7.3~rc7-1~exp1", "experimental", source=False),
    Listed("linux-source-6.12", "6.12.117-1", "trixie-security", source=False),
    Listed("linux", "6.12.117-1", "trixie-security", source=True),
    Listed("linux", "6.12.8-1", "trixie", source=True),
    Listed("linux", "6.12.38-1", "trixie", source=True),
    Listed("linux-6.12", "6.12.100-1~deb12u1", "bookworm-security", source=True),
    Listed("linux-signed-amd64", "6.1.176+1", "bookworm", source=True),
]


@dataclass
class Archive:
    """Debian's archive: `LISTED`, and a way to each of it."""

    asked: list[str] = field(default_factory=list)

    def listed(self, pattern: str, name: str, *suites: str, update: bool = False) -> list[Listed]:
        del pattern, suites
        self.asked.append(f"all of {name}{' anew' if update else ''}")
        return LISTED

    def resolve(self, package: str, *suites: str, update: bool = False) -> Package:
        assert not update
        self.asked.append(package)
        name, _, version = package.partition("=")
        return Package(name, version, "+".join(suites), f"hash of {version}", 1, f"{name}.deb")

    def resolve_source(self, package: str, version: str, *suites: str) -> SourcePackage:
        self.asked.append(f"source of {package} {version}")
        dsc = SourceFile(f"{package}.dsc", f"hash of {version}", 1)
        return SourcePackage(package, version, "+".join(suites), (dsc,))

    def depends(self, package: Package) -> Sequence[str]:
        del package
        return ()


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Archive:
    archive = Archive()
    monkeypatch.setattr(source, "Archive", lambda *_: archive)
    return archive


@pytest.fixture
def offers(lab: Lab, cache: Cache, archive: Archive) -> Offers:
    return versions.offers(lab, cache, archive)  # type: ignore[arg-type]


@pytest.fixture
def by_version(lab: Lab) -> Lab:
    text = (lab.root / "lab.yaml").read_text()
    (lab.root / "lab.yaml").write_text(text + 'versions: {"6.6": [base], "7.0": [base, less]}\n')
    return Lab.load(lab.root)


def test_versions_are_in_dpkgs_order() -> None:
    sorted_ = ["6.1.8-1", "6.1.170-3", "6.12~rc1-1", "6.12-1", "6.12.8-1~bpo12+1", "6.12.8-1"]
    sorted_ += ["6.12.8-2", "6.12.8a-1", "6.12.8+1-1", "6.12.38-1", "7.0.1-1"]
    assert sorted(set(sorted_), key=order) == sorted_
    for lower, upper in pairwise(sorted_):
        run(["dpkg", "--compare-versions", lower, "lt", upper], check=True)


@pytest.mark.parametrize(
    ("kind", "version", "package"),
    [
        (Kind.BUILT, "6.1.170", "linux-image-6.1.0-47-amd64=6.1.170-3"),
        (Kind.BUILT, "6.1", "linux-image-6.1.0-50-amd64=6.1.176-1"),
        (Kind.BUILT, "6.12", "linux-image-6.12.117+deb12-amd64=6.12.117-1~deb12u1"),
        (Kind.BUILT, "6.12.8", "linux-image-6.12.8+deb13-amd64=6.12.8-1"),
        (Kind.BUILT, "7.3-rc7", "linux-image-7.3-amd64=7.3~rc7-1~exp1"),
        (Kind.SOURCE, "6.12.8", "linux=6.12.8-1"),
        (Kind.SOURCE, "6.12.8-1", "linux=6.12.8-1"),
        (Kind.SOURCE, "6.12.100", "linux-6.12=6.12.100-1~deb12u1"),
        (Kind.SOURCE, "6.12.117", "linux-source-6.12=6.12.117-1"),
    ],
)
def test_a_version_means_its_newest_package(
    offers: Offers, kind: Kind, version: str, package: str
) -> None:
    assert offers.choose(kind, version).exactly == package


def test_a_version_that_is_not_there_is_told_with_its_neighbours(offers: Offers) -> None:
    with pytest.raises(ConfigurationError) as caught:
        offers.choose(Kind.SOURCE, "6.12.57")
    near = "near it are src:6.12.8, src:6.12.38, src:6.12.100, src:6.12.117"
    assert near in caught.value.message
    with pytest.raises(ConfigurationError, match=r"deb:5\.10: .*near it are deb:6\.1\.170"):
        offers.choose(Kind.BUILT, "5.10")


def test_what_is_no_kernel_is_not_offered(offers: Offers) -> None:
    assert "linux-signed-amd64" not in {offer.package for offer in offers.all}
    assert len(offers.all) == len(LISTED) - 3  # nor is one of two ways to the same


def test_the_archive_is_asked_once_or_anew(lab: Lab, cache: Cache, archive: Archive) -> None:
    assert versions.known(lab, cache) is None
    first = versions.offers(lab, cache, archive)  # type: ignore[arg-type]
    assert versions.offers(lab, cache, archive) == first == versions.known(lab, cache)  # type: ignore[arg-type]
    versions.offers(lab, cache, archive, update=True)  # type: ignore[arg-type]
    assert archive.asked == ["all of linux", "all of linux anew"]


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("6.12.8", True),
        ("6.12", True),
        ("7.3-rc7", True),
        ("6", False),
        ("linux-image-amd64", False),
    ],
)
def test_a_version_is_no_name_of_a_package(word: str, known: bool) -> None:
    assert is_version(word) is known


def test_a_source_is_resolved_once_and_the_same_way_again(
    by_version: Lab, cache: Cache, progress: Progress, archive: Archive
) -> None:
    first = source_of("src:6.12.8+less", by_version, cache, progress)
    assert first
    assert first.title == "linux 6.12.8-1"
    assert source_of("src:6.12.8", by_version, cache, progress) == first
    assert archive.asked == ["all of linux", "source of linux 6.12.8-1"]
    assert source.again(first.provenance, by_version, cache, progress) == first
    packed = source_of("src:6.12.117", by_version, cache, progress)
    assert packed
    assert packed.title == "linux-source-6.12 6.12.117-1"


def test_a_version_has_the_fragments_of_its_age(by_version: Lab) -> None:
    assert by_version.kernel_of("6.12.8").fragments == ("base",)
    assert by_version.kernel_of("7.0.1").fragments == ("base", "less")
    with pytest.raises(ConfigurationError, match=r"no fragments for a kernel as old as 6\.1\.8"):
        by_version.kernel_of("6.1.8")


def test_a_word_that_is_no_version_is_refused(
    by_version: Lab, cache: Cache, progress: Progress
) -> None:
    with pytest.raises(ConfigurationError, match=r"src:linux: expected a version"):
        prepare("src:linux", by_version, cache, progress)


def test_a_fragment_of_a_version_must_be_there(lab: Lab) -> None:
    text = (lab.root / "lab.yaml").read_text()
    (lab.root / "lab.yaml").write_text(text + 'versions: {"6.6": [bass]}\n')
    with pytest.raises(ConfigurationError, match=r"'bass' is not known.*did you mean 'base'"):
        Lab.load(lab.root)


def test_what_a_kernel_has_is_known_or_said_not_to_be(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("CONFIG_IOMMUFD=m\n# CONFIG_VFIO_DEVICE_CDEV is not set\n")
    assert Feature.IOMMUFD.in_config(config) is Known.YES
    assert Feature.CDEV.in_config(config) is Known.NO
    assert Feature.CDEV.in_config(None) is Known.UNKNOWN
    assert Feature.IOMMUFD.in_version("6.1.170") is Known.NO
    assert Feature.IOMMUFD.in_version("6.2") is Known.UNKNOWN
    assert Feature.CDEV.in_version("6.5.10") is Known.NO
    wish: Any = Wish("IOMMUFD", "y", config, 1)
    assert Feature.IOMMUFD.in_wishes([wish]) is Known.YES
    assert Feature.CDEV.in_wishes([wish]) is Known.NO
