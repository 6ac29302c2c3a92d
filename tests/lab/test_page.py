# SPDX-License-Identifier: GPL-2.0-only
"""A night's page in a real browser: opened from disk, searched, by keyboard, on a phone, in the
dark, without its script, and served while the night goes on."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.bench import nights, pictures
from lab.bench.browser import browser
from lab.errors import InfrastructureError
from lab.history.store import History
from lab.page.serve import Server, Source
from lab.page.write import INDEX, write_all
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, expect

OWN_3 = "v6.12/vtd/contract/OWN-3/iommufd"
LOST = "v6.12+kasan/vtd/contract/OWN-5/iommufd"
PHONE = {"width": 390, "height": 844}
# How much lighter the lighter one of text and ground is (WCAG 2.2, 1.4.3), for each visible text.
CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (at) => {
    for (; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = new Map();
  for (const at of document.querySelectorAll("body *")) {
    const says = [...at.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!says || at.closest("svg, script, style, option, .skip") || !at.checkVisibility()) continue;
    const pair = [light(getComputedStyle(at).color), light(ground(at))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) poor.set(`${at.tagName}.${at.className}`, ratio);
  }
  return Object.fromEntries(poor);
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    try:
        with browser() as running:
            yield running
    except InfrastructureError as missing:
        pytest.skip(missing.message)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All nights, with their history beside them; the last has everything to tell."""
    place = tmp_path_factory.mktemp("state") / "nights"
    with _history(place) as history:
        nights.make(history, place, nights=4, tests=450, story=nights.eventful)
        write_all(history, place, Progress(quiet=True))
    return place


@pytest.fixture
def names(folder: Path) -> Sequence[str]:
    return sorted(found.name for found in folder.glob("2*"))


Open = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, folder: Path, names: Sequence[str]) -> Iterator[Open]:
    """The last night's page from disk. Nothing but files is asked for, and no script fails."""
    contexts, asked, failed = [], [], []

    def opened(place: str = "", *, url: str = "", **options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(error.message))
        page.on("console", lambda said: failed.append(said.text))
        page.goto((url or (folder / names[-1] / INDEX).as_uri()) + place)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not failed
    assert all(url.startswith(("file:", "data:", "http://127.0.0.1:")) for url in asked)


def _history(place: Path) -> AbstractContextManager[History]:
    return History.opened(f"sqlite:///{place.parent}/history.sqlite3")


def test_page_from_disk_tells_what_is_new_first(open_page: Open) -> None:
    page = open_page()
    expect(page).to_have_title(re.compile("2026.*vfio-lab"))
    expect(page.locator(".lede")).to_contain_text("2 newly broken, 1 new splat, 1 flaky")
    expect(page.locator("article").first).to_be_in_viewport()


def test_link_to_a_cell_opens_it_with_its_evidence(open_page: Open) -> None:
    page = open_page(f"#{LOST}")
    dialog = page.locator("dialog#cell")
    expect(dialog.locator("h2")).to_have_text("OWN-5 iommufd, v6.12+kasan on vtd: contract")
    expect(dialog).to_contain_text("BUG: KASAN: slab-use-after-free in vfio_df_unbind_iommufd")
    expect(dialog).to_contain_text("VFIO_DEVICE_BIND_IOMMUFD")
    expect(dialog.locator("code").first).to_have_text(re.compile(r"replay\.sh$"))
    dialog.get_by_role("link", name="system calls").click()
    expect(page.locator("body")).to_contain_text("VFIO_DEVICE_BIND_IOMMUFD")
    page.go_back()
    expect(page.locator("dialog#cell")).to_be_visible()


