# SPDX-License-Identifier: GPL-2.0-only
"""The database that a history is in: found by its URL, and made fit for this lab's tables."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from lab.errors import ConfigurationError, InfrastructureError
from lab.history.schema import REVISION
from lab.results.folder import runs

FILE = "history.sqlite3"
WRITING = "lab_writing"  # the execution option of a connection that will write
_PATIENCE = 60.0  # seconds that one waits for another who writes
_UPGRADE = 0x7666696F  # PostgreSQL's name for the lock of who upgrades
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


@contextmanager
def database(url: str | None) -> Iterator[sa.Engine]:
    """An engine on it, with the newest tables; by default on a file of the user's state.

    Raises ConfigurationError for a URL of something else, and for a database of a newer lab;
    InfrastructureError where the database cannot be used, also from within the block.
    """
    place = _parsed(url)
    shown = place.render_as_string(hide_password=True)
    try:
        engine = _engine(place)
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"{shown}: {missing}", hint="pip install 'vfio-lab[postgres]'"
        ) from None
    try:
        _make_ready(engine, shown)
        yield engine
    except DBAPIError as error:
        raise InfrastructureError(f"{shown}: {error.orig}") from error
    finally:
        engine.dispose()


def _parsed(url: str | None) -> sa.URL:
    if url is None:
        folder = runs().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InfrastructureError(f"{folder}: {error.strerror}") from error
        return sa.URL.create("sqlite", database=str(folder / FILE))
    try:
        parsed = sa.make_url(url)
        dialect = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        raise ConfigurationError(f"history: {url!r} is no URL of a database") from None
    if dialect not in _DRIVERS or (dialect == "sqlite" and not parsed.database):
        raise ConfigurationError(
            f"history: {parsed.render_as_string()}: neither a file nor PostgreSQL",
            hint="sqlite:////PATH, or postgresql://USER@HOST/NAME",
        )
    return parsed.set(drivername=_DRIVERS[dialect])


def _engine(place: sa.URL) -> sa.Engine:
    if place.get_backend_name() != "sqlite":
        return sa.create_engine(place, pool_pre_ping=True)
    engine = sa.create_engine(place, connect_args={"timeout": _PATIENCE})
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # transactions are begun below, not by Python's guesses
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    # One that reads first and then wants to write is refused, not made to wait, where another has
    # written in between: who will write says so from the start.
    writing = connection.get_execution_options().get(WRITING)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _make_ready(engine: sa.Engine, shown: str) -> None:
    """Bring it to the newest tables. Raises InfrastructureError where its folder is not usable."""
    if engine.dialect.name == "postgresql":
        _upgrade(engine, shown)
        return
    # of several who open a new file at once, one gives it its write-ahead log
    try:
        with FileLock(f"{engine.url.database}.lock", timeout=_PATIENCE):
            _upgrade(engine, shown)
    except OSError as error:
        raise InfrastructureError(f"{shown}: {error.strerror or error}") from error


def _upgrade(engine: sa.Engine, shown: str) -> None:
    if _revision(engine) == REVISION:
        return
    from lab.history.migrations import upgrade  # noqa: PLC0415 (0.2 s, and seldom needed)

    with engine.connect().execution_options(**{WRITING: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE)))
        upgrade(connection, shown)
    engine.dispose()  # what SQLite knows of the tables it reads when it is connected


def _revision(engine: sa.Engine) -> str | None:
    """The migration that a database is at; None for one that is new."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return found
