# SPDX-License-Identifier: GPL-2.0-only
"""Nights to be told of, in a word a test."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from lab.contract import Mode
from lab.history.model import CellKey, CellRun, News
from lab.history.news import news_of
from lab.history.schema import metadata
from lab.history.store import History
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict

SERVER = "VFIO_LAB_TEST_POSTGRESQL"
"""The variable with a server's URL, where tests are to run on that: `test_history_postgres`."""

CELL = CellKey("next", "vtd", "contract")
FIRST, SECOND, THIRD, FOURTH = (f"2026112{day}T210000Z" for day in range(1, 5))
UAF = "BUG: KASAN: use-after-free in vfio_group_fops_open+0x1/0x2\n"
UAF_TITLE = "KASAN: use-after-free in vfio_group_fops_open"


def record(
    name: str, verdict: Verdict = Verdict.KEPT, message: str = "", *, rule: str | None = "OWN-3"
) -> TestRecord:
    """One in the mode iommufd."""
    id_ = f"tests/contract/test_ownership.py::{name}[iommufd]"
    return TestRecord(id_, "contract", verdict, 1.0, rule, Mode.IOMMUFD, message)


def crash(name: str, text: str = UAF) -> TestRecord:
    """A test whose guest was lost to a report of the kernel's."""
    return replace(record(name, Verdict.GUEST_LOST, "the guest panicked"), splats=(text,))


@dataclass(frozen=True)
class Nights:
    """A history, and how nights get into it. By default each has a kernel of its own."""

    history: History

    def ran(
        self,
        night: str,
        *tests: TestRecord,
        cell: CellKey = CELL,
        key: str | None = "",
        lab: str = "",
        attempt: int = 0,
        trouble: Sequence[Trouble] = (),
    ) -> CellRun:
        """A cell ran, and said this; a `key` that is None is one that nobody knows."""
        folder = f"{night}/cells/{cell.kernel}-{attempt}"
        started = f"{night[:4]}-{night[4:6]}-{night[6:8]}T21:00:00Z"
        record = RunRecord(lab, started, 60.0, tests=tests, trouble=tuple(trouble))
        run = CellRun(
            night,
            cell,
            attempt,
            folder,
            started,
            60.0,
            record.status,
            release="6.12.57",
            kernel_key="" if key is None else key or f"kernel of {night}",
            source=f"at {night}",
            lab=lab,
        )
        self.history.add(run, record)
        return run

    def news(self, night: str, *planned: CellKey) -> tuple[News, ...]:
        """What is new about a night that should have run these cells."""
        return news_of(self.history, night, planned=planned or (CELL,))

    def one(self, night: str, *planned: CellKey) -> News:
        """The same where it is a single thing."""
        (found,) = self.news(night, *planned)
        return found


@pytest.fixture
def bare_url(tmp_path: Path) -> str:
    """Of a database without tables."""
    if server := os.environ.get(SERVER):
        _execute(server, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        return server
    return f"sqlite:///{tmp_path}/history.sqlite3"


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Of a database without a night."""
    if server := os.environ.get(SERVER):
        with History.opened(server):
            pass
        _execute(server, f"TRUNCATE {', '.join(metadata.tables)} CASCADE")
        return server
    return str(request.getfixturevalue("bare_url"))


def _execute(server: str, *statements: str) -> None:
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history without a night, which takes longer to make than to copy."""
    file = tmp_path_factory.mktemp("history") / "history.sqlite3"
    with History.opened(f"sqlite:///{file}"):
        pass
    return file


@pytest.fixture
def history(empty: Path, url: str) -> Iterator[History]:
    if SERVER not in os.environ:
        shutil.copy(empty, url.removeprefix("sqlite:///"))
    with History.opened(url) as opened:
        yield opened


@pytest.fixture
def nights(history: History) -> Nights:
    return Nights(history)
