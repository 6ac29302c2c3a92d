# SPDX-License-Identifier: GPL-2.0-only
"""What shows when a bug does, and what a person expects to see of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from lab.results.record import Written
from lab.splats import Splat, find

HANGS = "guest hangs: "  # how the report of one begins, see `lab.guest.hang`

_STUCK = re.compile(r"(?:runs|is blocked in|waits in) (?P<function>[A-Za-z_]\w*)(?!\w| space)")
_WILD = re.compile(r"\s*(?:…|\.\.\.|\*)\s*")
_OFFSET = re.compile(r"\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?(?: \[[\w-]+\])?")
_RENAMED = re.compile(r"\bslab-(?=use-after-free|out-of-bounds)")  # by 6.3: mm/kasan/report.c


class Kind(StrEnum):
    """What somebody can see."""

    REPORT = "report"
    """The kernel's own, on the console."""
    HANG = "hang"
    """The kernel does not come back: no guest answers, or SIGKILL does not end the program."""
    STATUS = "status"
    """The program, or the test, ended as it should not have."""
    UNENDED = "unended"
    """The program did not end in time, in a guest that lives; many a reproducer never ends."""


@dataclass(frozen=True)
class Sign(Written):
    """One thing that showed. Its `title` is the same in each boot; `headline` is the line that it
    was taken from; `text` is all of the kernel's report, empty where there is none."""

    kind: Kind
    title: str
    headline: str = ""
    text: str = ""

    @classmethod
    def of_splat(cls, splat: Splat) -> "Sign":
        """A report that was found on the console."""
        return cls(Kind.REPORT, splat.title, splat.headline, splat.text)

    @classmethod
    def of_lost(cls, text: str) -> "Sign":
        """What is left of a guest that its kernel lost: `GuestLost.splat`."""
        headline = text.partition("\n")[0]
        if headline.startswith(HANGS):
            return cls(Kind.HANG, hang_in(headline), headline, text)
        splats = find(text)
        fatal = next((splat for splat in splats if splat.is_fatal), None)
        if splat := fatal or next(iter(splats), None):
            return cls(Kind.REPORT, splat.title, splat.headline, text)
        return cls(Kind.REPORT, headline, headline, text)


def hang_in(places: str) -> str:
    """A hang's title, of the words of `lab.guest.backtraces.Place`."""
    found = _STUCK.search(places)
    return f"hang in {found['function']}" if found else "hang"


@dataclass(frozen=True)
class Expectation:
    """A sign, as a person writes it: `KASAN: use-after-free in vfio_…`.

    It is looked for in titles and headlines, small letters or not; `…`, `...` and `*` stand for
    anything. A line may be pasted out of a report: offsets are passed over, and so is KASAN's
    "slab-", which 6.3 put before what was a plain use-after-free. It ends where a word does.
    """

    text: str

    def fits(self, sign: Sign) -> bool:
        """Whether this is what was expected."""
        parts = _WILD.split(_plain(self.text))
        pattern = ".*".join(r"\s+".join(map(re.escape, part.split())) for part in parts)
        pattern = rf"(?<!\w){pattern}" + ("" if pattern.endswith(".*") else r"(?!\w)")
        told = (_plain(words) for words in (sign.title, sign.headline))
        return any(re.search(pattern, words, re.IGNORECASE) for words in told)


def _plain(words: str) -> str:
    return _RENAMED.sub("", _OFFSET.sub("", words))


def split(
    signs: Iterable[Sign], expected: Expectation | None
) -> tuple[tuple[Sign, ...], tuple[Sign, ...]]:
    """Those that count, and the others.

    Whatever is expected, only that counts; otherwise all but a program that does not end.
    """
    found = tuple(signs)
    if expected:
        counts = tuple(sign for sign in found if expected.fits(sign))
    else:
        counts = tuple(sign for sign in found if sign.kind is not Kind.UNENDED)
    return counts, tuple(sign for sign in found if sign not in counts)
