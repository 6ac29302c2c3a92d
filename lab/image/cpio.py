# SPDX-License-Identifier: GPL-2.0-only
"""An archive as the kernel unpacks it at boot (Documentation/driver-api/early-userspace/
buffer-format.rst): "newc", and several may follow each other.

Written here and not by cpio(1), because so it needs no rights of root for owners and device
nodes, and the same files give the same bytes.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Member:
    """One file of an archive. `name` has no "/" in front; `mode` includes the type's bits."""

    name: str
    mode: int
    data: bytes = b""
    owner: int = 0  # user and group
    device: tuple[int, int] = (0, 0)  # major and minor of a node


def file(name: str, data: bytes, mode: int = 0o644, owner: int = 0) -> Member:
    """A regular file."""
    return Member(name, stat.S_IFREG | mode, data, owner)


def folder(name: str, mode: int = 0o755, owner: int = 0) -> Member:
    """A folder."""
    return Member(name, stat.S_IFDIR | mode, owner=owner)


def link(name: str, target: str) -> Member:
    """A symbolic link."""
    return Member(name, stat.S_IFLNK | 0o777, target.encode())


def node(name: str, major: int, minor: int, mode: int = 0o600) -> Member:
    """A character device."""
    return Member(name, stat.S_IFCHR | mode, device=(major, minor))


def archive(members: Iterable[Member]) -> bytes:
    """The archive: sorted, without times, with the folders above each member.

    A name that comes twice is there once, as the last one says.
    """
    tree = {member.name: member for member in members}
    for name in list(tree):
        for parent in PurePosixPath(name).parents:
            if str(parent) != ".":
                tree.setdefault(str(parent), folder(str(parent)))
    # sorted, so that a folder stands above what is in it
    entries = [_entry(number, tree[name]) for number, name in enumerate(sorted(tree), 1)]
    return _padded(b"".join([*entries, _entry(0, Member(_TRAILER, 0))]), 512)


def _entry(number: int, member: Member) -> bytes:
    name = member.name.encode() + b"\0"
    major, minor = member.device
    links = 2 if stat.S_ISDIR(member.mode) else 1
    fields = (
        *(number, member.mode, member.owner, member.owner, links, 0, len(member.data)),
        *(0, 0, major, minor, len(name), 0),
    )
    header = b"070701" + b"".join(b"%08x" % value for value in fields)
    return _padded(header + name, 4) + _padded(member.data, 4)


def _padded(data: bytes, size: int) -> bytes:
    return data + b"\0" * (-len(data) % size)
