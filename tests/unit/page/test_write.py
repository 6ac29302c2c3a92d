# SPDX-License-Identifier: GPL-2.0-only
"""What a page says, and that nobody else's words act in it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from lab.errors import InfrastructureError
from lab.history.model import CellKey, CellRun, Change, News
from lab.history.store import History
from lab.page import write_pages
from lab.page.write import write_all
from lab.progress import Progress
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

from .conftest import Scene

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\x1b[31m\u2028"
VOID = {"meta", "link", "input", "img", "br"}


class Elements(HTMLParser):
    """Every element of a page, by its name, with its attributes; tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


def data(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    content: dict[str, Any] = json.loads(text)
    return content


def test_what_is_new_stands_before_the_tables(scene: Scene) -> None:
    page = scene.write()
    assert page.index("2 newly broken") < page.index("What is new") < page.index("Every cell")
    order = [page.index(f'id="{change.replace(" ", "%20")}"') for change in
             ("newly broken", "new splat", "flaky", "newly mended", "still broken")]  # fmt: skip
    assert order == sorted(order)


def test_news_of_one_test_in_five_modes_are_one(scene: Scene) -> None:
    page = scene.write()
    (article,) = re.findall(r"<article(?:(?!</article>).)*OWN-3.*?</article>", page, re.DOTALL)
    assert article.count('class="item"') == 5
    assert "BIND on a bound file gave 0, and not EINVAL" in article
    assert "kept until then" in article


def test_splat_of_a_test_that_is_told_already_is_told_in_short(scene: Scene) -> None:
    page = scene.write()
    broken, splat = re.findall(r"<article(?:(?!</article>).)*OWN-5.*?</article>", page, re.DOTALL)
    assert "replay.sh" in broken
    assert "told above" not in broken
    assert "replay.sh" not in splat
    assert "told above" in splat


def test_news_link_to_evidence_that_is_there_and_say_how_it_is_replayed(scene: Scene) -> None:
    page = scene.write()
    night = scene.folder / scene.names[-1]
    links = [link["href"] for link in Elements(page).of("a")]
    files = [link for link in links if link and link.endswith(("calls.txt", "detail.txt"))]
    assert files
    assert all((night / unquote(link)).is_file() for link in files if link)
    for command in re.findall(r"<code>(\d{8}T\S*?replay.sh)", page):
        assert (scene.folder / command).is_file()


def test_cell_opens_with_all_that_is_known_of_its_tests(scene: Scene) -> None:
    cells = data(scene.write())
    (lost,) = [
        test for test in cells["v6.12+kasan/vtd/contract/OWN-5/iommufd"] if "excerpts" in test
    ]
    assert lost["verdict"] == "guest-lost"
    assert lost["splats"] == ["KASAN: slab-use-after-free Read in vfio_df_unbind_iommufd"]
    assert lost["news"] == ["newly broken", "new splat"]
    names = [name for name, _ in lost["excerpts"]]
    assert names == [f"splat: {lost['splats'][0]}", "what happened", "system calls", "console"]
    splat = lost["excerpts"][0][1].splitlines()
    assert "BUG: KASAN" in splat[0] + splat[1]
    assert "Call Trace" not in lost["excerpts"][1][1]
    assert "VFIO_DEVICE_BIND_IOMMUFD" in lost["excerpts"][2][1]


def test_test_that_is_kept_says_little(scene: Scene) -> None:
    cells = data(scene.write())
    test = cells["v6.12/vtd/contract/OWN-1/iommufd"][0]
    assert test.keys() == {"name", "verdict", "took"}


def test_page_loads_nothing_and_runs_only_its_own_script(scene: Scene) -> None:
    for page in (scene.write(), scene.index()):
        elements = Elements(page)
        assert not elements.open
        assert not [tag for tag, attributes in elements.found if attributes.get("src")]
        assert {link["href"] for link in elements.of("link")} == {"data:,"}
        assert not re.search(r"https?:", page)
        policy = next(m for m in elements.of("meta") if "http-equiv" in m)["content"] or ""
        assert "default-src 'none'" in policy
        assert re.search(r"script-src 'sha256-[\w+/]{43}='", policy)
        assert "<style></style>" not in page


def test_tables_and_sections_are_named_for_who_does_not_see_them(scene: Scene) -> None:
    elements = Elements(scene.write())
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(head.get("scope") in {"col", "row"} for head in elements.of("th"))
    assert all(section["aria-labelledby"] in ids for section in elements.of("section"))
    plots = [svg for svg in elements.of("svg") if svg.get("role") == "img"]
    assert plots
    assert all(svg["aria-label"] for svg in plots)


def test_nights_are_linked_both_ways_as_soon_as_the_next_is_written(scene: Scene) -> None:
    first, second, last = scene.names
    scene.write(first)
    scene.write(second)
    page = scene.write(last)
    assert f'rel="prev" href="../{second}/index.html"' in page
    assert 'rel="next"' not in page
    before = (scene.folder / second / "index.html").read_text()
    assert f'rel="prev" href="../{first}/index.html"' in before
    assert f'rel="next" href="../{last}/index.html"' in before


def test_list_of_nights_has_the_newest_first(scene: Scene) -> None:
    scene.write()
    index = scene.index()
    places = [index.rindex(f'href="{name}/index.html"') for name in scene.names]
    assert places == sorted(places, reverse=True)


def test_every_night_whose_folder_is_there_is_written(scene: Scene) -> None:
    first, second, last = scene.names
    (scene.folder / first).rename(scene.folder / "kept-elsewhere")
    write_all(scene.history, scene.folder, Progress(quiet=True))
    assert not (scene.folder / first).exists()
    assert (scene.folder / second / "index.html").exists()
    assert (scene.folder / last / "index.html").exists()


def test_planned_cells_without_a_verdict_are_told(scene: Scene) -> None:
    cell = CellKey("v5.15", "vtd", "contract")
    state = {
        "cells": [
            {"cell": cell.to_json(), "state": "left", "why": "no time", "changed": False},
            {"cell": CellKey("v6.12", "vtd", "contract").to_json(), "state": "tested"},
        ],
        "trouble": ["the mail cannot be sent"],
    }
    (scene.folder / scene.names[-1] / "night.json").write_text(json.dumps(state))
    page = scene.write()
    assert "<b>1</b> planned cells have no verdict" in page
    assert "v5.15 on vtd: contract" in page
    assert "no time" in page
    assert "the mail cannot be sent" in page


def test_words_of_others_are_shown_and_do_nothing(history: History, tmp_path: Path) -> None:
    night = "20261128T210000Z"
    cell = CellKey(f"k{HOSTILE}", f"m{HOSTILE}", f"s{HOSTILE}", f"series{HOSTILE}")
    run = CellRun(night, cell, 0, f"{night}/cells/x", night, 1.0, 1, release=HOSTILE, host=HOSTILE)
    test = TestRecord(
        f"tests/x.py::test{HOSTILE}", f"s{HOSTILE}", Verdict.BROKEN, 0.1, message=HOSTILE,
        splats=(HOSTILE,), program=f"p{HOSTILE}",
    )  # fmt: skip
    history.add(run, RunRecord("1", night, 1.0, tests=(test,)))
    (tmp_path / "nights" / night).mkdir(parents=True)
    told = News(
        Change.BROKEN, cell, test.id, None, None, Verdict.BROKEN, HOSTILE, splats=(HOSTILE,)
    )
    news = [told, replace(told, change=Change.GONE, test="", bisected=HOSTILE)]
    path = tmp_path / "nights" / night / "news.json"
    path.write_text(json.dumps([each.to_json() for each in news]))
    page = write_pages(history, tmp_path / "nights", night, Progress(quiet=True)).read_text()
    elements = Elements(page)
    assert not elements.of("img")
    assert len(elements.of("script")) == 2
    assert not any(name.startswith("on") for _, found in elements.found for name in found)
    assert "\x1b" not in page
    assert "\\x1b[31m" in page
    ((slug, (said,)),) = data(page).items()
    assert not set(slug) & set("<>\"'&")
    assert said["message"] == HOSTILE.replace("\x1b", "\\x1b")


def test_evidence_outside_of_the_nights_is_not_quoted(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the secret")
    night = scene.folder / scene.names[-1]
    for calls in night.glob("cells/*/tests/*/calls.txt"):
        calls.unlink()
        calls.symlink_to(tmp_path / "secret")
    page = scene.write()
    assert "the secret" not in page
    assert "calls.txt" not in page


def test_page_that_cannot_be_written_is_the_owners_trouble(scene: Scene) -> None:
    (scene.folder / scene.names[-1] / "index.html").mkdir()
    with pytest.raises(InfrastructureError, match="cannot be written"):
        scene.write()
    assert not list(scene.folder.glob("*/.index.html-*"))
