# SPDX-License-Identifier: GPL-2.0-only
"""What a run left of a test: links to its files, the end of them, and how it is repeated."""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.page.place import file_in, href
from lab.results.replay import SCRIPT
from lab.splats import find
from lab.text import printable

_FILES = {  # of `lab.results.evidence`, in the order in which one reads them
    "detail.txt": "what happened",
    "calls.txt": "system calls",
    "console.log": "console",
    "dmesg.txt": "kernel log",
    "versions.txt": "versions",
    "seeds.txt": "seeds",
    "guest/console.log": "all of the console",
}
_SHOWN = ("detail.txt", "calls.txt", "console.log")
_LINES = 40  # of an excerpt: the end of a file
_SIZE = 6000  # bytes of the same
_SPLAT = 120  # lines of one


@dataclass(frozen=True)
class Link:
    """A file, by what it is."""

    name: str
    href: str


@dataclass(frozen=True)
class Excerpt:
    """The end of a file, or all of it; or a splat."""

    name: str
    text: str


@dataclass(frozen=True)
class Evidence:
    """Of one test. `replay` is a command for a shell in the folder of all nights."""

    links: Sequence[Link] = ()
    excerpts: Sequence[Excerpt] = ()
    replay: str = ""


def evidence_of(nights: Path, night: str, folder: str, run: str, test: str) -> Evidence:
    """What a page of `night` shows of a test. `folder` is the test's, empty where it has none, and
    `run` its run's, both relative to the folder of all `nights`."""
    own = [name for name in _FILES if folder and file_in(nights, f"{folder}/{name}")]
    return Evidence(
        links=[Link(_FILES[name], href(f"{folder}/{name}", night)) for name in own],
        excerpts=list(_excerpts(nights / folder, own)),
        replay=_replay(nights, folder, run, test),
    )


def _replay(nights: Path, folder: str, run: str, test: str) -> str:
    if folder and (nights / folder / SCRIPT).is_file():
        return shlex.quote(f"{folder}/{SCRIPT}")
    if test and run and (nights / run / SCRIPT).is_file():
        return f"{shlex.quote(f'{run}/{SCRIPT}')} --only {shlex.quote(printable(test))}"
    return ""


def _excerpts(folder: Path, names: Sequence[str]) -> Iterator[Excerpt]:
    for name in names:
        if name not in _SHOWN:
            continue
        text, whole = _end(folder / name)
        if name == "detail.txt":
            for splat in find(text):
                title = f"splat: {splat.title}"
                lines = splat.text.splitlines()[:_SPLAT]
                yield Excerpt(title, "\n".join(lines))
                text = text.replace(splat.text, f"({title})")
        lines = text.splitlines()
        title = _FILES[name]
        if not whole or len(lines) > _LINES:
            title += ", the end"
        yield Excerpt(title, "\n".join(lines[-_LINES:]))


def _end(file: Path) -> tuple[str, bool]:
    """The last _SIZE bytes, from the start of a line, and whether that is all."""
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        start = max(0, size - _SIZE)
        opened.seek(start)
        text = opened.read().decode("utf-8", "replace")
    return printable(text if not start else text.partition("\n")[2]), not start
