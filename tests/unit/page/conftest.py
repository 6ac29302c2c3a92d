# SPDX-License-Identifier: GPL-2.0-only
"""Nights that never were, in a history of their own."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.bench import nights
from lab.history.store import History
from lab.page import INDEX, write_pages
from lab.progress import Progress


@dataclass(frozen=True)
class Scene:
    """`names` are the nights', the oldest first."""

    history: History
    folder: Path
    names: tuple[str, ...]

    def write(self, name: str | None = None) -> str:
        """The text of a night's page, by default the last one's."""
        page = write_pages(self.history, self.folder, name or self.names[-1], Progress(quiet=True))
        return page.read_text(encoding="utf-8")

    def index(self) -> str:
        return (self.folder / INDEX).read_text(encoding="utf-8")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """An empty one."""
    with History.opened(f"sqlite:///{tmp_path}/history.sqlite3") as opened:
        yield opened


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sequence[str]]:
    """A folder with a history and three nights, with 250 tests a cell; the last has everything to
    tell. Their names, too."""
    folder = tmp_path_factory.mktemp("made")
    with History.opened(f"sqlite:///{folder}/history.sqlite3") as opened:
        names = nights.make(opened, folder / "nights", nights=3, tests=250, story=nights.eventful)
    return folder, names


@pytest.fixture
def scene(made: tuple[Path, Sequence[str]], tmp_path: Path) -> Iterator[Scene]:
    """A copy of that, for a test of its own."""
    folder, names = made
    shutil.copytree(folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    with History.opened(f"sqlite:///{tmp_path}/history.sqlite3") as opened:
        yield Scene(opened, tmp_path / "nights", tuple(names))
