# SPDX-License-Identifier: GPL-2.0-only
"""Two labs are the same where nothing differs that could make a verdict another one."""

import shutil
from pathlib import Path

import pytest

from lab.config import Lab
from lab.digest import digest_of

_LAB = """\
debian: {suites: [bookworm]}
kernels: {mine: {source: {git: linux, ref: HEAD}, fragments: [boot]}}
images: {minimal: {recipe: images/minimal}}
machines: {vtd: {devices: {edu0: {model: edu}}}}
suites: {contract: {tests: contract}}
run: {kernel: mine, machine: vtd, suites: [contract]}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    for name in ("contract/__pycache__", "kernels/fragments"):
        (folder / name).mkdir(parents=True)
    (folder / "kernels" / "fragments" / "boot.config").touch()
    (folder / "lab.yaml").write_text(_LAB)
    (folder / "contract" / "test_own.py").write_text("def test(): pass\n")
    return folder


def test_a_copy_elsewhere_is_the_same_lab(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    (copy / "contract" / "__pycache__" / "test_own.pyc").touch()
    assert digest_of(Lab.load(copy)) == digest_of(Lab.load(root))


@pytest.mark.parametrize(
    "name", ["lab.yaml", "kernels/known.yaml", "contract/test_own.py", "contract/test_new.py"]
)
def test_what_decides_a_verdict_makes_another_lab(root: Path, name: str) -> None:
    before = digest_of(Lab.load(root))
    with (root / name).open("a") as file:
        file.write("\n")
    assert digest_of(Lab.load(root)) != before


def test_folders_beside_it_count_where_they_are_named(root: Path) -> None:
    fragments = root / "kernels" / "fragments"
    with_them, without = digest_of(Lab.load(root), fragments), digest_of(Lab.load(root))
    (fragments / "boot.config").write_text("CONFIG_PCI=y\n")
    assert digest_of(Lab.load(root), fragments) != with_them
    assert digest_of(Lab.load(root)) == without
