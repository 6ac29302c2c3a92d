# SPDX-License-Identifier: GPL-2.0-only
"""kernels/known.yaml: the rules that certain kernels are known to break.

A recorded deviation is shown as known and costs no exit status; one that does not show any more is
told. What crashes or warns is never excused: a splat stays what it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from lab.config import Lab, Model, known
from lab.contract import Mode, rule
from lab.document import Document, load
from lab.errors import ConfigurationError

FILE = Path("kernels/known.yaml")

Release = Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")]


class Entry(Model):
    """One recorded deviation.

    `mode` and `test` (its function's name) narrow it down, as does `machine`. `since` is the first
    release that deviates, `before` the first that does no more; without them there is no such end.
    """

    rule: str
    why: Annotated[str, Field(min_length=1)]
    reference: Annotated[str, Field(min_length=1)]
    mode: Mode | None = None
    test: str | None = None
    machine: str | None = None
    since: Release | None = None
    before: Release | None = None


@dataclass(frozen=True)
class Deviation:
    """An entry, and where it stands."""

    entry: Entry
    place: str

    def __str__(self) -> str:
        return f"{self.entry.why} ({self.entry.reference}; {self.place})"

    def covers(
        self, rule: str, mode: Mode | None, test: str, machine: str | None, release: str | None
    ) -> bool:
        """Whether this is what the test is known to find. `test` is its function's name."""
        entry = self.entry
        return (
            entry.rule == rule
            and entry.mode in (None, mode)
            and entry.test in (None, test)
            and entry.machine in (None, machine)
            and self._has(release)
        )

    def _has(self, release: str | None) -> bool:
        since, before = self.entry.since, self.entry.before
        if not release:
            return not since and not before
        number = _number(release)
        return not (since and number < _number(since)) and not (
            before and number >= _number(before)
        )


def read(lab: Lab) -> tuple[Deviation, ...]:
    """What the lab has recorded; nothing where it has no such file.

    Raises ConfigurationError with file, line and expectation.
    """
    path = lab.root / FILE
    if not path.exists():
        return ()
    document = load(path)
    try:
        entries = _ENTRIES.validate_python(document.content or [])
    except ValidationError as invalid:
        raise document.invalid(invalid) from None
    return tuple(_checked(lab, document, index, entry) for index, entry in enumerate(entries))


_ENTRIES = TypeAdapter(Sequence[Entry])


def _checked(lab: Lab, document: Document, index: int, entry: Entry) -> Deviation:
    try:
        rule(entry.rule)
    except ConfigurationError as error:
        raise document.error((index, "rule"), error.message) from None
    if entry.machine:
        try:
            known("machine", entry.machine, lab.machines)
        except ConfigurationError as error:
            raise document.error((index, "machine"), error.message) from None
    if entry.since and entry.before and _number(entry.since) >= _number(entry.before):
        raise document.error((index, "before"), f"expected a release after {entry.since}")
    return Deviation(entry, f"{FILE}:{document.lines[(index,)]}")


def _number(release: str) -> tuple[int, ...]:
    """6.12.117-lab as (6, 12, 117), and 6.13-rc1, which has what 6.13 has, as (6, 13)."""
    match = re.match(r"[0-9]+(\.[0-9]+)*", release)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
