# SPDX-License-Identifier: GPL-2.0-only
"""A night's first steps."""

from pathlib import Path

import pytest

from lab.commands.nightly import Wish, run_night
from lab.config import Lab
from lab.errors import ConfigurationError
from lab.nightly.night import nights

LAB = """\
debian: {suites: [bookworm]}
kernels:
  v6.12: {source: {package: linux-source-6.12, suite: bookworm}, fragments: [boot]}
images: {minimal: {recipe: images/minimal}}
machines: {vtd: {devices: {edu0: {model: edu}}}}
suites: {contract: {tests: tests/contract}}
run: {kernel: v6.12, machine: vtd, suites: [contract]}
nightly:
  kernels: [v6.12]
  suites: [contract]
  exclude: [{suite: contract}]
"""


def test_a_night_without_a_cell_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left would be gone on with by the next `--resume`."""
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("VFIO_LAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "kernels" / "fragments").mkdir(parents=True)
    (tmp_path / "kernels" / "fragments" / "boot.config").touch()
    (tmp_path / "lab.yaml").write_text(LAB)
    with pytest.raises(ConfigurationError, match="no cell is left to run"):
        run_night(Lab.load(tmp_path), Wish(update=False), as_json=False)
    assert list(nights().glob("[!.]*")) == []
