# SPDX-License-Identifier: GPL-2.0-only
"""Nights as HTML: a page each, and one that lists them.

A page loads nothing: its style, its script and its data are in it, and its policy forbids all else.
"""

import base64
import gc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import jinja2
from markupsafe import Markup

from lab.errors import InfrastructureError
from lab.files import replace
from lab.history.store import History
from lab.page import plot
from lab.page.night import Night
from lab.page.place import lasted, moment
from lab.page.running import Running
from lab.page.table import QUIET, ordered
from lab.page.told import FOLDED
from lab.page.trends import Trends, plots
from lab.progress import Progress
from lab.results.layout import heading, meaning
from lab.results.verdict import Verdict
from lab.text import printable

INDEX = "index.html"


def write_pages(history: History, folder: Path, night: str, progress: Progress) -> Path:
    """Write a night's page, the list of all nights, and the page of the night before, which has a
    link to this one now; returns the night's.

    `folder` is that of all nights. Each file is replaced as a whole, so that who reads meanwhile
    sees the old one or the new one. Raises InfrastructureError where they cannot be written.
    """
    before = [name for name in history.nights() if name < night][:1]
    _write(history, folder, [night, *before], progress)
    return folder / night / INDEX


def write_all(history: History, folder: Path, progress: Progress) -> None:
    """The same for every night whose folder is still there."""
    _write(history, folder, history.nights(), progress)


def _write(history: History, folder: Path, names: Sequence[str], progress: Progress) -> None:
    with progress.step("write the nights' pages") as step, _no_collection():
        trends = Trends.of(history)
        try:
            for number, name in enumerate(names):
                if (folder / name).is_dir():
                    page = night_page(Night.of(history, folder, name, trends))
                    replace(folder / name / INDEX, page)
                step.advance(number + 1, len(names))
            replace(folder / INDEX, index_page(trends))
        except OSError as error:
            words = f"{error.filename}: cannot be written: {error.strerror}"
            raise InfrastructureError(words) from error


def night_page(night: Night, *, live: str = "", running: Sequence[Running] = ()) -> str:
    """The page of a night. `live` is where a server says whether there is news, `running` what it
    has no verdicts of yet."""
    return _filled(
        "night.html",
        night=night,
        cells=night.cells(),
        kernels=sorted({section.cell.kernel for section in night.sections}),
        folded=FOLDED,
        quiet=QUIET,
        live=live,
        running=running,
    )


def index_page(trends: Trends, *, live: str = "") -> str:
    """The page of all nights."""
    return _filled("index.html", tallies=trends.whole, live=live)


def _filled(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> jinja2.Environment:
    # kept, for to compile the templates takes longer than to fill them
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("lab.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = made.get_template("page.js").render(
        marks={verdict: verdict.mark.text for verdict in Verdict},
        quiet_verdicts=[verdict for verdict in Verdict if not verdict.is_trouble],
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made.globals |= {
        "script": Markup(script),
        "script_hash": Markup(f"'sha256-{digest}'"),
        "size": SimpleNamespace(
            width=plot.WIDTH, height=plot.HEIGHT, left=plot.LEFT, right=plot.RIGHT
        ),
        "shown": plot.shown,
        "moment": moment,
        "lasted": lasted,
        "heading": heading,
        "meaning": meaning,
        "plots": plots,
        "ordered": ordered,
    }
    return made


@contextmanager
def _no_collection() -> Iterator[None]:
    """A page is many small objects, none of them in a circle: to look for those takes a third of
    the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _printable(value: object) -> object:
    """What a template shows is others' words: fit to be shown, then escaped, unless it is HTML."""
    return value if isinstance(value, Markup | int | float) else printable(str(value))
