# SPDX-License-Identifier: GPL-2.0-only
"""Debian's archive: what it has, fetched and checked."""

from lab.debian.apt import ListsTooOld
from lab.debian.archive import KEYRING, Archive
from lab.debian.mirrors import Mirrors, mirrors_of_host
from lab.debian.packages import Listed, Package, SourceFile, SourcePackage

__all__ = [
    "KEYRING",
    "Archive",
    "Listed",
    "ListsTooOld",
    "Mirrors",
    "Package",
    "SourceFile",
    "SourcePackage",
    "mirrors_of_host",
]
