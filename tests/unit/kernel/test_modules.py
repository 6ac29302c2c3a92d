# SPDX-License-Identifier: GPL-2.0-only
"""Which modules a guest gets, and what it finds in their archive."""

import lzma
import subprocess
from pathlib import Path

import pytest

from lab.errors import ConfigurationError
from lab.kernel import modules

PCI, CORE, VFIO = (f"kernel/drivers/vfio/{name}.ko.xz" for name in ("vfio-pci", "core", "vfio"))
NET = "kernel/drivers/net/e1000.ko"
DEPENDENCIES = f"{VFIO}:\n{CORE}: {VFIO}\n{PCI}: {CORE} {VFIO}\n{NET}:\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a distribution's package puts under /lib/modules."""
    root = tmp_path / "6.12.99"
    for path in (PCI, CORE, VFIO, NET):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(lzma.compress(path.encode()) if path.endswith(".xz") else path.encode())
    (root / "modules.dep").write_text(DEPENDENCIES)
    (root / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    return root


def unpacked(archive: bytes, folder: Path) -> dict[str, str]:
    """Its files' texts by their paths, as cpio(1) reads it."""
    folder.mkdir()
    subprocess.run(["cpio", "-id", "--quiet"], cwd=folder, input=archive, check=True)
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_the_wanted_ones_come_with_what_they_need(folder: Path, tmp_path: Path) -> None:
    found = unpacked(modules.archive(folder, ["vfio_pci"]), tmp_path / "out")
    names = {Path(path).name for path in found if path.endswith(".ko")}
    assert names == {"vfio-pci.ko", "core.ko", "vfio.ko"}
    assert found[modules.LIST] == "vfio_pci\n"


def test_they_are_unpacked_and_so_is_the_table(folder: Path, tmp_path: Path) -> None:
    found = unpacked(modules.archive(folder), tmp_path / "out")
    place = "usr/lib/modules/6.12.99"
    assert found[f"{place}/{PCI}".removesuffix(".xz")] == PCI
    assert found[f"{place}/{NET}"] == NET
    table = modules.dependencies(found[f"{place}/modules.dep"])
    assert table == modules.dependencies(DEPENDENCIES.replace(".xz", ""))
    assert found[modules.LIST] == "core e1000 vfio vfio_pci\n"


def test_what_is_built_in_needs_no_module(folder: Path, tmp_path: Path) -> None:
    found = unpacked(modules.archive(folder, ["virtio_pci", "e1000"]), tmp_path / "out")
    assert found[modules.LIST] == "e1000\n"


def test_what_the_kernel_has_not_is_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Linux 6\.12\.99 has no igb, iommufd,"):
        modules.archive(folder, ["vfio", "igb", "iommufd"])


def test_the_same_modules_make_the_same_bytes(folder: Path) -> None:
    assert modules.archive(folder) == modules.archive(folder)
