# SPDX-License-Identifier: GPL-2.0-only
"""Kernels in a row, from a good one to a bad one: a list of them, or a series' patches."""

import re
from collections.abc import Sequence
from dataclasses import replace

from lab.bisect.judge import Candidate, Judge
from lab.bisect.memory import Verdict
from lab.bugs import versions
from lab.bugs.versions import Version
from lab.cache import Cache
from lab.cell import Choice
from lab.config import Lab
from lab.errors import ConfigurationError
from lab.kernel import versions as offers
from lab.kernel.prepare import look
from lab.kernel.series import Series
from lab.trial.culprit import Culprit, first_bad

_PREFIX = re.compile(r"^(?:\[[^\]]*\]\s*)+")  # [PATCH 2/5]


def of_kernels(
    lab: Lab, choice: Choice, ends: tuple[str, str], among: Sequence[str], cache: Cache
) -> list[Candidate]:
    """From the good end to the bad one. Between them are those that were named, in that order; or
    where both are `deb:` or `src:` and a version, all such versions that the archive was seen to
    have; or those of lab.yaml."""
    between = list(among) or _offered(lab, ends, cache) or _between(lab, ends, cache)
    specs = dict.fromkeys([ends[0], *between, ends[1]])
    return [Candidate(spec, spec, replace(choice, kernel=spec)) for spec in specs]


def _offered(lab: Lab, ends: tuple[str, str], cache: Cache) -> list[str]:
    known = offers.known(lab, cache)
    kinds = {kind for kind in offers.Kind for end in ends if end.startswith(kind.prefix)}
    if not known or len(kinds) != 1 or not all(end.startswith(min(kinds).prefix) for end in ends):
        return []
    words = [each.word for each in known.all if each.kind in kinds]
    low, high = sorted(ends, key=offers.order)
    found = [word for word in dict.fromkeys(words) if _lies(word, low, high)]
    return found if low == ends[0] else found[::-1]


def _lies(word: str, low: str, high: str) -> bool:
    return offers.order(low) < offers.order(word) < offers.order(high)


def _between(lab: Lab, ends: tuple[str, str], cache: Cache) -> list[str]:
    versions_of = {spec: _version(spec, lab, cache) for spec in (*ends, *lab.kernels)}
    good, bad = versions_of[ends[0]], versions_of[ends[1]]
    if not good or not bad:
        return []
    low, high = sorted((good, bad))
    found = {
        spec: version
        for spec, version in versions_of.items()
        if version and low < version < high and spec not in ends
    }
    return sorted(found, key=lambda spec: found[spec], reverse=good > bad)


def _version(spec: str, lab: Lab, cache: Cache) -> Version | None:
    """Of its source, as far as that is known without a network."""
    state = look(spec, lab, cache)
    words = (state.source or "").split()
    told = versions.parse(words[-1]) if words else None
    return told or (versions.of_kernel(state.built) if state.built else None)


def of_series(choice: Choice, base: str, series: Series) -> list[Candidate]:
    """The base, and it with the first patch, the first two and so on."""
    total = len(series.patches)
    found = [Candidate("0", f"{base}, the base", replace(choice, kernel=base, series=None))]
    for count in range(1, total + 1):
        title = f"patch {count} of {total}, {_subject(series, count)}"
        own = replace(choice, kernel=base, series=series.first(count))
        found.append(Candidate(str(count), title, own))
    return found


def _subject(series: Series, count: int) -> str:
    return _PREFIX.sub("", series.letters[count - 1].subject) if series.letters else series.name


def bisect(candidates: Sequence[Candidate], judge: Judge) -> Culprit:
    """The first that is bad; see `Culprit`, whose numbers are places in the row.

    Raises ConfigurationError where the ends are not what they are said to be, and LabError.
    """
    if len(candidates) < 2:
        raise ConfigurationError("there are no two kernels to look between")
    judge.bad_end(candidates[-1])
    judge.good_end(candidates[0])

    def is_bad(place: int) -> bool | None:
        verdict = judge.judge(candidates[place])
        return None if verdict is Verdict.SKIP else verdict is Verdict.BAD

    first, last = first_bad(len(candidates) - 1, is_bad)
    return Culprit(first, last, candidates[last].title)
