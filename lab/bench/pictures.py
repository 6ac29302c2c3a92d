# SPDX-License-Identifier: GPL-2.0-only
"""Pictures of the page of a night that never was, for the documents.

`python -m lab.bench.pictures doc` makes them anew.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from lab.bench import nights
from lab.bench.browser import browser
from lab.history.store import History
from lab.page import write_pages
from lab.progress import Progress

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_CELL = "v6.12+kasan/vtd/contract/OWN-5/iommufd"


@dataclass(frozen=True)
class _Shot:
    """A window, in pixels, and what is open in it."""

    name: str
    width: int
    height: int
    scheme: Literal["light", "dark"]
    place: str = ""


_SHOTS = (
    _Shot("page.png", 1100, 1000, "light"),
    _Shot("page-cell.png", 960, 720, "light", _CELL),
    _Shot("page-phone.png", 390, 844, "dark"),
)


def take(folder: Path, page: Path, running: "Browser") -> Sequence[Path]:
    """Pictures of a page that `lab.bench.nights.eventful` tells of, as files in a folder."""
    made = []
    for shot in _SHOTS:
        tab = running.new_page(
            viewport={"width": shot.width, "height": shot.height}, color_scheme=shot.scheme
        )
        tab.goto(f"{page.as_uri()}#{shot.place}")
        tab.screenshot(path=folder / shot.name)
        tab.close()
        made.append(folder / shot.name)
    return made


def main(folder: Path) -> None:
    """Thirty nights, and pictures of the last."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="vfio-lab-") as name,
        History.opened(f"sqlite:///{name}/history.sqlite3") as history,
    ):
        place = Path(name) / "nights"
        made = nights.make(history, place, nights=30, tests=450, story=nights.eventful)
        page = write_pages(history, place, made[-1], Progress())
        with browser() as running:
            for picture in take(folder, page, running):
                print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
