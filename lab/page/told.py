# SPDX-License-Identifier: GPL-2.0-only
"""What is new, grouped as one tells it: a thing that broke in four modes is one thing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.contract import Mode
from lab.history.model import CellKey, Change, News
from lab.page.evidence import Evidence, evidence_of
from lab.page.place import Place, slug_of

_MODES = (None, *Mode)
FOLDED = (Change.MENDED, Change.STILL)
"""Told in a line that one opens."""


@dataclass(frozen=True)
class Spot:
    """Where it was seen: a link, and the mode in short, empty where there is none."""

    slug: str
    mode: str
    news: News


@dataclass(frozen=True)
class Told:
    """One thing that is new, in all places in which it was seen. `evidence` is that of the first
    which has any; none where all of it `is_told` already, as something that matters more."""

    spots: Sequence[Spot]
    evidence: Evidence
    is_told: bool

    @property
    def news(self) -> News:
        return self.spots[0].news

    @property
    def cells(self) -> Mapping[CellKey, Sequence[Spot]]:
        """The places, by the cell of the matrix."""
        found: dict[CellKey, list[Spot]] = {}
        for spot in self.spots:
            found.setdefault(spot.news.cell, []).append(spot)
        return found

    @property
    def name(self) -> str:
        """What it is about, without what differs between its places."""
        return _name(self.news) or self.news.message

    @property
    def message(self) -> str:
        """What happened, where the name does not say that already."""
        told = not _name(self.news) or self.news.message in self.news.splats
        return "" if told else self.news.message

    @property
    def facts(self) -> Sequence[str]:
        """What else one wants to know before one looks at it."""
        news = self.news
        if self.is_told:
            return ["told above"]
        facts = []
        if 0 < news.passed < news.runs:
            facts.append(f"passed {news.passed} of {news.runs} runs on the same bits")
        elif news.runs > 1:
            facts.append(f"the same in {news.runs} runs")
        if news.nights > 1:
            facts.append(f"{news.nights} nights in a row")
        if news.before:
            facts.append(f"{news.before} until then")
        if news.base:
            facts.append(f"{news.base} on the base")
        if news.bisected:
            facts.append(news.bisected)
        return facts


def told(
    news: Iterable[News], places: Mapping[tuple[str, str], Place], nights: Path, night: str
) -> Mapping[Change, Sequence[Told]]:
    """By change, what matters most first. `places` are those of tests, by their cell's slug and
    their id."""
    grouped: dict[Change, dict[tuple[object, ...], list[News]]] = {change: {} for change in Change}
    for each in news:
        kind = (each.rule, _name(each), each.message, each.splats)
        grouped[each.change].setdefault(kind, []).append(each)
    seen: set[tuple[CellKey, str]] = set()
    made: dict[Change, list[Told]] = {}
    for change, kinds in grouped.items():
        for found in kinds.values():
            tests = {(each.cell, each.test) for each in found if each.test}
            spots = _spots(found, places)
            is_told = bool(tests) and tests <= seen
            evidence = Evidence() if is_told else _evidence(found, nights, night)
            made.setdefault(change, []).append(Told(spots, evidence, is_told))
            seen |= tests
    return made


def _spots(found: Sequence[News], places: Mapping[tuple[str, str], Place]) -> Sequence[Spot]:
    spots = []
    for news in sorted(found, key=lambda news: (news.cell, _MODES.index(news.mode))):
        place = places.get((slug_of(news.cell), news.test))
        mode = news.mode.short if news.mode else ""
        spots.append(Spot(place.slug if place else slug_of(news.cell), mode, news))
    return spots


def _evidence(found: Sequence[News], nights: Path, night: str) -> Evidence:
    shown = next((news for news in found if news.evidence), found[0])
    run = shown.evidence.rpartition("/tests/")[0]
    return evidence_of(nights, night, shown.evidence, run, shown.test)


def _name(news: News) -> str:
    return news.test.rpartition("::")[2].partition("[")[0]
