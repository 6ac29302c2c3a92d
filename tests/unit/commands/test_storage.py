# SPDX-License-Identifier: GPL-2.0-only
"""What the cache holds is shown, and what the limits say goes."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.cache import PROVENANCE, Cache, Entry, size_of
from lab.commands.storage import described, items, show_cache
from lab.errors import ConfigurationError

DAY = 86400.0
PACKAGE = {"name": "linux-source-6.12", "version": "6.12.57-1"}
KERNEL = {"name": "v6.12", "release": "6.12.57", "fragments": {"boot": "1", "vfio": "2"}}
Make = Callable[..., Entry]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """The user's cache; no ccache is there to be cleaned."""
    monkeypatch.setenv("VFIO_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PATH", "/nowhere")
    return Cache.of_user()


@pytest.fixture
def make(cache: Cache) -> Make:
    def make_one(kind: str, seen: Mapping[str, Any], size: int = 8192, days: float = 0) -> Entry:
        def fill(folder: Path) -> Mapping[str, Any]:
            (folder / "file").write_bytes(os.urandom(size))
            return seen

        entry = cache.make(kind, {"seen": seen, "size": size}, fill)
        used = time.time() - days * DAY
        os.utime(entry.path / PROVENANCE, (used, used))
        return entry

    return make_one


def clean(age: str | None = None, size: str | None = None) -> None:
    show_cache(clean=True, older_than=age, max_size=size, as_json=False)


def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    show_cache(clean=False, older_than=None, max_size=None, as_json=True)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("kind", "seen", "text"),
    [
        ("kernel", KERNEL, "v6.12 6.12.57"),
        ("kernel", {k: v for k, v in KERNEL.items() if k != "name"}, "boot vfio 6.12.57"),
        ("source", {"source": PACKAGE}, "linux-source-6.12 6.12.57-1"),
        ("source", {"source": {"git": "/linux", "commit": "a" * 40}}, "/linux at aaaaaaaaaaaa"),
        ("source", {"source": {"tarball": "/x/linux.tar.xz"}}, "linux.tar.xz"),
        ("headers", {"inputs": {"recipe": 2, "commit": "a" * 40}}, "at aaaaaaaaaaaa"),
        ("image", {"name": "minimal"}, "minimal"),
        ("image", {"packages": {"busybox": "1", "dropbear": "2"}}, "busybox and 1 more"),
        ("deb", {"packages": [PACKAGE]}, "linux-source-6.12 6.12.57-1"),
        ("deb", {"packages": [PACKAGE] * 3}, "linux-source-6.12 6.12.57-1 and 2 more"),
        ("agent", {"compiler": "x86_64-linux-gnu-gcc 12.2.0"}, "gcc 12.2.0"),
        ("git", {"source": PACKAGE}, "linux-source-6.12 6.12.57-1"),
        (
            "tree",
            {"source": {"base": PACKAGE, "series": "x.mbox"}},
            "linux-source-6.12 6.12.57-1 with a series",
        ),
        ("patched", {"base": {"name": "v6.12"}, "name": "fix"}, "v6.12 with fix"),
        ("work", {"name": "v6.12"}, "tree and objects of v6.12, for series on it"),
        ("news", {"key": "abc"}, "abc"),
    ],
)
def test_an_entry_is_described(kind: str, seen: dict[str, Any], text: str) -> None:
    assert described(kind, seen) == text


