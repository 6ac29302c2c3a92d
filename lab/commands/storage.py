# SPDX-License-Identifier: GPL-2.0-only
"""What the cache holds, how large it is, and how it is made smaller."""

import contextlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.cache import Cache, Entry, size_of
from lab.errors import ConfigurationError
from lab.kernel.build import CCACHE, CCACHE_OF_SERIES
from lab.kernel.origin import few, origin_of
from lab.proc import run
from lab.results.layout import line, shortened
from lab.units import TIMES, bytes_in, in_words, seconds_in

_OTHERS = {
    CCACHE: "compiled objects of all kernels",
    CCACHE_OF_SERIES: "and of those with a series on them",
    "apt": "Debian's package lists",
    "logs": "builds that failed",
    "unfinished": "what is being made, or was when it was killed",
}
"""What else is in the cache's folder, and is no entry of it."""


@dataclass(frozen=True)
class Item:
    """Something that takes space. `key` is empty for what is no entry of the cache."""

    kind: str
    what: str
    bytes: int
    made: str
    used: float | None  # seconds since the epoch
    path: str
    key: str = ""


def show_cache(*, clean: bool, older_than: str | None, max_size: str | None, as_json: bool) -> None:
    """Show the user's cache, or clean it and show what went. Raises ConfigurationError."""
    age = seconds_in(older_than, "--older-than") if older_than is not None else None
    limit = bytes_in(max_size, "--max-size") if max_size is not None else None
    asked = age is not None or limit is not None
    if clean != asked:
        raise ConfigurationError(
            "--clean needs a limit" if clean else "--older-than and --max-size belong to --clean",
            hint="give --clean with --older-than 30d, --max-size 20G, or both",
        )
    cache = Cache.of_user()
    before = items(cache)
    gone = _clean(cache, before, age, limit) if clean else []
    after = items(cache) if clean else before
    freed = sum(item.bytes for item in before) - sum(item.bytes for item in after)
    if as_json:
        print(json.dumps(_json(cache, after, gone, freed if clean else None), indent=1))
    elif clean:
        _show_cleaned(Console(), cache, after, gone, freed)
    else:
        _show(Console(), cache, after)


def items(cache: Cache) -> list[Item]:
    """Everything in the cache's folder: its entries, the last used first, then the rest."""
    found = []
    for entry in cache.entries():
        with contextlib.suppress(FileNotFoundError):  # another run removes it just now
            found.append(_item(entry))
    for name, what in _OTHERS.items():
        # An unfinished kernel's tree is one of links into the cache.
        taken = size_of(cache.root / name, linked=False)
        if taken and (name != "unfinished" or any((cache.root / name).iterdir())):
            found.append(Item(name, what, taken, "", None, str(cache.root / name)))
    return found


def _item(entry: Entry) -> Item:
    what, made = entry.key, ""
    # It may be damaged, or made by another version of the lab.
    with contextlib.suppress(KeyError, TypeError, ValueError):
        seen = entry.provenance
        made = str(seen["made"])
        what = described(entry.kind, seen)
    size = entry.size()
    return Item(entry.kind, what, size, made, entry.used, str(entry.path), entry.key)


def described(kind: str, seen: Mapping[str, Any]) -> str:
    """An entry in a few words, out of its provenance. Raises KeyError for what it does not say."""
    match kind:
        case "kernel" | "patched" | "work":
            return _kernel(kind, seen)
        case "source" | "headers" | "git" | "tree":
            return origin_of(seen.get("source") or seen["inputs"])
        case "image":
            return str(seen.get("name") or few(list(seen["packages"])))
        case "deb":
            return origin_of(seen)
        case "agent":
            return str(seen["compiler"]).removeprefix("x86_64-linux-gnu-")
        case _:
            return str(seen["key"])


def _kernel(kind: str, seen: Mapping[str, Any]) -> str:
    if kind == "patched":
        return f"{seen['base']['name']} with {seen['name']}"
    if kind == "work":
        return f"tree and objects of {seen['name']}, for series on it"
    return f"{seen.get('name') or ' '.join(seen['fragments'])} {seen['release']}"


def _clean(
    cache: Cache, before: Sequence[Item], age: float | None, limit: int | None
) -> list[Item]:
    """Remove what the limits say; returns the entries that went.

    What is no entry counts, too: entries have the room that it leaves, and where it alone is too
    large the compiler's cache gives way.
    """
    rest = sum(item.bytes for item in before if not item.key)
    room = None if limit is None else max(0, limit - rest)
    gone = {entry.key for entry in cache.clean(older_than=age, max_size=room)}
    if age is not None:
        _drop_old_logs(cache.root / "logs", age)
    for name in (CCACHE_OF_SERIES, CCACHE) if shutil.which("ccache") else ():
        objects = cache.root / name
        if not objects.exists():
            continue
        ccache = ["ccache", "--dir", str(objects)]
        if age is not None:
            run([*ccache, "--evict-older-than", f"{int(age)}s"])
        if limit is not None and rest > limit:
            size = size_of(objects)
            left = limit - (rest - size)
            # To ccache a limit of 0 is none.
            trim = ["--cleanup"] if left >= 1000 else ["--clear"]
            run([*ccache, *trim], env={"CCACHE_MAXSIZE": f"{left // 1000}k"})
            rest -= size - size_of(objects)
    return [item for item in before if item.key in gone]


def _drop_old_logs(folder: Path, age: float) -> None:
    for log in folder.glob("*"):
        if time.time() - log.stat().st_mtime > age:
            log.unlink(missing_ok=True)


# For a person


def _show(console: Console, cache: Cache, found: Sequence[Item]) -> None:
    if found:
        console.print(_table(found))
    total = sum(item.bytes for item in found)
    line(console, Text(f"{in_words(total)} in {cache.root}"))


def _show_cleaned(
    console: Console, cache: Cache, left: Sequence[Item], gone: Sequence[Item], freed: int
) -> None:
    if gone:
        console.print(_table(gone))
    total = in_words(sum(item.bytes for item in left))
    what = f"{len(gone)} removed, {in_words(max(0, freed))} freed"
    line(console, Text(f"{what}; {total} left in {cache.root}"))


def _table(found: Sequence[Item]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("kind", no_wrap=True)
    table.add_column("what")  # the only one that may be narrowed
    for heading in ("size", "made", "last used"):
        table.add_column(heading, no_wrap=True, justify="right")
    for item in found:
        what, made = shortened(item.what), item.made[:10]
        table.add_row(item.kind, what, in_words(item.bytes), made, _ago(item.used))
    return table


def _ago(moment: float | None) -> str:
    if moment is None:
        return ""
    seconds = max(0.0, time.time() - moment)
    for unit in ("d", "h", "m"):
        if seconds >= 2 * TIMES[unit]:
            return f"{seconds // TIMES[unit]:.0f}{unit} ago"
    return "just now"


# For a program


def _json(
    cache: Cache, found: Sequence[Item], gone: Sequence[Item], freed: int | None
) -> dict[str, Any]:
    removed = {} if freed is None else {"removed": [asdict(i) for i in gone], "freed_bytes": freed}
    return {
        "path": str(cache.root),
        "total_bytes": sum(item.bytes for item in found),
        "items": [asdict(item) for item in found],
        **removed,
    }
