# SPDX-License-Identifier: GPL-2.0-only
"""What is in the cache is whole, whatever was interrupted and whoever else is at it."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cache import PROVENANCE, Cache, Entry, key_of
from lab.errors import InfrastructureError

INPUTS = {"of": "a test"}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def fill(folder: Path) -> dict[str, str]:
    (folder / "file").write_text("whole")
    return {"maker": "fill"}


def refuse(_folder: Path) -> None:
    raise AssertionError("the entry was there already")


def python(cache: Cache, body: str) -> "subprocess.Popen[str]":
    """Another process with `cache`, `INPUTS` and a time to sleep at hand."""
    head = f"""
        import sys, time
        from pathlib import Path
        from lab.cache import Cache
        cache, INPUTS = Cache(Path({str(cache.root)!r})), {INPUTS!r}
    """
    program = textwrap.dedent(head) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_an_entry_is_made_once_and_found_again(cache: Cache) -> None:
    made = cache.make("kind", INPUTS, fill)
    again = cache.make("kind", INPUTS, refuse)
    assert again == made
    assert (again.path / "file").read_text() == "whole"
    assert cache.find("kind", INPUTS) == made


def test_other_inputs_are_another_entry(cache: Cache) -> None:
    made = cache.make("kind", INPUTS, fill)
    other = cache.make("kind", {"of": "another test"}, fill)
    assert other.path != made.path


def test_the_provenance_has_the_inputs_and_what_the_maker_saw(cache: Cache) -> None:
    provenance = cache.make("kind", INPUTS, fill).provenance
    assert provenance["inputs"] == INPUTS
    assert provenance["maker"] == "fill"


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_maker_leaves_nothing(cache: Cache, trouble: type[BaseException]) -> None:
    def interrupted(folder: Path) -> None:
        fill(folder)
        raise trouble

    with pytest.raises(trouble):
        cache.make("kind", INPUTS, interrupted)
    assert cache.find("kind", INPUTS) is None
    assert list(cache.root.glob("unfinished/*")) == []
    assert cache.make("kind", INPUTS, fill).provenance["maker"] == "fill"


def test_a_killed_maker_is_never_found_and_holds_up_nobody(cache: Cache) -> None:
    body = """
        def maker(folder):
            (folder / "file").write_text("half")
            (folder / "provenance.json").write_text("{}")
            print("half", flush=True)
            time.sleep(60)
        cache.make("kind", INPUTS, maker)
    """
    with python(cache, body) as maker:
        assert maker.stdout
        assert maker.stdout.readline() == "half\n"
        assert cache.entries() == []
        maker.send_signal(signal.SIGKILL)
    assert cache.find("kind", INPUTS) is None
    assert cache.entries() == []
    entry = cache.make("kind", INPUTS, fill)
    assert (entry.path / "file").read_text() == "whole"


def test_of_two_processes_one_makes_and_both_have_it(cache: Cache) -> None:
    body = """
        def maker(folder):
            print("made", flush=True)
            time.sleep(0.5)
            (folder / "file").write_text("whole")
        print((cache.make("kind", INPUTS, maker).path / "file").read_text())
    """
    with python(cache, body) as one, python(cache, body) as other:
        said = [one.communicate()[0].split(), other.communicate()[0].split()]
    assert sorted(said) == [["made", "whole"], ["whole"]]


def test_a_full_disk_is_one_message_and_nothing_is_kept(cache: Cache) -> None:
    def full(_folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InfrastructureError, match="the disk is full"):
        cache.make("kind", INPUTS, full)
    assert cache.find("kind", INPUTS) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_one_message(cache: Cache) -> None:
    cache.root.mkdir()
    cache.root.chmod(0o500)
    with pytest.raises(InfrastructureError, match="cannot write to the cache"):
        cache.make("kind", INPUTS, fill)


def test_a_fact_is_remembered_for_its_inputs_only(cache: Cache) -> None:
    assert cache.recall("fact", INPUTS) is None
    cache.remember("fact", INPUTS, {"version": 1})
    assert cache.recall("fact", INPUTS) == {"version": 1}
    assert cache.recall("fact", {"of": "another test"}) is None


def test_a_damaged_fact_is_forgotten(cache: Cache) -> None:
    cache.remember("fact", INPUTS, {"version": 1})
    for file in (cache.root / "facts").iterdir():
        file.write_text("{")
    assert cache.recall("fact", INPUTS) is None


def test_a_removed_entry_is_made_anew(cache: Cache) -> None:
    entry = cache.make("kind", INPUTS, fill)
    cache.remove(entry)
    assert cache.find("kind", INPUTS) is None
    cache.make("kind", INPUTS, fill)


def test_a_removal_that_was_interrupted_holds_up_nobody(cache: Cache) -> None:
    entry = cache.make("kind", INPUTS, fill)
    left = cache.root / "unfinished" / f"doomed-{entry.kind}-{entry.key}"
    left.mkdir(parents=True)
    (left / PROVENANCE).write_text("{}")
    assert cache.entries() == [entry]
    cache.remove(entry)
    assert cache.entries() == []


def test_an_entry_that_somebody_else_removed_is_no_trouble(cache: Cache) -> None:
    entry = cache.make("kind", INPUTS, fill)
    cache.remove(entry)
    cache.remove(entry)


def _aged(cache: Cache, name: str, seconds: float) -> Entry:
    entry = cache.make("kind", {"name": name}, fill)
    used = entry.used - seconds
    os.utime(entry.path / PROVENANCE, (used, used))
    return entry


def test_clean_removes_what_was_not_used_for_long(cache: Cache) -> None:
    old, new = _aged(cache, "old", 100), _aged(cache, "new", 10)
    assert cache.clean(older_than=50) == [old]
    assert cache.entries() == [new]


def test_clean_keeps_what_was_used_last_within_the_size(cache: Cache) -> None:
    old, new = _aged(cache, "old", 100), _aged(cache, "new", 10)
    assert cache.clean(max_size=new.size() + old.size() // 2) == [old]
    assert cache.entries() == [new]


def test_asking_for_an_entry_is_use(cache: Cache) -> None:
    entry = _aged(cache, "old", 100)
    cache.find("kind", {"name": "old"})
    assert cache.clean(older_than=50) == []
    assert cache.entries() == [entry]


def test_a_work_place_is_made_once_and_kept_as_it_was_left(cache: Cache) -> None:
    with cache.work_place(INPUTS, fill) as folder:
        (folder / "file").write_text("changed")
    with cache.work_place(INPUTS, lambda _: pytest.fail("it was there")) as again:
        assert (again / "file").read_text() == "changed"
    (entry,) = cache.entries()
    assert (entry.path, entry.provenance["maker"]) == (again, "fill")


def test_a_work_place_whose_maker_failed_is_made_anew(cache: Cache) -> None:
    def fail(folder: Path) -> dict[str, str]:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), cache.work_place(INPUTS, fail):
        pass
    assert cache.entries() == []
    with cache.work_place(INPUTS, fill) as folder:
        assert not (folder / "half").exists()


def test_what_a_work_place_shares_is_not_counted_twice(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "shared").write_bytes(bytes(1 << 20))

    def link(folder: Path) -> dict[str, str]:
        (folder / "shared").hardlink_to(tmp_path / "shared")
        return {}

    with cache.work_place(INPUTS, link):
        pass
    assert cache.entries()[0].size() < 1 << 16


def test_who_waits_for_a_lock_is_told_once(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.cache._PATIENCE", 0.05)
    heard: list[str] = []
    holder = python(
        cache,
        """
        with cache.lock("place"):
            print("held", flush=True)
            time.sleep(1)
        """,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with Cache(cache.root, heard.append).lock("place"):
            pass
    assert heard == ["waiting for another vfio-lab that is at work on place"]


def _copy_of(entry: Entry) -> Callable[[Path], None]:
    def copy(folder: Path) -> None:
        shutil.copytree(entry.path, folder, dirs_exist_ok=True)

    return copy


def test_an_entry_of_another_cache_is_adopted_with_its_provenance(
    cache: Cache, tmp_path: Path
) -> None:
    theirs = Cache(tmp_path / "other").make("kind", INPUTS, fill)
    ours = cache.adopt("kind", theirs.key, _copy_of(theirs))
    assert cache.find("kind", INPUTS) == ours
    assert ours.provenance == theirs.provenance
    assert cache.adopt("kind", theirs.key, refuse) == ours


def test_another_entry_than_the_one_named_is_not_adopted(cache: Cache, tmp_path: Path) -> None:
    theirs = Cache(tmp_path / "other").make("kind", {"of": "something else"}, fill)
    with pytest.raises(InfrastructureError, match="is another entry"):
        cache.adopt("kind", key_of(INPUTS), _copy_of(theirs))
    assert cache.entries() == []
