"""Connections to PostgreSQL that give up on a server that has stopped responding, which libpq itself never does."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

# What the server enforces itself comes before the client gives up: another writer's lock, one statement.
LOCK_S, STATEMENT_S = 4, 5
# How long the client waits: for a connection (libpq's minimum), a free one of the pool, a ping, and a statement.
CONNECT_S, POOL_S, PING_S, RESPONSE_S = 2, 3, 2.0, 6.0
# Migrations may rewrite tables and wait for those of another process.
MIGRATION_S = 600

OPTIONS: dict[str, Any] = {
    "pool_size": 10,
    "max_overflow": 20,
    "pool_timeout": POOL_S,
    "connect_args": {
        "connect_timeout": CONNECT_S,
        "options": f"-c lock_timeout={LOCK_S}s -c statement_timeout={STATEMENT_S}s",
    },
}

Result = TypeVar("Result")


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that closes itself when the server does not respond in time, frozen or out of reach.

    Timeouts of the server and TCP keepalives do not help there: the one is frozen too, and its kernel still responds.
    """

    response_s = RESPONSE_S

    def wait(self, gen: Generator[Any, Any, Result], *args: Any, **kwargs: Any) -> Result:
        """Run an operation of psycopg. Raises psycopg.OperationalError when the server takes too long."""
        limit_s = PING_S if self.autocommit else self.response_s  # only SQLAlchemy's pings are in autocommit
        try:
            return super().wait(_limited(gen, limit_s), *args, **kwargs)
        except TimeoutError:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not responded for {limit_s:g} s") from None


def _limited(operation: Generator[Any, Any, Result], limit_s: float) -> Generator[Any, Any, Result]:
    """Pass everything through, as long as something arrives within `limit_s`. Raises TimeoutError."""
    deadline = time.monotonic() + limit_s
    try:
        wanted = next(operation)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:  # nothing, after one of psycopg's intervals
                raise TimeoutError
            wanted = operation.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
