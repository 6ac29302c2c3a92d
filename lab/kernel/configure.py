# SPDX-License-Identifier: GPL-2.0-only
"""From fragments to .config, with every wish checked in the result."""

import re
from collections.abc import Sequence
from pathlib import Path

from lab.errors import BuildError, ConfigurationError
from lab.kernel.fragment import Wish, text_of, values_of
from lab.kernel.sandbox import put, taken
from lab.proc import CommandError, run

_CONFIG = re.compile(r"^\s*(?:menu)?config\s+(?P<name>\w+)\s*$")
_DEPENDS = re.compile(r"^\s+depends on (?P<what>.+)$")


def configure(tree: Path, objects: Path, wishes: Sequence[Wish], make: Sequence[str]) -> Path:
    """Write `objects`/.config and return it. `make` is the command up to its target.

    Kconfig drops a symbol whose dependency is missing without a word. Raises ConfigurationError
    that lists every wish that did not come true, with its place.
    """
    wanted = objects / "wanted.config"
    put(wanted, text_of(wishes).encode())
    try:
        run([*make, f"KCONFIG_ALLCONFIG={wanted}", "allnoconfig"])
    except CommandError as error:
        raise BuildError(f"the kernel cannot be configured: {error.message}") from error
    config = taken(objects, ".config")
    values = values_of(config.read_text(errors="replace"))
    lost = [wish for wish in wishes if not wish.is_met_by(values)]
    if lost:
        raise _lost(lost, values, tree)
    return config


def _lost(lost: Sequence[Wish], values: dict[str, str], tree: Path) -> ConfigurationError:
    known = _dependencies(tree, {wish.symbol for wish in lost})
    lines = []
    for wish in lost:
        got = values.get(wish.symbol)
        outcome = f"the kernel has {got}" if got not in (None, "n") else "the kernel has it not"
        line = f"    {wish.place}: {wish}: {outcome}"
        if wish.symbol not in known:
            line += "; no Kconfig of this kernel knows the symbol"
        elif known[wish.symbol]:
            line += f"; depends on {' && '.join(known[wish.symbol])}"
        lines.append(line)
    count = "1 symbol" if len(lost) == 1 else f"{len(lost)} symbols"
    return ConfigurationError(
        "\n".join([f"{count} of the fragments did not take:", *lines]),
        hint="ask for what a symbol depends on too, or leave the symbol out",
    )


def _dependencies(tree: Path, symbols: set[str]) -> dict[str, list[str]]:
    """What each symbol's own entry depends on; a symbol that no Kconfig has is not in it."""
    pattern = rf"^[[:space:]]*(menu)?config[[:space:]]+({'|'.join(sorted(symbols))})[[:space:]]*$"
    words = ["grep", "-rlE", "--include=Kconfig*", "--exclude-dir=Documentation", pattern, "."]
    try:
        files = run(words, cwd=tree)
    except CommandError:
        files = []
    found: dict[str, list[str]] = {}
    for file in files:
        foreign = file.startswith("./arch/") and not file.startswith("./arch/x86/")
        if not foreign:
            _read_kconfig(tree / file, symbols, found)
    return found


def _read_kconfig(file: Path, symbols: set[str], found: dict[str, list[str]]) -> None:
    current: str | None = None
    for line in file.read_text(errors="replace").splitlines():
        if start := _CONFIG.match(line):
            current = start["name"] if start["name"] in symbols else None
            if current:
                found.setdefault(current, [])
        elif current and (depends := _DEPENDS.match(line)):
            found[current].append(f"({depends['what']})")
        elif line and not line[0].isspace() and not line.startswith("#"):
            current = None
