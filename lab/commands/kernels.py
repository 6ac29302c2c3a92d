# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab kernels`: which kernels can be had, which are here, and what of VFIO they have."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lab import kernel
from lab.cache import Cache, Entry
from lab.config import Lab
from lab.debian import Archive
from lab.errors import LabError
from lab.kernel import fragment, versions
from lab.kernel.features import Feature, Known
from lab.kernel.versions import Kind, Offer, Offers
from lab.progress import Progress
from lab.results.layout import line, plain_table, shortened


@dataclass(frozen=True)
class Row:
    """One kernel: the word for --kernel, and where it comes from.

    `built` are the words by which it is in the cache, with what fragments ever.
    """

    word: str
    source: str
    suite: str
    built: tuple[str, ...]
    iommufd: Known
    cdev: Known

    def fits(self, pattern: str | None) -> bool:
        """Whether a part of its name is that, or all of it matches it as a shell's pattern."""
        words = (self.word, self.source)
        return pattern is None or any(pattern in word or fnmatch(word, pattern) for word in words)

    @property
    def state(self) -> str:
        """In words."""
        if not self.built:
            return ""
        return "here" if len(self.built) == 1 else f"here, built in {len(self.built)} ways"


@dataclass(frozen=True)
class _Cached:
    """A kernel in the cache: the package that it is of, and what was asked for."""

    name: str
    package: str
    version: str
    config: Path


def show_kernels(lab: Lab, pattern: str | None, *, update: bool, as_json: bool) -> None:
    """Print the kernels that can be had: a table, or one JSON object.

    Without a network it lists what is known, and says so.
    """
    cache = Cache.of_user()
    offers, trouble = _offers(lab, cache, update=update)
    rows = [row for row in _rows(lab, cache, offers) if row.fits(pattern)]
    if as_json:
        found = {"asked": offers.asked or None, "trouble": trouble}
        print(json.dumps({**found, "kernels": [asdict(row) for row in rows]}, indent=1))
        return
    console = Console()
    table = plain_table()
    table.padding = (0, 2, 0, 0)
    for heading, narrow in (
        *(("kernel", False), ("source", True), ("suite", True)),
        *(("", False), ("iommufd", False), ("cdev", False)),
    ):
        table.add_column(heading, no_wrap=not narrow)
    for row in rows:
        source, suite = shortened(row.source), shortened(row.suite)
        table.add_row(Text(row.word, "bold"), source, suite, row.state, row.iommufd, row.cdev)
    if rows:
        console.print(table)
    elif pattern:
        line(console, Text(f"no kernel's name has {pattern} in it"))
    for words in _notes(offers, trouble):
        line(console, Text(words, "dim"))


def _offers(lab: Lab, cache: Cache, *, update: bool) -> tuple[Offers, str | None]:
    """What the archive has; where it cannot be asked, what it had, and why."""
    try:
        archive = Archive(lab.debian, cache, Progress())
        return versions.offers(lab, cache, archive, update=update), None
    except LabError as error:
        return versions.known(lab, cache) or Offers((), 0.0), error.message


def _notes(offers: Offers, trouble: str | None) -> Iterator[str]:
    if trouble:
        yield f"the mirror cannot be asked: {trouble}"
    if offers.asked:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(offers.asked))
        yield f"the mirror's lists are those of {when}; --update reads them anew"
    else:
        yield "what the mirror has is not known: these are lab.yaml's kernels, and the cache's"


def _rows(lab: Lab, cache: Cache, offers: Offers) -> list[Row]:
    """lab.yaml's kernels, then what the archive has, built and as source, then what was there once
    and is in the cache still."""
    cached = list(_cached(cache))
    found = [_of_lab(lab, name, cache) for name in lab.kernels]
    latest = {offer.word: offer for offer in offers.all}
    listed = {(offer.package, offer.package_version) for offer in offers.all}
    found += [_of_offer(lab, offer, offers, cached) for offer in latest.values()]
    gone: dict[tuple[str, str], list[_Cached]] = {}
    for each in cached:
        if (each.package, each.version) not in listed:
            gone.setdefault((each.package, each.version), []).append(each)
    return found + [_of_cache(each) for each in gone.values()]


def _of_lab(lab: Lab, name: str, cache: Cache) -> Row:
    try:
        state = kernel.look(name, lab, cache)
    except LabError as error:
        return Row(name, error.message, "", (), Known.UNKNOWN, Known.UNKNOWN)
    built = (name,) if state.built else ()
    row = Row(name, state.source or "", "", built, Known.UNKNOWN, Known.UNKNOWN)
    config = state.built.config if state.built else None
    return _with(row, config, _wishes(lab, lab.kernels[name].fragments))


def _of_offer(lab: Lab, offer: Offer, offers: Offers, cached: Iterable[_Cached]) -> Row:
    same = {(each.package, each.package_version) for each in offers.all if each.word == offer.word}
    here = [each for each in cached if (each.package, each.version) in same]
    source = f"{offer.package} {offer.package_version}"
    built = tuple(sorted({each.name for each in here}))
    row = Row(offer.word, source, offer.suite, built, Known.UNKNOWN, Known.UNKNOWN)
    if offer.kind is Kind.SOURCE:
        try:
            fragments = lab.kernel_of(offer.version).fragments
        except LabError:
            return row
        return _with(row, None, _wishes(lab, fragments))
    if here:
        return _with(row, here[0].config)
    return replace(
        row,
        iommufd=Feature.IOMMUFD.in_version(offer.version),
        cdev=Feature.CDEV.in_version(offer.version),
    )


def _of_cache(here: list[_Cached]) -> Row:
    first = here[0]
    names = tuple(sorted({each.name for each in here}))
    source = f"{first.package} {first.version}"
    row = Row(first.name, source, "", names, Known.UNKNOWN, Known.UNKNOWN)
    return _with(row, first.config)


def _with(row: Row, config: Path | None, wishes: Iterable[fragment.Wish] = ()) -> Row:
    """The row with the features of a configuration; without one, of what is asked for."""
    asked = list(wishes)

    def known(feature: Feature) -> Known:
        return feature.in_wishes(asked) if asked and not config else feature.in_config(config)

    return replace(row, iommufd=known(Feature.IOMMUFD), cdev=known(Feature.CDEV))


def _wishes(lab: Lab, names: Iterable[str]) -> list[fragment.Wish]:
    return fragment.merge(fragment.read(lab.fragment(name)) for name in names)


def _cached(cache: Cache) -> Iterator[_Cached]:
    for entry in cache.entries():
        if entry.kind == "kernel" and (package := _package(entry)):
            name = str(entry.provenance.get("name", entry.key))
            yield _Cached(name, package["name"], package["version"], entry.path / "config")


def _package(entry: Entry) -> Mapping[str, Any] | None:
    """The package that a kernel is of, or None for one of a git tree or a tarball."""
    source = entry.provenance.get("source", {})
    packages = source.get("packages") or [source]
    return packages[0] if {"name", "version"} <= packages[0].keys() else None
