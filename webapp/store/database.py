"""The database behind the store: SQLite in the data folder, or any that a URL names; migrated when it is opened."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from .models import Base

MIGRATIONS = Path(__file__).with_name("migrations")
# The revision of databases that were made before there were migrations.
FIRST_REVISION = "0001"
# Any number will do, as long as every process of this project takes the same.
WRITER_LOCK = 0x66726163
LONGEST_WAIT_S = 10
# Waits come first, since the others may have to wait. SQLite would else lose what was answered in a power cut, forget
# the cascade, and leave what was deleted in the file.
PRAGMAS = (
    f"busy_timeout = {LONGEST_WAIT_S * 1000}",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
)

log = logging.getLogger(__name__)


class StoreError(ValueError):
    """The data folder or the database cannot be used; the message names it and says why."""


class StoreUnavailable(RuntimeError):
    """The store failed at a request: a full disk, a locked or vanished database. The next one may succeed."""


class Database:
    """Sessions on the database at `url`. Thread-safe. Raises StoreError when it cannot be opened.

    Writers come one after the other, also those of other processes, since each may add to one chain of the audit log.
    """

    def __init__(self, url: str) -> None:
        self._migrating, self._writer = threading.Lock(), threading.Lock()
        try:
            self._engine = create_engine(_with_driver(make_url(url)), pool_pre_ping=True, **_options(url))
            self._file = Path(self._engine.url.database or "") if self._is_sqlite else None
            if self._is_sqlite:
                event.listen(self._engine, "connect", _prepare_sqlite)
                event.listen(self._engine, "begin", _begin_sqlite)
            self._migrate()
        except (SQLAlchemyError, CommandError, ModuleNotFoundError, ValueError) as error:
            # Without what it says of itself: that may be the address with its password.
            reason = str(error) if isinstance(error, CommandError) else type(error).__name__
            reason = str(error.orig) if isinstance(error, DBAPIError) else reason
            raise StoreError(f"{_place_of(url)} cannot be used ({reason}); see FRACTURE_DATABASE_URL") from None

    @property
    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session to read with. Raises StoreUnavailable."""
        with self._session(immediate=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session whose changes are kept when the block ends well. Raises StoreUnavailable."""
        if not self._writer.acquire(timeout=LONGEST_WAIT_S):
            raise StoreUnavailable(f"another writer has been at the database for more than {LONGEST_WAIT_S} s")
        try:
            with self._written() as session:
                yield session
        finally:
            self._writer.release()

    @contextmanager
    def _written(self) -> Iterator[Session]:
        with self._session(immediate=True) as session:
            if self._engine.dialect.name == "postgresql":
                session.execute(text(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"))
            yield session
            session.commit()

    def forget(self) -> None:
        """Make SQLite's log let go of what was deleted; with `secure_delete`, nothing of it is left in the file."""
        if not self._is_sqlite:
            return
        try:
            with self._engine.connect() as connection:
                connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (SQLAlchemyError, sqlite3.Error) as error:  # a reader is at it; the next deletion takes it along
            log.warning("The database's log could not be shortened: %s", reason_of(error))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _session(self, *, immediate: bool) -> Iterator[Session]:
        self._bring_back()
        try:
            with self._engine.connect() as connection, Session(connection, expire_on_commit=False) as session:
                connection.execution_options(immediate=immediate)
                yield session
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"the database failed: {reason_of(error)}") from error

    def _bring_back(self) -> None:
        """Make the tables anew when the file of SQLite is gone: open connections would write into the void."""
        if self._file is None or self._file.exists():
            return
        with self._migrating:
            if self._file.exists():
                return
            log.error("The database %s has vanished; an empty one is made. What it held is lost.", self._file.name)
            self._engine.dispose()
            for leftover in ("-wal", "-shm"):
                self._file.with_name(self._file.name + leftover).unlink(missing_ok=True)
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._migrate()
            except (OSError, SQLAlchemyError) as error:
                raise StoreUnavailable(f"the database has vanished and cannot be made anew: {error}") from error

    def _migrate(self) -> None:
        with self._engine.connect() as connection:
            if self._engine.dialect.name == "postgresql":  # another process may start at the same time
                connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"))
            config = alembic_config(connection)
            tables = set(inspect(connection).get_table_names())
            if "predictions" in tables and "alembic_version" not in tables:
                command.stamp(config, FIRST_REVISION)
            command.upgrade(config, "head")
            connection.commit()


def alembic_config(connection: Connection) -> Config:
    """Return what Alembic needs to work on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["metadata"] = Base.metadata
    return config


def reason_of(error: BaseException) -> object:
    """Return what the driver said, without SQLAlchemy's statement, whose values do not belong into a log."""
    return getattr(error, "orig", None) or type(error).__name__


def _options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {}
    options: dict[str, Any] = {"pool_size": 10, "max_overflow": 20, "pool_timeout": LONGEST_WAIT_S}
    if url.startswith("postgres"):
        limits = f"-c lock_timeout={LONGEST_WAIT_S}s -c statement_timeout=60s"
        options["connect_args"] = {"connect_timeout": 5, "options": limits}
    return options


def _with_driver(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _place_of(url: str) -> str:
    """Name a database without user and password, wherever in the address these stand."""
    try:
        known = make_url(url)
    except (SQLAlchemyError, ValueError):
        return "the database"
    return f"the database {known.database}" if known.host is None else f"the database {known.database} on {known.host}"


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions later than SQLAlchemy says
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    _log_ahead(cursor)
    cursor.close()


def _log_ahead(cursor: Any) -> None:
    """Let readers go on beside a writer. SQLite does not wait for whoever else changes a new file over to this."""
    give_up = time.monotonic() + LONGEST_WAIT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # Its numbers are told from Python 3.11 on.
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # A writer that begins as a reader fails at once when another one was quicker, however long it would wait.
    writes = connection.get_execution_options().get("immediate", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
