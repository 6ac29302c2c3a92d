# SPDX-License-Identifier: GPL-2.0-only
"""The nodes that user space opens: which there are, whose they are, and who holds a group."""

import os
import stat
import struct
from errno import ENOENT

from lab.agent.calls import at, close, openat
from lab.agent.errors import check
from lab.agent.program import Buf, Call, Imm
from lab.agent.syscalls import Syscall
from lab.condition.asking import ABSENT, Question, names, together
from lab.condition.detector import MEANWHILE, Detector, Seen
from lab.vfio.device import CDEVS
from lab.vfio.files import Container, Iommufd

_FOLDER = "/dev/vfio"
_NOT_GROUPS = (CDEVS, Container.PATH)
_STAT = struct.Struct("<24xIII108x")  # st_mode, st_uid, st_gid of struct stat on x86_64


def _nodes(known: Seen | None) -> Question[Seen | None]:
    del known
    found = yield from together(names(_FOLDER), names(CDEVS))
    paths = [Iommufd.PATH]
    for folder, inside in zip((_FOLDER, CDEVS), found, strict=True):
        paths += [f"{folder}/{name}" for name in inside or ()]
    results = yield [
        Call(Syscall.NEWFSTATAT, (*at(path), Buf(size=_STAT.size), Imm(0))) for path in paths
    ]
    seen = {}
    for path, result in zip(paths, results, strict=True):
        if result.errno not in ABSENT:
            mode, user, group = _STAT.unpack(check(result, f"newfstatat {path}").data)
            seen[path] = f"{stat.filemode(mode)} {user}:{group}"
    return seen


def _tell_node(path: str, before: str | None, now: str | None) -> str:
    if now is None:
        return f"{path} is gone"
    if before is None:
        return f"{path} was not there"
    return f"{path} is {now}, not {before}"


def _owners(known: Seen | None) -> Question[Seen | None]:
    """A group that nobody has can be opened; what it answers otherwise is its own errno."""
    del known
    there = [f"{_FOLDER}/{name}" for name in (yield from names(_FOLDER)) or ()]
    groups = [path for path in there if path not in _NOT_GROUPS]
    if not groups:
        return None if Container.PATH not in there else {}
    opened = (yield [op for path in groups for op in (openat(path), close())])[::2]
    return {
        path: os.strerror(result.errno) if result.errno else ""
        for path, result in zip(groups, opened, strict=True)
        if result.errno != ENOENT
    }


def _tell_owner(path: str, before: str | None, now: str | None) -> str:
    del before
    return f"{path} cannot be opened ({now})" if now else ""


NODES = Detector("nodes under /dev", _nodes, _tell_node)
OWNERS = Detector("owners of groups", _owners, _tell_owner, MEANWHILE, needs="CONFIG_VFIO_GROUP")
