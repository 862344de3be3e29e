"""A database as it is, without a migration or any other write: of a running page, or a backup on a read-only disk."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import Engine, NullPool, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from .database import StoreError, StoreUnavailable, describe, postgresql_options, reason_of, with_driver


@contextmanager
def reading_only(url: str) -> Iterator[Session]:
    """Yield a session that can write nothing. Raises StoreError where there is no database, or StoreUnavailable."""
    with ExitStack() as stack:
        try:
            engine = _sqlite(make_url(url).database or "", stack) if url.startswith("sqlite") else _server(url)
            stack.callback(engine.dispose)
            session = stack.enter_context(Session(stack.enter_context(engine.connect())))
        except (SQLAlchemyError, OSError, ValueError, ModuleNotFoundError) as error:
            raise StoreError(
                f"{describe(url)} cannot be read ({reason_of(error)}); see FRACTURE_DATABASE_URL"
            ) from None
        try:
            yield session
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"the database failed: {reason_of(error)}") from error


def _server(url: str) -> Engine:
    options = postgresql_options() if url.startswith("postgres") else {}
    if options:
        options["connect_args"]["options"] += " -c default_transaction_read_only=on -c statement_timeout=0"
    return create_engine(with_driver(make_url(url)), poolclass=NullPool, connect_args=options.get("connect_args", {}))


def _sqlite(name: str, stack: ExitStack) -> Engine:
    """Open SQLite's file read-only.

    Without a write-ahead log nobody has it open, and it can be opened as immutable. With one and its index somebody
    has, and readers write nothing. A log without its index, as in a copy of both, makes SQLite write: it gets a copy.
    """
    file = Path(name)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    log, index = file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")
    mode = "mode=ro"
    if not log.exists() or (not log.stat().st_size and not index.exists()):
        mode += "&immutable=1"
    elif not index.exists():
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fracture-")))
        for source in (file, log):
            shutil.copyfile(source, folder / source.name)
        file, mode = folder / file.name, "mode=rw"
    uri = f"{file.absolute().as_uri()}?{mode}"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)
