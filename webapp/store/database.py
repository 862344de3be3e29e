"""The database of the store: SQLite in the data folder or the one at a URL, migrated when it is opened."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, create_engine, event, inspect, make_url, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from .models import AuditRow, Base, PredictionRow

MIGRATIONS = Path(__file__).with_name("migrations")
# The revision of databases created before there were migrations.
FIRST_REVISION = "0001"
# Arbitrary, but the same in every process of this project.
WRITER_LOCK = 0x66726163
LOCK_TIMEOUT_S = 10
# Less free space than this counts as a full disk.
RESERVE_BYTES = 256 * 1024
# After PostgreSQL has not responded, it is asked again only after this time, so that requests do not all wait for it.
RETRY_S = 2.0
# SQLite's quick check reads the whole file: how often, and for how long at most, since the audit log grows for ever.
FULL_CHECK_EVERY_S, FULL_CHECK_S = 60.0, 1.0
# busy_timeout comes first, since the others may have to wait. By default SQLite may lose committed rows in a power
# cut, ignores cascades, and leaves deleted data in the file.
PRAGMAS = (
    f"busy_timeout = {LOCK_TIMEOUT_S * 1000}",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
)

# A result that is never committed.
TRIAL = {
    **dict.fromkeys(("id", "owner", "finding", "model", "input_sha256", "result_sha256"), ""),
    **{"created_at": 0.0, "height": 0, "width": 0, "operating_score": 0.0, "possible_score": 0.0},
    **{"calibrated": False, "latency_ms": {}},
}

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
        self._silent_until = self._next_full_check = 0.0
        self._identity: tuple[int, int] | None = None
        try:
            self._engine = create_engine(with_driver(make_url(url)), pool_pre_ping=True, **_options(url))
            name = self._engine.url.database if self._is_sqlite else None
            self._file = Path(name) if name and name != ":memory:" else None
            if self._is_postgresql:
                event.listen(self._engine, "do_connect", _connect_postgresql)
            if self._is_sqlite:
                event.listen(self._engine, "connect", _prepare_sqlite)
                event.listen(self._engine, "begin", _begin_sqlite)
            self._migrate()
        except (SQLAlchemyError, CommandError, ModuleNotFoundError, ValueError) as error:
            # Not the error's own text, which may contain the URL with its password.
            reason = str(error) if isinstance(error, CommandError) else type(error).__name__
            reason = str(error.orig) if isinstance(error, DBAPIError) else reason
            raise StoreError(f"{describe(url)} cannot be used ({reason}); see FRACTURE_DATABASE_URL") from None

    @property
    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @property
    def _is_postgresql(self) -> bool:
        return self._engine.dialect.name == "postgresql"

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
            if self._is_postgresql:
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

    def check(self) -> None:
        """Raise StoreUnavailable while nothing could be stored: this stores a result that it takes back."""
        try:
            if self._file is not None:
                reserve(self._file.parent)
                self._reopen_if_replaced()
                self._check_file(self._file)
            with self.writing() as session:
                session.scalars(select(AuditRow).order_by(AuditRow.number.desc()).limit(1)).first()
                savepoint = session.begin_nested()
                session.add(PredictionRow(**TRIAL))
                session.flush()
                savepoint.rollback()
                # Committed: without a commit nothing may have been written yet.
                session.execute(text("UPDATE alembic_version SET version_num = version_num"))
        except OSError as error:
            raise StoreUnavailable(f"the folder of the database cannot be written: {error.strerror}") from error
        except StoreUnavailable as error:
            if self._is_sqlite:
                raise
            # PostgreSQL's own words may name hosts and users, and anybody may read a probe.
            raise StoreUnavailable("the database cannot be used") from error

    def _check_file(self, file: Path) -> None:
        """Look at SQLite's file with a connection of its own; the others may have what was in it in their caches."""
        is_full = time.monotonic() >= self._next_full_check
        deadline = time.monotonic() + FULL_CHECK_S
        damage = None
        try:
            uri = f"{file.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, timeout=FULL_CHECK_S)) as connection:
                connection.execute("SELECT version_num FROM alembic_version").fetchone()
                if is_full:
                    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
                    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                    damage = None if found == "ok" else found
        except sqlite3.Error as error:
            damage = None if "interrupted" in str(error) or "locked" in str(error) else str(error)
        if damage is not None:
            self._next_full_check = 0.0
            self._engine.dispose()  # nothing shall be stored from those caches
            raise StoreUnavailable("the database is damaged") from sqlite3.DatabaseError(damage)
        if is_full:
            self._next_full_check = time.monotonic() + FULL_CHECK_EVERY_S

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _session(self, *, immediate: bool) -> Iterator[Session]:
        self._reopen_if_replaced()
        if time.monotonic() < self._silent_until:
            raise StoreUnavailable("the database did not respond a moment ago")
        try:
            with self._engine.connect() as connection, Session(connection, expire_on_commit=False) as session:
                connection.execution_options(immediate=immediate)
                yield session
        except (SQLAlchemyError, OSError) as error:
            # What the server reports has a SQLSTATE; without one it did not respond, or there is not even a connection.
            if self._is_postgresql and isinstance(error, DBAPIError) and not getattr(error.orig, "sqlstate", None):
                self._silent_until = time.monotonic() + RETRY_S
            raise StoreUnavailable(f"the database failed: {reason_of(error)}") from error

    def _reopen_if_replaced(self) -> None:
        """Open SQLite's file again when it is gone or another one, since open connections would write to the old one.

        Where it is gone, an empty one is created.
        """
        if self._file is None or _identity(self._file) == self._identity:
            return
        with self._migrating:
            identity = _identity(self._file)
            if identity == self._identity:
                return
            what = "missing; an empty one is created" if identity is None else "another file; it is opened"
            log.error("The database %s is %s. What the former one held is lost.", self._file.name, what)
            self._engine.dispose()
            for leftover in ("-wal", "-shm"):
                self._file.with_name(self._file.name + leftover).unlink(missing_ok=True)
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._migrate()
            except (OSError, SQLAlchemyError) as error:
                raise StoreUnavailable(f"the database cannot be opened again: {reason_of(error)}") from error

    def _migrate(self) -> None:
        with self._engine.connect() as connection:
            if self._is_postgresql:  # another process may start at the same time
                _allow_migration(connection)
                connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"))
            config = alembic_config(connection)
            tables = set(inspect(connection).get_table_names())
            if "predictions" in tables and "alembic_version" not in tables:
                command.stamp(config, FIRST_REVISION)
            command.upgrade(config, "head")
            connection.commit()
            if self._is_postgresql:
                connection.invalidate()  # it alone has the patience that a migration needs
        self._identity = None if self._file is None else _identity(self._file)


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
    if url.startswith("postgres"):
        return postgresql_options()
    return {} if url.startswith("sqlite") else {"pool_size": 10, "max_overflow": 20, "pool_timeout": LOCK_TIMEOUT_S}


def postgresql_options() -> dict[str, Any]:
    """Return the options of an engine for PostgreSQL, a copy of its own."""
    from .postgresql import OPTIONS

    return deepcopy(OPTIONS)


def _connect_postgresql(_dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    from .postgresql import LimitedConnection

    return LimitedConnection.connect(*arguments, **options)


def _allow_migration(connection: Connection) -> None:
    from .postgresql import MIGRATION_S

    connection.connection.dbapi_connection.response_s = MIGRATION_S  # type: ignore[union-attr]
    for limit in ("lock_timeout", "statement_timeout"):
        connection.execute(text(f"SET LOCAL {limit} = '{MIGRATION_S}s'"))


def _identity(file: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same name, or None where there is none."""
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # which does not mean that it is gone
        raise StoreUnavailable(f"the database failed: {error.strerror}") from error
    return status.st_dev, status.st_ino


def reserve(folder: Path) -> None:
    """Check that a small file can be written in `folder` and deleted. Raises OSError."""
    path = folder / f".check-{os.getpid()}"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    path.unlink()


def with_driver(url: URL) -> URL:
    """Return the URL with the driver that is installed."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def describe(url: str) -> str:
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
