# SPDX-License-Identifier: GPL-2.0-only
"""What machines see of a store: whole things, and of several that create one the first."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.errors import ConfigurationError, InfrastructureError
from lab.fleet.store import Store


def test_what_is_written_is_read_and_replaced(store: Store) -> None:
    assert store.read("a/b.json") is None
    store.write("a/b.json", {"number": 1})
    store.write("a/b.json", {"number": 2})
    assert store.read("a/b.json") == {"number": 2}
    assert store.names("a") == ["b.json"]  # and no draft


def test_of_several_that_create_a_name_one_has_done_so(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: store.create("name", {"by": n}), range(8)))
    assert done.count(True) == 1
    assert store.read("name") == {"by": done.index(True)}


def test_what_its_writer_did_not_end_is_not_there(store: Store, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.write_text('{"number": ')
    store.upload(half, "card.json")
    assert store.read("card.json") is None


def test_a_file_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)))
    store.upload(tmp_path / "file", "parcels/one")
    assert store.has("parcels/one")
    store.download("parcels/one", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == bytes(range(256))


def test_a_folder_goes_with_all_that_is_in_it(store: Store) -> None:
    store.write("nights/one/cells/a.json", {})
    store.write("nights/two/cells/a.json", {})
    store.remove("nights/one")
    store.remove("nights/never")
    assert store.names("nights") == ["two"]
    assert store.names("nights/one") == []


def test_what_is_missing_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="has no parcels/gone any more"):
        store.download("parcels/gone", tmp_path / "back")


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match=r"the store .*file: "):
        Store(str(tmp_path / "file")).write("a/b.json", {})


def test_a_folder_that_goes_while_it_is_written_to_is_the_same_message(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night's, which the coordinator removes while a worker still ends."""

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError("no such folder")

    monkeypatch.setattr(vars(store)["_files"], "pipe_file", gone)
    with pytest.raises(InfrastructureError, match=r"the store .*no such folder"):
        store.write("nights/one/cells/a.json", {})


def test_a_url_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="store gopher://host"):
        Store("gopher://host")
