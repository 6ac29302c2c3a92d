# SPDX-License-Identifier: GPL-2.0-only
"""A lab with a kernel of a few lines, and a `make` that pretends to build it."""

import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from lab.cache import Cache
from lab.config import Lab
from lab.progress import Progress

LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels:
  ball: {source: {tarball: linux.tar}, fragments: [base]}
images: {minimal: {recipe: images/minimal}}
machines: {plain: {}}
suites: {none: {tests: tests}}
run: {kernel: ball, machine: plain, suites: [none]}
"""

# Takes every wish of KCONFIG_ALLCONFIG but CONFIG_ORPHAN; "builds" an ELF file that is at hand.
MAKE = """#!/bin/bash
set -e
for word; do
    case $word in
    O=*) objects=${word#O=} ;;
    KCONFIG_ALLCONFIG=*) wanted=${word#*=} ;;
    -C) ;;
    esac
done
echo "$*" >>@CALLS@
case "$*" in
*--version*) echo "GNU Make of a test" ;;
*allnoconfig*) grep -v ORPHAN "$wanted" >"$objects/.config" || true ;;
*bzImage*)
    echo "  CC      drivers/vfio/vfio_main.o"
    if [ -f @CALLS@.broken ]; then
        cat @CALLS@.broken
        exit 2
    fi
    [ -f @CALLS@.slow ] && { touch @CALLS@.started; sleep 60; }
    echo "  LD      vmlinux"
    mkdir -p "$objects/arch/x86/boot" "$objects/include/config"
    cp /bin/true "$objects/vmlinux"
    echo "vfio with symbols" >"$objects/vfio.ko"
    echo image >"$objects/arch/x86/boot/bzImage"
    echo 6.12.99 >"$objects/include/config/kernel.release"
    ;;
*modules_install*)
    root=$(grep -o "INSTALL_MOD_PATH=[^ ]*" <<<"$*")
    place=${root#*=}/lib/modules/6.12.99
    mkdir -p "$place/kernel"
    echo vfio >"$place/kernel/vfio.ko"
    echo "kernel/vfio.ko:" >"$place/modules.dep"
    ;;
*headers*)
    mkdir -p "$objects/usr/include/linux"
    echo "/* vfio */" >"$objects/usr/include/linux/vfio.h"
    ;;
esac
"""


@dataclass(frozen=True)
class Make:
    """The pretended make: what it was called with, and how it is made to misbehave."""

    log: Path

    def calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def breaks(self, text: str) -> None:
        self.log.with_suffix(".broken").write_text(text)

    def mends(self) -> None:
        self.log.with_suffix(".broken").unlink()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    root = tmp_path / "lab"
    fragments = root / "kernels" / "fragments"
    fragments.mkdir(parents=True)
    (root / "lab.yaml").write_text(LAB)
    (fragments / "base.config").write_text("CONFIG_VFIO=y\n")
    (fragments / "less.config").write_text("# CONFIG_VFIO is not set\n")
    (fragments / "lost.config").write_text("# why\nCONFIG_ORPHAN=y\n")
    (fragments / "loose.config").write_text("CONFIG_VFIO=m\n")
    tree = tmp_path / "linux-6.12"
    tree.mkdir()
    (tree / "Kconfig").write_text("config VFIO\n\tbool\nconfig ORPHAN\n\tbool\n\tdepends on MMU\n")
    subprocess.run(["tar", "-cf", root / "linux.tar", "-C", tmp_path, tree.name], check=True)
    return Lab.load(root)


@pytest.fixture
def tree(tmp_path: Path, lab: Lab) -> Path:
    """The kernel's source, as the tarball of `lab` has it."""
    assert lab.kernels
    return tmp_path / "linux-6.12"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "make"
    program.write_text(MAKE.replace("@CALLS@", str(folder / "calls")))
    program.chmod(0o755)
    for name in ("gcc", "ld"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} 12\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("VFIO_LAB_SANDBOX", "off")  # it writes down what it was called with
    assert shutil.which("make") == str(program)
    return Make(folder / "calls")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def progress() -> Progress:
    return Progress(Console(file=io.StringIO()))
