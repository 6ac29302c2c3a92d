# SPDX-License-Identifier: GPL-2.0-only
"""The list of kernels: of a lab, of an archive that answers or not, and of the cache."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.cache import Cache
from lab.commands.kernels import show_kernels
from lab.config import Lab
from lab.errors import InfrastructureError
from lab.kernel import versions
from lab.kernel.versions import Kind, Offer, Offers

LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels:
  ball: {source: {tarball: linux.tar}, fragments: [vfio]}
  debian: {source: {deb: linux-image-amd64}}
versions: {"6.1": [old], "6.6": [vfio]}
images: {minimal: {recipe: images/minimal}}
machines: {plain: {}}
suites: {none: {tests: tests}}
run: {kernel: ball, machine: plain, suites: [none]}
"""
IMAGE = "linux-image-6.12.9+deb12-amd64"
ALL = (
    Offer(Kind.BUILT, "linux-image-6.1.0-47-amd64", "6.1.170-3", "bookworm"),
    Offer(Kind.BUILT, IMAGE, "6.12.9-1", "bookworm"),
    Offer(Kind.BUILT, "linux-image-7.0.1+deb13-amd64", "7.0.1-1", "bookworm"),
    Offer(Kind.SOURCE, "linux", "6.1.8-1", "bookworm", dsc=True),
    Offer(Kind.SOURCE, "linux", "6.12.8-1", "bookworm", dsc=True),
)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("VFIO_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(versions, "offers", lambda *_, **__: Offers(ALL, 1.0))
    root = tmp_path / "lab"
    (root / "kernels" / "fragments").mkdir(parents=True)
    (root / "lab.yaml").write_text(LAB)
    (root / "linux.tar").touch()
    wishes = "CONFIG_IOMMUFD=y\nCONFIG_VFIO_DEVICE_CDEV=y\n"
    (root / "kernels" / "fragments" / "vfio.config").write_text(wishes)
    (root / "kernels" / "fragments" / "old.config").write_text("# CONFIG_IOMMUFD is not set\n")
    return Lab.load(root)


def cached(name: str, package: str, version: str, config: str) -> None:
    """A kernel of Debian's in the cache."""

    def maker(folder: Path) -> Mapping[str, Any]:
        (folder / "config").write_text(config)
        return {"name": name, "source": {"packages": [{"name": package, "version": version}]}}

    Cache.of_user().make("kernel", {"packages": [package, version]}, maker)


def rows(lab: Lab, capsys: pytest.CaptureFixture[str], pattern: str | None = None) -> Any:
    show_kernels(lab, pattern, update=False, as_json=True)
    return {row["word"]: row for row in json.loads(capsys.readouterr().out)["kernels"]}


def test_every_kernel_has_a_row_and_nobody_guesses(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    cached("deb:6.12", IMAGE, "6.12.9-1", "CONFIG_IOMMUFD=m\n")
    found = rows(lab, capsys)
    answers = {word: (row["iommufd"], row["cdev"]) for word, row in found.items()}
    assert answers == {
        "ball": ("yes", "yes"),
        "debian": ("unknown", "unknown"),
        "deb:6.1.170": ("no", "no"),
        "deb:6.12.9": ("yes", "no"),
        "deb:7.0.1": ("unknown", "unknown"),
        "src:6.1.8": ("no", "no"),
        "src:6.12.8": ("yes", "yes"),
    }
    assert found["deb:6.12.9"]["built"] == ["deb:6.12"]


@pytest.mark.parametrize(
    ("pattern", "count"), [("6.12", 2), ("src:*", 2), ("47-amd64", 1), ("7.9", 0)]
)
def test_a_pattern_chooses(
    lab: Lab, capsys: pytest.CaptureFixture[str], pattern: str, count: int
) -> None:
    assert len(rows(lab, capsys, pattern)) == count
    show_kernels(lab, pattern, update=False, as_json=False)
    told = capsys.readouterr().out
    assert ("no kernel's name has 7.9 in it" in told) is (count == 0)
    assert "the mirror's lists are those of 1970-01-01" in told


def test_without_a_network_it_lists_what_is_known(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offers(*_: object, **__: object) -> Offers:
        raise InfrastructureError("the Debian mirror failed: no route")

    monkeypatch.setattr(versions, "offers", offers)
    cached("deb:6.12.9", IMAGE, "6.12.9-1", "")
    show_kernels(lab, None, update=False, as_json=False)
    told = capsys.readouterr().out
    assert "deb:6.12.9" in told
    assert "the mirror cannot be asked: the Debian mirror failed: no route" in told
    assert "what the mirror has is not known" in told
