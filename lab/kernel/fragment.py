# SPDX-License-Identifier: GPL-2.0-only
"""Configuration fragments: what they ask for, and whether the kernel took it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import ConfigurationError

_SET = re.compile(r"^CONFIG_(?P<name>\w+)=(?P<value>.+)$")
_UNSET = re.compile(r"^# CONFIG_(?P<name>\w+) is not set$")
_MISTYPED = re.compile(r"^#?\s*CONFIG_\w+")


@dataclass(frozen=True)
class Wish:
    """What one line of a fragment asks for. `value` is as in .config; "n" is "is not set".

    What is asked for as a module goes into the kernel's archive of modules.
    """

    symbol: str
    value: str
    file: Path
    line: int

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return _line(self.symbol, self.value)

    def is_met_by(self, values: Mapping[str, str]) -> bool:
        """Whether a .config has it. Numbers are compared as numbers: 0x10 is 16."""
        got = values.get(self.symbol, "n")
        return got == self.value or (_number(got) is not None and _number(got) == self._number)

    @property
    def _number(self) -> int | None:
        return _number(self.value)


def read(file: Path) -> list[Wish]:
    """The wishes of one fragment. Raises ConfigurationError for a line that is none."""
    try:
        text = file.read_text()
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    wishes = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if found := _SET.match(line):
            wishes.append(Wish(found["name"], found["value"], file, number))
        elif found := _UNSET.match(line):
            wishes.append(Wish(found["name"], "n", file, number))
        elif _MISTYPED.match(line) or (line and not line.startswith("#")):
            raise ConfigurationError(
                f"{file}:{number}: '{line}' is no line of a fragment; expected CONFIG_NAME=VALUE, "
                "`# CONFIG_NAME is not set`, or a comment"
            )
    return wishes


def meaning(file: Path) -> str:
    """What a fragment is for: the first line of its comments that is not the licence's."""
    comments = (line[1:].strip() for line in file.read_text().splitlines() if line[:1] == "#")
    return next((text for text in comments if text and not text.startswith("SPDX-")), "")


def merge(fragments: Iterable[Sequence[Wish]]) -> list[Wish]:
    """One wish a symbol: the last one counts, within a fragment and across them."""
    merged: dict[str, Wish] = {}
    for wishes in fragments:
        merged.update({wish.symbol: wish for wish in wishes})
    return list(merged.values())


def text_of(wishes: Iterable[Wish]) -> str:
    """The wishes as KCONFIG_ALLCONFIG reads them."""
    return "".join(f"{wish}\n" for wish in wishes)


def values_of(config: str) -> dict[str, str]:
    """Symbol to value of a .config's text; what "is not set" is "n"."""
    values = {}
    for line in config.splitlines():
        if found := _SET.match(line):
            values[found["name"]] = found["value"]
        elif found := _UNSET.match(line):
            values[found["name"]] = "n"
    return values


def _line(symbol: str, value: str) -> str:
    return f"# CONFIG_{symbol} is not set" if value == "n" else f"CONFIG_{symbol}={value}"


def _number(value: str) -> int | None:
    try:
        return int(value, 0)
    except ValueError:
        return None
