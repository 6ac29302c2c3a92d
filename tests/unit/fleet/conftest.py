# SPDX-License-Identifier: GPL-2.0-only
"""A store in a folder, or in this process's memory, and caches that share it."""

import io
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lab.cache import Cache
from lab.config import Lab
from lab.fleet.claim import Claims
from lab.fleet.errand import Errand, lab_digest
from lab.fleet.parcel import Parcel
from lab.fleet.shared import Artefact, SharedCache
from lab.fleet.store import Store
from lab.history.model import CellKey
from lab.nightly.carrier import Order
from lab.progress import Progress

LAB = """\
debian: {suites: [bookworm]}
kernels:
  v6.12: {source: {package: linux-source-6.12, suite: bookworm}, fragments: [boot]}
images: {minimal: {recipe: images/minimal}}
machines: {vtd: {devices: {edu0: {model: edu}}}}
suites: {contract: {tests: tests/contract}}
run: {kernel: v6.12, machine: vtd, suites: [contract]}
"""


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """S3 and the like go by the same code."""
    folder = f"{tmp_path}/store" if request.param == "file" else f"/{uuid.uuid4().hex}"
    return Store(f"{request.param}://{folder}")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Cache and state are the test's own, too."""
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("VFIO_LAB_CACHE", str(tmp_path / "cache"))
    fragments = tmp_path / "lab" / "kernels" / "fragments"
    fragments.mkdir(parents=True)
    (fragments / "boot.config").touch()
    (tmp_path / "lab" / "lab.yaml").write_text(LAB)
    return Lab.load(tmp_path / "lab")


@pytest.fixture
def new_cache(store: Store, tmp_path: Path) -> Callable[[str], SharedCache]:
    """That of a machine of this name."""
    return lambda name: SharedCache(Cache(tmp_path / name).root, Claims(store, beat=0.05))


@pytest.fixture
def progress() -> Progress:
    return Progress(Console(file=io.StringIO()))


@pytest.fixture
def errand(lab: Lab, store: Store) -> Errand:
    """One whose artefacts nobody has looked for yet."""
    artefact = Artefact("image", "0" * 24, Parcel("0" * 64, 1))
    order = Order(
        "20261128T210000Z",
        CellKey("v6.12", "vtd", "contract"),
        0,
        ("--machine", "vtd", "--suite", "contract"),
        "v6.12--vtd--contract",
        1 << 30,
        "v6.12",
    )
    return Errand(order, store.url, lab_digest(lab), artefact, artefact)
