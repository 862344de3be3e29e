"""The database of the store: SQLite in the data folder or the one at a URL, migrated when it is opened."""

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
# The revision of databases created before there were migrations.
FIRST_REVISION = "0001"
# Arbitrary, but the same in every process of this project.
WRITER_LOCK = 0x66726163
LOCK_TIMEOUT_S = 10
# busy_timeout comes first, since the others may have to wait. By default SQLite may lose committed rows in a power
# cut, ignores cascades, and leaves deleted data in the file.
PRAGMAS = (
    f"busy_timeout = {LOCK_TIMEOUT_S * 1000}",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
)

log = logging.getLogger(__name__)


class StoreError(ValueError):
    """The data folder or the database cannot be used; the message says which and why."""


class StoreUnavailable(RuntimeError):
    """The store failed during a request: a full disk, a locked or missing database. The next one may succeed."""


class Database:
    """Sessions on the database at `url`. Thread-safe. Raises StoreError when it cannot be opened.

    Writers are serialised, also across processes, since each may append to the one chain of the audit log.
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
            # Not the error's own text, which may contain the URL with its password.
            reason = str(error) if isinstance(error, CommandError) else type(error).__name__
            reason = str(error.orig) if isinstance(error, DBAPIError) else reason
            raise StoreError(f"{_describe(url)} cannot be used ({reason}); see FRACTURE_DATABASE_URL") from None

    @property
    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session for reading. Raises StoreUnavailable."""
        with self._session(immediate=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session that is committed when the block ends without an exception. Raises StoreUnavailable."""
        if not self._writer.acquire(timeout=LOCK_TIMEOUT_S):
            raise StoreUnavailable(f"another writer has held the database for more than {LOCK_TIMEOUT_S} s")
        try:
            with self._write_transaction() as session:
                yield session
        finally:
            self._writer.release()

    @contextmanager
    def _write_transaction(self) -> Iterator[Session]:
        with self._session(immediate=True) as session:
            if self._engine.dialect.name == "postgresql":
                session.execute(text(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"))
            yield session
            session.commit()

    def purge_deleted(self) -> None:
        """Truncate SQLite's write-ahead log, so that with `secure_delete` no deleted data is left on disk."""
        if not self._is_sqlite:
            return
        try:
            with self._engine.connect() as connection:
                connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (SQLAlchemyError, sqlite3.Error) as error:  # a reader holds it; the next deletion truncates it
            log.warning("The database's write-ahead log could not be truncated: %s", reason_of(error))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _session(self, *, immediate: bool) -> Iterator[Session]:
        self._recreate_if_missing()
        try:
            with self._engine.connect() as connection, Session(connection, expire_on_commit=False) as session:
                connection.execution_options(immediate=immediate)
                yield session
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"the database failed: {reason_of(error)}") from error

    def _recreate_if_missing(self) -> None:
        """Create the tables again when SQLite's file is gone, since open connections would write to a deleted file."""
        if self._file is None or self._file.exists():
            return
        with self._migrating:
            if self._file.exists():
                return
            log.error("The database %s is missing; an empty one is created. Its contents are lost.", self._file.name)
            self._engine.dispose()
            for leftover in ("-wal", "-shm"):
                self._file.with_name(self._file.name + leftover).unlink(missing_ok=True)
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._migrate()
            except (OSError, SQLAlchemyError) as error:
                raise StoreUnavailable(f"the database is missing and cannot be created again: {error}") from error

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
    """Return the Alembic configuration for an open connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["metadata"] = Base.metadata
    return config


def reason_of(error: BaseException) -> object:
    """Return the driver's error without SQLAlchemy's statement, whose values do not belong in a log."""
    return getattr(error, "orig", None) or type(error).__name__


def _options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {}
    options: dict[str, Any] = {"pool_size": 10, "max_overflow": 20, "pool_timeout": LOCK_TIMEOUT_S}
    if url.startswith("postgres"):
        limits = f"-c lock_timeout={LOCK_TIMEOUT_S}s -c statement_timeout=60s"
        options["connect_args"] = {"connect_timeout": 5, "options": limits}
    return options


def _with_driver(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _describe(url: str) -> str:
    """Describe a database without its user and password, wherever these are in the URL."""
    try:
        known = make_url(url)
    except (SQLAlchemyError, ValueError):
        return "the database"
    return f"the database {known.database}" if known.host is None else f"the database {known.database} on {known.host}"


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions later than SQLAlchemy asks
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    _enable_write_ahead_log(cursor)
    cursor.close()


def _enable_write_ahead_log(cursor: Any) -> None:
    """Let readers run beside a writer. SQLite ignores busy_timeout while another process switches a new file."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # Python 3.10 has no error codes here.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that starts reading and then writes fails at once if another one wrote first, despite busy_timeout.
    writes = connection.get_execution_options().get("immediate", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
