# SPDX-License-Identifier: GPL-2.0-only
"""A history of an older lab becomes one of this lab's, and loses nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from lab.errors import ConfigurationError
from lab.history import migrations
from lab.history.model import CellKey
from lab.history.questions import standings
from lab.history.schema import REVISION, metadata
from lab.history.store import History
from lab.results.verdict import Verdict

FIRST_REVISION = "0001"


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def history_of_the_first_lab(url: str) -> None:
    """One run: a test that was kept, one that crashed the guest, and trouble."""
    with connected(url) as connection:
        migrations.upgrade(connection, url, FIRST_REVISION)
        tables = sa.MetaData()
        tables.reflect(connection)

        def put(table: str, **values: Any) -> None:
            connection.execute(sa.insert(tables.tables[table]).values(values))

        put("cells", id=1, kernel="v6.12", machine="vtd", suite="contract", series="")
        put("runs", id=1, night="20261121T210000Z", cell_id=1, attempt=0, folder="f",
            started="2026-11-21T21:00:00Z", seconds=1.0, status=1, release="6.12.57",
            kernel_key="k", source="", qemu="", accel="", host="", lab="",
            figures={"boot_seconds": 2.5}, counts={"kept": 1, "guest-lost": 1})  # fmt: skip
        for number, verdict in enumerate(["kept", "guest-lost"]):
            put("tests", id=number + 1, name=f"t.py::t{number}", rule="OWN-3", mode="",
                subject="OWN-3")  # fmt: skip
            put("verdicts", run_id=1, number=number, test_id=number + 1, verdict=verdict,
                failed=verdict != "kept", duration=1.0, message="", evidence="")  # fmt: skip
        put("verdicts", run_id=1, number=2, test_id=None, verdict="lab-error", failed=False,
            duration=0.0, message="trouble", evidence="")  # fmt: skip
        put("splats", id=1, title="KASAN: use-after-free in f")
        put("sightings", run_id=1, number=1, splat_id=1)


def test_a_history_of_the_first_lab_is_read_and_added_to(bare_url: str) -> None:
    history_of_the_first_lab(bare_url)
    with History.opened(bare_url) as history:
        (night,) = history.nights()
        kept, lost = history.tests(night)
        assert (kept.verdict, lost.verdict) == (Verdict.KEPT, Verdict.GUEST_LOST)
        assert lost.splats == ("KASAN: use-after-free in f",)
        assert [row.message for row in history.troubles(night)] == ["trouble"]
        assert history.cells() == [CellKey("v6.12", "vtd", "contract")]
        assert history.trend(history.cells()[0])[0].figures == {"boot_seconds": 2.5}
        stands = standings(history, [kept.test, lost.test])
        assert [(each.passed, each.failed) for each in stands] == [(1, 0), (0, 1)]


def test_the_tables_are_those_that_the_code_knows(bare_url: str) -> None:
    with History.opened(bare_url):
        pass
    with connected(bare_url) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_newest_migration_is_the_one_that_the_code_asks_for(bare_url: str) -> None:
    with connected(bare_url) as connection:
        steps = ScriptDirectory.from_config(migrations.config(connection))
        assert steps.get_heads() == [REVISION]
        assert [step.revision for step in steps.walk_revisions()][-1] == FIRST_REVISION


def test_a_history_of_a_newer_lab_is_refused(bare_url: str) -> None:
    with History.opened(bare_url):
        pass
    with connected(bare_url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match="newer vfio-lab"), History.opened(bare_url):
        pass


def test_a_migration_that_fails_leaves_what_was_there(
    bare_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history_of_the_first_lab(bare_url)
    with connected(bare_url) as connection:
        before = sa.inspect(connection).get_table_names()
    with monkeypatch.context() as broken:
        broken.setattr("alembic.op.create_table", fail)
        with pytest.raises(RuntimeError), History.opened(bare_url):
            pass
    with connected(bare_url) as connection:
        assert sa.inspect(connection).get_table_names() == before
    with History.opened(bare_url) as history:
        assert len(history.nights()) == 1


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("the power went")
