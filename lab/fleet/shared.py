# SPDX-License-Identifier: GPL-2.0-only
"""A cache with a store behind it: what one machine has made, the others need not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lab.cache import Cache, Entry, key_of
from lab.fleet.claim import Claims
from lab.fleet.parcel import Parcel, receive, send
from lab.results.record import Written

MADE = ("kernel", "patched")  # kinds that take minutes to make: they are made once in a fleet
LOOKED_UP = ("package", "parts")
"""Kinds of facts that say what a name in lab.yaml means today: that is the coordinator's say."""


@dataclass(frozen=True)
class Artefact(Written):
    """An entry of a cache that is in the store."""

    kind: Annotated[str, Field(pattern=r"^[a-z]+$")]
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")]
    parcel: Parcel


class SharedCache(Cache):
    """The user's. `facts` are another machine's: by their kinds and keys what it looked up."""

    def __init__(
        self,
        root: Path,
        claims: Claims,
        facts: Mapping[str, dict[str, Any]] | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(root, on_wait)
        self.claims = claims
        self._facts = dict(facts or {})

    @property
    def facts(self) -> Mapping[str, dict[str, Any]]:
        """What was looked up here, and what was given."""
        return self._facts

    def make(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Mapping[str, Any] | None],
    ) -> Entry:
        """As that of every cache; of the kinds MADE one that any machine has made is fetched, and
        one that is new is put into the store. Raises InfrastructureError for trouble with it."""
        make = super().make
        if kind not in MADE:
            return make(kind, inputs, maker)
        key = key_of(inputs)

        def made() -> dict[str, Any]:
            return self._sent(make(kind, inputs, maker)).to_json()

        found = self.claims.once(_card(kind, key), made)
        return self.fetch(Artefact.from_json(found))

    def share(self, entry: Entry) -> Artefact:
        """See to it that the store has an entry."""
        made = self.claims.once(_card(entry.kind, entry.key), lambda: self._sent(entry).to_json())
        return Artefact.from_json(made)

    def fetch(self, artefact: Artefact) -> Entry:
        """An entry that the store has, from there unless it is here."""
        entry = self.adopt(
            artefact.kind,
            artefact.key,
            lambda folder: receive(self.claims.store, artefact.parcel, folder),
        )
        return self.find(entry.kind, entry.provenance["inputs"]) or entry  # this is use

    def recall(self, kind: str, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        name = f"{kind}-{key_of(inputs)}"
        fact = self._facts.get(name) or super().recall(kind, inputs)
        if fact and kind in LOOKED_UP:
            self._facts[name] = fact
        return fact

    def remember(self, kind: str, inputs: Mapping[str, Any], fact: Mapping[str, Any]) -> None:
        if kind in LOOKED_UP:
            self._facts[f"{kind}-{key_of(inputs)}"] = dict(fact)
        super().remember(kind, inputs, fact)

    def _sent(self, entry: Entry) -> Artefact:
        return Artefact(entry.kind, entry.key, send(self.claims.store, entry.path))


def _card(kind: str, key: str) -> str:
    return f"{kind}/{key}.json"
