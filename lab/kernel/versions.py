# SPDX-License-Identifier: GPL-2.0-only
"""Kernels by version: what of them Debian's archive has, built and as source.

A mirror says what it has in the lists of its suites alone. They are more than the newest versions:
a suite lists a kernel until it is removed from it, and a source for as long as anything that was
built of it is there.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from lab.cache import Cache
from lab.config import Lab
from lab.debian import Archive, Listed
from lab.errors import ConfigurationError

# The flavour that has a serial console, PCI and vfio; with "+" or "-" in what follows the version.
_IMAGE = r"linux-image-[0-9][0-9a-z.+~]*(-[0-9]+)?-amd64"
_TARBALL = r"linux-source-[0-9]+\.[0-9]+"
_SOURCE = re.compile(r"linux(-[0-9]+\.[0-9]+)?")
_VERSION = re.compile(r"[0-9]+\.[0-9][0-9a-z.+~-]*")
_PARTS = re.compile(r"(\D*)(\d*)")
_NEAR = 6  # versions that are named where the one that was asked for is not to be had


class Kind(StrEnum):
    """In what form a kernel comes. The value is the word before its version."""

    BUILT = "deb"
    SOURCE = "src"

    @property
    def prefix(self) -> str:
        return f"{self}:"


@dataclass(frozen=True)
class Offer:
    """A version of a kernel that a suite has. `package` is that of `package_version`."""

    kind: Kind
    package: str
    package_version: str
    suite: str
    dsc: bool = False
    """Whether it is a source package, and not a package that has the source in it."""

    @property
    def version(self) -> str:
        """The kernel's own."""
        return self.package_version.partition("-")[0].replace("~rc", "-rc")

    @property
    def word(self) -> str:
        """What --kernel calls it."""
        return f"{self.kind.prefix}{self.version}"

    @property
    def exactly(self) -> str:
        """What apt calls this version of the package."""
        return f"{self.package}={self.package_version}"

    def begins_with(self, version: str) -> bool:
        """Whether it is that version, or one of those that the shorter version stands for."""
        return any(_begins(each, version) for each in (self.version, self.package_version))


@dataclass(frozen=True)
class Offers:
    """All that the archive had when it was asked, in seconds since the epoch; oldest first."""

    all: tuple[Offer, ...]
    asked: float

    def choose(self, kind: Kind, version: str) -> Offer:
        """The newest package of a version. Raises ConfigurationError that lists near ones."""
        found = [each for each in self.all if each.kind is kind and each.begins_with(version)]
        if found:
            return found[-1]
        near = self.near(kind, version)
        raise ConfigurationError(
            f"{kind}:{version}: no suite of lab.yaml has such a kernel"
            + (f"; near it are {', '.join(near)}" if near else ""),
            hint="`vfio-lab kernels` lists all, and `vfio-lab kernels --update` asks the mirror "
            "anew; another suite may have it: `debian: {suites: […]}` in lab.yaml",
        )

    def near(self, kind: Kind, version: str) -> list[str]:
        """The words of the nearest versions below and above, oldest first."""
        words = list(dict.fromkeys(each.word for each in self.all if each.kind is kind))
        below = [word for word in words if order(word) < order(f"{kind}:{version}")]
        start = max(0, len(below) - _NEAR // 2)
        return words[start : start + _NEAR]


def is_version(word: str) -> bool:
    """Whether it is a version rather than the name of a package."""
    return _VERSION.fullmatch(word) is not None


def order(version: str) -> tuple[Any, ...]:
    """A key that sorts versions as dpkg does: deb-version(7)."""
    upstream, _, revision = version.rpartition("-") if "-" in version else (version, "", "")
    return tuple(
        [
            ([_rank(character) for character in text] + [0], int(number or 0))
            for text, number in _PARTS.findall(part)
        ]
        for part in (upstream, revision)
    )


def known(lab: Lab, cache: Cache) -> Offers | None:
    """What the archive had when it was asked last; None where it never was."""
    fact = cache.recall("kernels", _asked(lab))
    if not fact:
        return None
    offers = (Offer(**{**each, "kind": Kind(each["kind"])}) for each in fact["offers"])
    return Offers(tuple(offers), fact["asked"])


def offers(lab: Lab, cache: Cache, archive: Archive, *, update: bool = False) -> Offers:
    """What the archive has. It is asked once, and anew with `update`. Raises as `listed` does."""
    found = None if update else known(lab, cache)
    if found:
        return found
    names = f"{_IMAGE}|{_TARBALL}"
    listed = archive.listed(names, "linux", *lab.debian.suites, update=update)
    fresh = Offers(tuple(_of(listed)), time.time())
    fact = {"offers": [asdict(each) for each in fresh.all], "asked": fresh.asked}
    cache.remember("kernels", _asked(lab), fact)
    return fresh


def _of(listed: Iterable[Listed]) -> list[Offer]:
    """The offers among what is listed, each version of a package once, oldest first."""
    kernels = (each for each in listed if not each.source or _SOURCE.fullmatch(each.name))
    found: dict[tuple[Kind, str], Offer] = {}
    for offer in sorted(map(_offer, kernels), key=_preference):
        found[offer.kind, offer.package_version] = offer
    return sorted(found.values(), key=lambda offer: (offer.kind, order(offer.package_version)))


def _offer(each: Listed) -> Offer:
    image = not each.source and each.name.startswith("linux-image-")
    kind = Kind.BUILT if image else Kind.SOURCE
    return Offer(kind, each.name, each.version, each.suite, dsc=each.source)


def _preference(offer: Offer) -> tuple[bool, int]:
    # The last one counts: a source that is one file, and not a metapackage of a shorter name.
    return not offer.dsc, len(offer.package)


def _begins(whole: str, part: str) -> bool:
    """Whether a version begins so: 6.1 and 6.1.4 do with 6.1, 6.12 does not."""
    rest = whole.removeprefix(part)
    return whole.startswith(part) and not rest[:1].isdigit()


def _rank(character: str) -> int:
    """dpkg: "~" before the end, the end before letters, letters before all else."""
    if character == "~":
        return -1
    return ord(character) + (0 if character.isalpha() else 256)


def _asked(lab: Lab) -> dict[str, Any]:
    debian = lab.debian
    where = {"mirror": debian.mirror, "security": debian.security_mirror}
    return {**where, "suites": list(debian.suites)}
