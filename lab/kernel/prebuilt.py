# SPDX-License-Identifier: GPL-2.0-only
"""A bzImage that somebody built already."""

import json
from pathlib import Path
from typing import Any

from lab.cache import PROVENANCE, hash_of_file
from lab.errors import ConfigurationError
from lab.kernel import modules
from lab.kernel.build import build_id
from lab.kernel.kernel import Kernel

# Documentation/arch/x86/boot.rst: the magic number, and the offset (less 0x200) of the version
_MAGIC = slice(0x202, 0x206)
_VERSION = slice(0x20E, 0x210)


def of_bzimage(name: str, bzimage: Path) -> Kernel:
    """The kernel of a bzImage and what lies beside it or in the build tree above it.

    One that the lab built itself, with its provenance beside it, is the same as by its name. Raises
    ConfigurationError when the file is no bzImage.
    """
    release = release_of(bzimage)
    tree = _tree_of(bzimage)
    beside = bzimage.parent
    config = _first(beside / ".config", beside / "config", tree and tree / ".config")
    vmlinux = _first(beside / "vmlinux", tree and tree / "vmlinux")
    include = tree / "usr" / "include" if tree else beside / "headers"
    provenance = provenance_in(beside) or _of_file(bzimage, release)
    return Kernel(
        name=provenance.get("name", name),
        bzimage=bzimage,
        config=config,
        vmlinux=vmlinux,
        headers=include if (include / "linux").is_dir() else None,
        release=release,
        build_id=provenance.get("build_id") or (build_id(vmlinux) if vmlinux else None),
        key=provenance.get("key") or provenance["sha256"][:24],
        provenance=provenance,
        modules=_first(beside / modules.ARCHIVE),
        symbols=symbols if (symbols := beside / modules.SYMBOLS).is_dir() else None,
    )


def release_of(bzimage: Path) -> str | None:
    """The release in a bzImage's header. Raises ConfigurationError when there is no header."""
    with bzimage.open("rb") as file:
        head = file.read(0x8000)
    if head[_MAGIC] != b"HdrS":
        raise ConfigurationError(
            f"{bzimage} is no bzImage", hint="expected arch/x86/boot/bzImage of a built kernel"
        )
    offset = int.from_bytes(head[_VERSION], "little")
    text = head[offset + 0x200 :].split(b"\0", 1)[0].decode(errors="replace") if offset else ""
    return text.split()[0] if text.split() else None


def provenance_in(folder: Path) -> dict[str, Any] | None:
    """The provenance in a folder of the cache's, or in a copy of one."""
    file = folder / PROVENANCE
    known: dict[str, Any] | None = json.loads(file.read_text()) if file.is_file() else None
    return known


def _of_file(bzimage: Path, release: str | None) -> dict[str, Any]:
    return {"bzimage": str(bzimage), "sha256": hash_of_file(bzimage), "release": release}


def _tree_of(bzimage: Path) -> Path | None:
    """The build tree of TREE/arch/x86/boot/bzImage."""
    parents = bzimage.resolve().parents
    if [parent.name for parent in parents[:3]] == ["boot", "x86", "arch"]:
        return parents[3]
    return None


def _first(*files: Path | None) -> Path | None:
    return next((file for file in files if file and file.is_file()), None)
