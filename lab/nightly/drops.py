# SPDX-License-Identifier: GPL-2.0-only
"""Series that were dropped somewhere to be tested: in a folder, or in a maildir."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from lab.config.nightly import Drop
from lab.errors import ConfigurationError
from lab.kernel.letters import name_of, read_letters, save_letters
from lab.kernel.mail import series_in

_PREFIX = re.compile(r"^(\s*(\[[^]]*\]|re:|fwd?:))*\s*", re.IGNORECASE)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.]+")
_LONGEST = 60  # characters of a name
_IDS = re.compile(r"<[^<>\s]+>")
_DIFF = re.compile(rb"^(diff --git |@@ -\d)", re.MULTILINE)


@dataclass(frozen=True)
class Dropped:
    """A series, and the kernels that it is to be put on. `name` is the same for its next version,
    so that its history goes on."""

    name: str
    letters: tuple[EmailMessage, ...]
    kernels: tuple[str, ...]

    def save(self, folder: Path) -> Path:
        """Its mailbox, written there."""
        file = folder / f"{self.name}.mbox"
        save_letters(self.letters, file)
        return file


def collect(drops: Sequence[Drop], root: Path) -> tuple[list[Dropped], list[str]]:
    """What lies in these places now, and what is wrong with the rest, a line each.

    Of several that have one name the last counts: in a maildir the newest version, as it came
    last.
    """
    found: dict[str, Dropped] = {}
    trouble: list[str] = []
    for drop in drops:
        place = root / drop.drop.expanduser()
        try:
            for name, letters in _series_in(place):
                try:
                    series_in(letters, name)
                except ConfigurationError as error:
                    trouble.append(f"{place}: {name}: {error}")
                else:
                    found[name] = Dropped(name, tuple(letters), drop.kernels)
        except (OSError, ConfigurationError) as error:
            trouble.append(f"{place}: {error}")
    return list(found.values()), trouble


def _series_in(place: Path) -> Iterator[tuple[str, Sequence[EmailMessage]]]:
    """The names of all series of a place, and their mails. Raises OSError."""
    if (place / "cur").is_dir():
        for thread in threads(read_letters(str(place))):
            if any(_is_patch(letter) for letter in thread):
                yield _named(_PREFIX.sub("", str(thread[0]["Subject"] or ""))), thread
        return
    for entry in sorted(place.iterdir()):
        if not entry.name.startswith("."):
            yield _named(name_of(str(entry))), read_letters(str(entry))


def threads(letters: Iterable[EmailMessage]) -> list[list[EmailMessage]]:
    """Mails by what they answer, in the order in which they came; of each thread the mail that it
    began with first."""
    root: dict[str, str] = {}

    def find(id_: str) -> str:
        while (above := root.setdefault(id_, id_)) != id_:
            id_ = above
        return id_

    mails = list(letters)
    for mail in mails:
        own = find(str(mail["Message-Id"]).strip())
        for field in ("References", "In-Reply-To"):
            for id_ in _IDS.findall(str(mail[field] or "")):
                root[own] = find(id_)
                own = find(own)
    found: dict[str, list[EmailMessage]] = defaultdict(list)
    for mail in mails:
        found[find(str(mail["Message-Id"]).strip())].append(mail)
    return [sorted(thread, key=_answers) for thread in found.values()]


def _answers(letter: EmailMessage) -> bool:
    return bool(letter["In-Reply-To"] or letter["References"])


def _is_patch(letter: EmailMessage) -> bool:
    body = letter.get_body(preferencelist=("plain",))
    content = body.get_payload(decode=True) if body else None
    # bytes: what it says of its characters need not be true, nor known to anybody
    return isinstance(content, bytes) and bool(_DIFF.search(content))


def _named(text: str) -> str:
    return _UNSAFE.sub("-", text).strip("-.")[:_LONGEST].strip("-.").lower() or "series"
