# SPDX-License-Identifier: GPL-2.0-only
"""What a word of a user's means in a history: a rule, a test in all its modes, or a splat."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import sqlalchemy as sa

from lab.errors import ConfigurationError
from lab.history.schema import splats, tests
from lab.history.store import History

_CANDIDATES = 8  # that are named


@dataclass(frozen=True)
class Subject:
    """A rule or a test, by the names of the `tests` that are meant; or a splat, by its title."""

    name: str
    tests: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """All that is the whole of its name: with and without the file, or what is in brackets."""
        whole = {self.name, _function(self.name)}
        return whole | {_last(name) for name in whole}

    @property
    def is_splat(self) -> bool:
        return not self.tests


def subject_of(history: History, word: str) -> Subject:
    """The rule whose id it is, or else the one test or splat that it names, or names a part of.

    Raises ConfigurationError where that is none, or more than one.
    """
    of_rule = sa.select(tests.c.name).distinct().where(tests.c.rule == word.upper())
    names = sa.select(tests.c.name).distinct().where(tests.c.name.icontains(word, autoescape=True))
    titles = sa.select(splats.c.title).where(splats.c.title.icontains(word, autoescape=True))
    with history.reading() as connection:
        if found := sorted(connection.scalars(of_rule)):
            return Subject(word.upper(), tuple(found))
        candidates = [
            *_functions(connection.scalars(names)),
            *(Subject(title) for title in sorted(connection.scalars(titles))),
        ]
    exact = [each for each in candidates if word in each.names]
    match exact or candidates:
        case [subject]:
            return subject
        case []:
            raise ConfigurationError(
                f"the history has no rule, test or splat '{word}'{_perhaps(history, word)}",
                hint="`vfio-lab history` lists the nights that are in it",
            )
        case several:
            listed = [f"  {each.name}" for each in several[:_CANDIDATES]]
            rest = len(several) - len(listed)
            listed += [f"  and {rest} more"] if rest else []
            raise ConfigurationError(
                f"'{word}' may be any of {len(several)}:\n" + "\n".join(listed),
                hint="say more of the one that is meant",
            )


def _functions(names: Iterable[str]) -> Iterator[Subject]:
    """Tests that differ in what is in brackets, such as the mode, are one."""
    for function, group in groupby(sorted(names), key=_function):
        found = tuple(group)
        yield Subject(found[0] if len(found) == 1 else function, found)


def _function(name: str) -> str:
    return name.partition("[")[0]


def _last(name: str) -> str:
    """Of a node id what stands behind the file; a title has none."""
    return name.rpartition("::")[2]


def _perhaps(history: History, word: str) -> str:
    with history.reading() as connection:
        names = {_last(_function(name)) for name in connection.scalars(sa.select(tests.c.name))}
        names |= set(connection.scalars(sa.select(tests.c.rule)))
        names |= set(connection.scalars(sa.select(splats.c.title)))
    close = difflib.get_close_matches(word, names, 1)
    return f" (did you mean '{close[0]}'?)" if close else ""
