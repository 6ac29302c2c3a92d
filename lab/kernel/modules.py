# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's modules: an archive of their own, which a guest unpacks before its image.

So one image serves every kernel. The image's init loads what `LIST` in the archive names.
"""

import lzma
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from lab.errors import ConfigurationError
from lab.image import cpio
from lab.kernel.sandbox import taken

ARCHIVE = "modules.cpio"
SYMBOLS = "symbols"  # the folder of the same with DWARF: some 1 MB each, vmlinux has 100
LIST = "etc/vfio-lab/modules"
_DEPENDENCIES = "modules.dep"
_BUILT_IN = "modules.builtin"
_PACKED = ".xz"

Dependencies = Mapping[str, Sequence[str]]  # a module's path to those of all that it needs


def archive(folder: Path, wanted: Sequence[str] | None = None) -> bytes:
    """The modules of `folder`, a /lib/modules/RELEASE that depmod has been to, as cpio.

    `wanted` are the names of those to be loaded, in that order; they come with what they need.
    None stands for all. Raises ConfigurationError for one that the kernel has neither as a module
    nor built in.
    """
    depends = dependencies(taken(folder, _DEPENDENCIES).read_text(errors="replace"))
    paths = {name_of(path): path for path in depends}
    names = sorted(paths) if wanted is None else _there(wanted, paths, folder)
    chosen = closure((paths[name] for name in names), depends)
    table = (f"{_plain(path)}: {' '.join(map(_plain, depends[path]))}" for path in chosen)
    place = f"usr/lib/modules/{folder.name}"
    return cpio.archive(
        [
            cpio.file(LIST, f"{' '.join(names)}\n".encode()),
            cpio.file(f"{place}/{_DEPENDENCIES}", "".join(f"{line}\n" for line in table).encode()),
            *(
                cpio.file(f"{place}/{_plain(path)}", _unpacked(taken(folder, path)))
                for path in chosen
            ),
        ]
    )


def with_symbols(folder: Path) -> list[str]:
    """Where in kbuild's objects those of `folder`, as in `archive`, lie as they were linked."""
    depends = dependencies(taken(folder, _DEPENDENCIES).read_text(errors="replace"))
    return [_plain(path).removeprefix("kernel/") for path in depends]


def dependencies(text: str) -> dict[str, list[str]]:
    """What modules.dep says."""
    lines = (line.partition(":") for line in text.splitlines())
    return {path: needs.split() for path, _, needs in lines}


def closure(paths: Iterable[str], depends: Dependencies) -> list[str]:
    """The modules with all that they need, sorted."""
    return sorted({found for path in paths for found in (path, *depends[path])})


def name_of(path: str) -> str:
    """What a module is called once it is loaded: vfio_pci for .../vfio-pci.ko.xz."""
    return PurePosixPath(path).name.partition(".")[0].replace("-", "_")


def _there(wanted: Sequence[str], paths: Mapping[str, str], folder: Path) -> list[str]:
    """The wanted ones that are modules here; the others must be part of the kernel."""
    lines = taken(folder, _BUILT_IN).read_text(errors="replace").splitlines()
    built_in = {name_of(line) for line in lines}
    missing = [name for name in wanted if name not in paths and name not in built_in]
    if missing:
        raise ConfigurationError(
            f"Linux {folder.name} has no {', '.join(missing)}, neither as a module nor built in"
        )
    return [name for name in wanted if name in paths]


def _plain(path: str) -> str:
    return path.removesuffix(_PACKED)


def _unpacked(file: Path) -> bytes:
    # modprobe of a small image cannot, and the archive is in memory anyway
    return lzma.decompress(file.read_bytes()) if file.suffix == _PACKED else file.read_bytes()
