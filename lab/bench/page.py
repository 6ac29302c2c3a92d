# SPDX-License-Identifier: GPL-2.0-only
"""The nights' pages: how long it takes to write them, and a browser to open one."""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.bench import nights
from lab.bench.browser import browser
from lab.bench.figures import Measured
from lab.cell import Choice
from lab.config import Lab
from lab.errors import InfrastructureError
from lab.history.store import History
from lab.page.write import INDEX, write_all, write_pages
from lab.progress import Progress

NIGHTS = 100
TESTS = 500  # in each of four cells: 2,000 verdicts a night
_EMPTY = "<!doctype html><title>empty</title>"


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """All pages of NIGHTS nights, one with the list, and the last of them in a browser where there
    is one, beside an empty page; `rounds` of each, by default 3. No guest is in it."""
    del lab, choice
    rounds = rounds or 3
    every = Measured(f"write {NIGHTS} pages")
    cpu = Measured("CPU time of that", every.name)  # less where others have the CPUs, too
    one = Measured("write one night's")
    progress = Progress()
    with TemporaryDirectory(prefix="vfio-lab-bench-") as name:
        folder = Path(name) / "nights"
        with History.opened(f"sqlite:///{name}/history.sqlite3") as history:
            with progress.step(f"make {NIGHTS} nights that never were"):
                made = nights.make(
                    history, folder, nights=NIGHTS, tests=TESTS, story=nights.eventful
                )
            for _ in range(rounds):
                started, used = time.perf_counter(), time.process_time()
                write_all(history, folder, progress)
                cpu.values.append(time.process_time() - used)
                every.values.append(time.perf_counter() - started)
                started = time.perf_counter()
                page = write_pages(history, folder, made[-1], progress)
                one.values.append(time.perf_counter() - started)
        (folder / "empty.html").write_text(_EMPTY)
        try:
            opened = _opened([folder / "empty.html", page, folder / INDEX], rounds)
        except InfrastructureError as error:
            progress.say(f"opening is not measured: {error.message}")
            opened = []
    return every, cpu, one, *opened


def _opened(pages: Sequence[Path], rounds: int) -> Sequence[Measured]:
    """From the address to the first picture after all of it is there."""
    empty = Measured("open an empty page")
    found = [
        empty,
        Measured("open a night's page", empty.name),
        Measured("open the list of nights", empty.name),
    ]
    with browser() as running:
        for _ in range(rounds):
            for measured, page in zip(found, pages, strict=True):
                tab = running.new_page()
                started = time.perf_counter()
                tab.goto(page.as_uri())
                tab.evaluate("() => new Promise((done) => requestAnimationFrame(done))")
                measured.values.append(time.perf_counter() - started)
                tab.close()
    return found