def test_search_leaves_what_has_all_words(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("/")
    expect(page.locator("#words")).to_be_focused()
    page.keyboard.type("own-3 v6.12+kasan")
    expect(page.locator("#found")).to_have_text(re.compile(r"^5 of \d+$"))
    expect(page.locator("table.verdicts tbody tr:visible")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#words")).to_have_value("")
    expect(page.locator("#found")).to_have_text("")
    expect(page.locator("tr[hidden]")).to_have_count(0)


def test_verdict_and_kernel_are_filters(open_page: Open) -> None:
    page = open_page()
    page.locator("#verdict").select_option("guest-lost")
    expect(page.locator("table.verdicts tbody tr:visible")).to_have_count(1)
    page.locator("#kernel").select_option("v6.12")
    expect(page.locator("table.verdicts tbody tr:visible")).to_have_count(0)
    page.locator("#verdict").select_option("new")
    expect(page.locator("table.verdicts tbody tr:visible th b")).to_have_text(["OWN-3", "IRQ-1"])


def test_keys_go_from_one_thing_to_the_next_open_it_and_come_back(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("j")
    first = page.locator("article a.item").first
    expect(first).to_be_focused()
    assert first.evaluate("at => getComputedStyle(at).outlineStyle") != "none"
    page.keyboard.press("Enter")
    heading = page.locator("dialog#cell h2")
    expect(heading).to_have_text("OWN-3 iommufd, v6.12 on vtd: contract")
    page.keyboard.press("j")
    expect(heading).to_have_text("OWN-3 type1v2, v6.12 on vtd: contract")
    page.keyboard.press("k")
    expect(heading).to_have_text("OWN-3 iommufd, v6.12 on vtd: contract")
    page.keyboard.press("Escape")
    expect(page.locator("dialog#cell")).to_be_hidden()
    expect(first).to_be_focused()
    assert page.evaluate("location.hash") == ""


def test_arrows_go_from_cell_to_cell(open_page: Open) -> None:
    page = open_page()
    page.locator(f"[id='{OWN_3}']").focus()
    for key, place in (("Right", "OWN-3/vfio_type1v2_iommu"), ("Left", "OWN-3/iommufd"),
                       ("Down", "OWN-1/iommufd"), ("Up", "OWN-3/iommufd")):  # fmt: skip
        page.keyboard.press(f"Arrow{key}")
        expect(page.locator(":focus")).to_have_id(f"v6.12/vtd/contract/{place}")


def test_help_names_the_keys_and_nothing_holds_the_focus(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("?")
    expect(page.locator("dialog#help")).to_contain_text("search")
    page.keyboard.press("Escape")
    expect(page.locator("dialog#help")).to_be_hidden()
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 200)"))
    assert len(set(seen)) == len(seen)


def test_brackets_go_to_the_nights_beside(open_page: Open, names: Sequence[str]) -> None:
    page = open_page()
    page.keyboard.press("[")
    page.wait_for_url(f"**/{names[-2]}/{INDEX}")
    page.keyboard.press("]")
    page.wait_for_url(f"**/{names[-1]}/{INDEX}")


@pytest.mark.parametrize("place", ["", f"#{LOST}"])
def test_phone_scrolls_up_and_down_only(open_page: Open, place: str) -> None:
    page = open_page(place, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator("#cell-tests").evaluate("at => at.scrollWidth") <= PHONE["width"]


def test_list_of_nights_fits_on_a_phone(open_page: Open, folder: Path) -> None:
    page = open_page(url=(folder / INDEX).as_uri(), viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    expect(page.locator("svg[role=img]")).to_have_count(4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", ["", f"#{LOST}"])
def test_everything_can_be_read(open_page: Open, scheme: str, place: str) -> None:
    page = open_page(place, color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 20, 23)"}[scheme]
    assert page.evaluate(CONTRAST) == {}


def test_page_without_its_script_still_has_news_tables_and_links(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    expect(page.locator("article").first.get_by_role("link", name="system calls")).to_be_visible()
    expect(page.locator(f"[id='{OWN_3}']")).to_contain_text("BROKEN")
    expect(page.locator("#filter")).to_be_hidden()


def test_served_page_follows_the_night(open_page: Open, folder: Path, names: Sequence[str]) -> None:
    with Server(Source(folder, partial(_history, folder)), 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            page = open_page(url=f"{server.url}{names[-1]}/")
            page.locator("#words").fill("own-3")
            found = page.locator("#found").text_content() or ""
            run = RunFolder.create(folder / names[-1] / "cells/v6.19-vtd")
            tests = (TestRecord("t", "contract", Verdict.BROKEN, 0.1),)
            run.write(RunRecord("1", "2026-11-28T21:00:00Z", 1.0, tests=tests, finished=False))
            expect(page.locator(".running")).to_contain_text("1 tests so far", timeout=60_000)
            expect(page.locator("#words")).to_have_value("own-3")
            expect(page.locator("#found")).to_have_text(found)
            page.close()
        finally:
            server.shutdown()
            thread.join()


def test_pictures_for_the_documents_are_small(
    chromium: Browser, folder: Path, names: Sequence[str], tmp_path: Path
) -> None:
    for picture in pictures.take(tmp_path, folder / names[-1] / INDEX, chromium):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 200_000
