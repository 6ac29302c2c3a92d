# SPDX-License-Identifier: GPL-2.0-only
from pathlib import Path

import pytest

from lab.cache import Cache
from lab.guest import Qemu


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def qemu() -> Qemu:
    """A QEMU 10.0 that has all that a machine may ask for."""
    return Qemu(
        path=Path("/usr/bin/qemu-system-x86_64"),
        version=(10, 0, 2),
        description="QEMU emulator version 10.0.2",
        devices=frozenset({"edu", "e1000", "igb", "pcie-root-port", "pcie-pci-bridge"}),
        iommu_properties=frozenset({"intremap", "caching-mode", "x-scalable-mode", "x-flts"}),
    )
