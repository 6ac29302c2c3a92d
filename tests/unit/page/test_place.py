# SPDX-License-Identifier: GPL-2.0-only
"""What links name is found again, and nothing outside the nights' folder is."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from lab.contract import Mode
from lab.history.model import CellKey
from lab.page.place import Place, file_in, href, lasted, moment


def test_link_of_a_cell_is_readable() -> None:
    place = Place(CellKey("v6.12+kasan", "vtd", "contract"), "OWN-3", Mode.IOMMUFD)
    assert place.slug == "v6.12+kasan/vtd/contract/OWN-3/iommufd"


def test_links_of_different_cells_differ() -> None:
    names = [
        CellKey("a", "b/c", "d"),
        CellKey("a/b", "c", "d"),
        CellKey("a", "b", "c/d"),
        CellKey("a:s", "b", "c"),
        CellKey("a", "b", "c", "s"),
        CellKey("a b", "c", "d"),
    ]
    slugs = [Place(cell, "OWN-3", None).slug for cell in names]
    assert len(set(slugs)) == len(slugs)
    assert not any(set(slug) & set(" \"'<>&?#") for slug in slugs)


def test_link_to_a_file_is_one_whatever_its_name() -> None:
    link = href('N/cells/a "b"#?/tests/javascript:x/calls.txt', "N")
    assert link == "cells/a%20%22b%22%23%3F/tests/javascript%3Ax/calls.txt"
    assert unquote(href("M/cells/x", "N")) == "../M/cells/x"


def test_file_is_found_only_below_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "nights"
    (folder / "N").mkdir(parents=True)
    (folder / "N/log.txt").write_text("seen")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "N/inside.txt").symlink_to("log.txt")
    (folder / "N/outside.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "N/up").symlink_to(tmp_path)
    assert file_in(folder, "N/inside.txt") == folder / "N/log.txt"
    for path in (
        "N/outside.txt", "N/up/secret.txt", "../secret.txt", "N/../../secret.txt", "N", "N/no.txt",
        "N/\0", str(tmp_path / "secret.txt"),
    ):  # fmt: skip
        assert file_in(folder, path) is None, path


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (724, "12 min 4 s"), (18720, "5 h 12 min")],
)
def test_time_is_told_in_words(seconds: float, words: str) -> None:
    assert lasted(seconds) == words


def test_night_is_told_as_a_moment_where_its_name_is_one() -> None:
    assert moment("20261128T210000Z") == "Sat 28 Nov 2026, 21:00 UTC"
    assert moment("friday") == "friday"