def test_an_empty_cache_is_shown(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    show_cache(clean=False, older_than=None, max_size=None, as_json=False)
    assert capsys.readouterr().out == f"0 kB in {cache.root}\n"


def test_the_table_has_every_entry_and_the_total(
    cache: Cache, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("kernel", KERNEL, 2_000_000)
    make("source", {"source": PACKAGE}, 3_000_000, days=3)
    show_cache(clean=False, older_than=None, max_size=None, as_json=False)
    _, _, kernel, source, total = capsys.readouterr().out.splitlines()
    assert kernel.split()[:5] == ["kernel", "v6.12", "6.12.57", "2.0", "MB"]
    assert kernel.endswith("just now")
    assert source.split()[:5] == ["source", "linux-source-6.12", "6.12.57-1", "3.0", "MB"]
    assert source.endswith("3d ago")
    assert total == f"5.0 MB in {cache.root}"


def test_nothing_but_what_an_entry_is_gets_narrow(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    make("kernel", {**KERNEL, "name": "a-kernel-with-a-name" * 3})
    show_cache(clean=False, older_than=None, max_size=None, as_json=False)
    row = capsys.readouterr().out.splitlines()[2]
    assert len(row) <= 60
    assert row.startswith("kernel ")
    assert "…" in row
    assert row.endswith("just now")


def test_an_entry_of_another_version_is_shown_by_its_key(cache: Cache, make: Make) -> None:
    entry = make("kernel", {"something": "else"})
    assert [item.what for item in items(cache)] == [entry.key]


def test_a_damaged_entry_is_shown_by_its_key(cache: Cache, make: Make) -> None:
    entry = make("kernel", KERNEL)
    (entry.path / PROVENANCE).write_text("{")
    assert [item.what for item in items(cache)] == [entry.key]


def test_what_is_no_entry_is_shown_and_counts(
    cache: Cache, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("kernel", KERNEL)
    for name in ("ccache", "logs", "apt"):
        (cache.root / name).mkdir()
        (cache.root / name / "file").write_bytes(bytes(50_000))
    found = shown(capsys)
    kinds = [item["kind"] for item in found["items"]]
    assert kinds == ["kernel", "ccache", "apt", "logs"]
    assert found["total_bytes"] == sum(item["bytes"] for item in found["items"]) > 150_000
    assert found["path"] == str(cache.root)


def test_a_tree_of_links_takes_no_space(cache: Cache, make: Make) -> None:
    entry = make("source", {"source": PACKAGE}, 1_000_000)
    tree = cache.root / "unfinished" / "kernel-abc"
    tree.mkdir(parents=True)
    os.link(entry.path / "file", tree / "file")
    (tree / "object").write_bytes(bytes(50_000))
    taken = {item.kind: item.bytes for item in items(cache)}
    assert 50_000 < taken["unfinished"] < 100_000


def test_showing_is_not_using(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    entry = make("kernel", KERNEL, days=3)
    before = entry.used
    shown(capsys)
    assert entry.used == before


@pytest.mark.parametrize(
    ("age", "size", "cleans", "message"),
    [
        (None, None, True, "--clean needs a limit"),
        ("30d", None, False, "belong to --clean"),
        (None, "1G", False, "belong to --clean"),
    ],
)
def test_clean_and_its_limits_belong_together(
    make: Make, age: str | None, size: str | None, cleans: bool, message: str
) -> None:
    entry = make("kernel", KERNEL, days=60)
    with pytest.raises(ConfigurationError, match=message) as caught:
        show_cache(clean=cleans, older_than=age, max_size=size, as_json=False)
    assert caught.value.hint == "give --clean with --older-than 30d, --max-size 20G, or both"
    assert entry.path.exists()


def test_what_is_old_goes_and_is_named(
    cache: Cache, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = make("kernel", KERNEL, 2_000_000, days=40), make("deb", {"packages": [PACKAGE]})
    clean(age="30d")
    said = capsys.readouterr().out
    assert cache.entries() == [new]
    assert not old.path.exists()
    assert "v6.12 6.12.57" in said
    assert "linux-source" not in said
    assert "1 removed, 2.0 MB freed; 12 kB left" in said


def test_what_was_not_used_for_longest_goes_first(cache: Cache, make: Make) -> None:
    make("kernel", KERNEL, 2_000_000, days=2)
    kept = make("source", {"source": PACKAGE}, 2_000_000, days=1)
    clean(size="3M")
    assert cache.entries() == [kept]


def test_entries_have_the_room_that_the_rest_leaves(cache: Cache, make: Make) -> None:
    make("kernel", KERNEL, 2_000_000)
    (cache.root / "apt").mkdir()
    (cache.root / "apt" / "lists").write_bytes(bytes(2_000_000))
    clean(size="3M")
    assert cache.entries() == []
    assert (cache.root / "apt" / "lists").exists()


def test_old_logs_go(cache: Cache, make: Make) -> None:
    make("kernel", KERNEL)
    old, new = cache.root / "logs" / "old.log", cache.root / "logs" / "new.log"
    old.parent.mkdir()
    for log, days in ((old, 40), (new, 1)):
        log.write_text("error")
        os.utime(log, (time.time() - days * DAY,) * 2)
    clean(age="30d")
    assert (old.exists(), new.exists()) == (False, True)


def test_the_compilers_cache_gives_way_where_it_alone_is_too_large(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "ccache"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$CCACHE_MAXSIZE $*" >>{asked}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    objects = cache.root / "ccache"
    objects.mkdir(parents=True)
    (objects / "object").write_bytes(bytes(2_000_000))
    clean(size="3M")
    assert not asked.exists()
    clean(size="1M")
    clean(size="0K")
    clean(age="1d")
    assert asked.read_text().splitlines() == [
        f"1000k --dir {objects} --cleanup",
        f"0k --dir {objects} --clear",
        f" --dir {objects} --evict-older-than 86400s",
    ]


def test_json_says_what_went(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    entry = make("kernel", KERNEL, days=40)
    show_cache(clean=True, older_than="30d", max_size=None, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert [item["key"] for item in said["removed"]] == [entry.key]
    assert said["freed_bytes"] >= 8192
    assert said["items"] == []


# What lab.cache offers for it


def test_what_a_killed_maker_left_goes_and_what_is_being_made_stays(cache: Cache) -> None:
    dead, alive = (cache.root / "unfinished" / f"kernel-{name}" for name in ("dead", "alive"))
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    with cache.lock("kernel-alive"):
        cache.clean(older_than=DAY)
        assert (dead.exists(), alive.exists()) == (False, True)
    cache.clean(older_than=DAY)
    assert not alive.exists()


def test_an_interrupted_removal_is_finished(cache: Cache, make: Make) -> None:
    entry = make("kernel", KERNEL)
    doomed = cache.root / "unfinished" / f"doomed-kernel-{entry.key}"
    doomed.mkdir(parents=True)
    with cache.lock(f"kernel-{entry.key}"):
        cache.clean(older_than=DAY)
        assert doomed.exists()
    cache.clean(older_than=DAY)
    assert not doomed.exists()
    assert entry.path.exists()


def test_peeking_is_not_using(cache: Cache, make: Make) -> None:
    entry = make("kernel", KERNEL, days=3)
    before = entry.used
    assert cache.peek("kernel", entry.provenance["inputs"]) == entry
    assert cache.peek("kernel", {"other": "inputs"}) is None
    assert entry.used == before


def test_a_fact_can_be_forgotten(cache: Cache) -> None:
    cache.remember("kvm", {"qemu": 1}, {"kvm": False})
    cache.remember("kvm", {"qemu": 2}, {"kvm": True})
    cache.forget("kvm", {"qemu": 1})
    cache.forget("kvm", {"qemu": 1})
    assert cache.recall("kvm", {"qemu": 1}) is None
    assert cache.recall("kvm", {"qemu": 2}) == {"kvm": True}


def test_the_size_of_a_folder_is_that_of_all_in_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(100_000))
    (tmp_path / "a" / "link").symlink_to("/usr")
    (tmp_path / "elsewhere").write_bytes(bytes(1_000_000))
    os.link(tmp_path / "elsewhere", tmp_path / "a" / "linked")
    assert 1_100_000 < size_of(tmp_path / "a") < 1_200_000
    assert 100_000 < size_of(tmp_path / "a", linked=False) < 200_000
    assert size_of(tmp_path / "elsewhere") >= 1_000_000
    assert size_of(tmp_path / "gone") == 0
    shutil.rmtree(tmp_path / "a")
