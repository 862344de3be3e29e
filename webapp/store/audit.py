"""The audit log: who did what when; each line is chained to the previous one by its hash."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from .database import Database
from .models import AuditRow

GENESIS_HASH = "0" * 64
HEAD_FILE = "audit_head.json"
# Who acts where no user does; no user may have these names.
NOBODY, RETENTION = "nobody", "retention"
COLUMNS = ("number", "at", "actor", "action", "subject", "input_sha256", "model_sha256", "result_sha256")
log = logging.getLogger(__name__)


class AuditError(ValueError):
    """The audit log was tampered with; the message names the first wrong line."""


@dataclass(frozen=True)
class AuditEntry:
    """One action to record. `subject` is a random identifier or a user's name, never anything about a patient."""

    actor: str
    action: str
    subject: str | None = None
    input_sha256: str | None = None
    model_sha256: str | None = None
    result_sha256: str | None = None


class AuditLog:
    """The log in `database`. `head_file` records its last line too, so that lines removed from its end are noticed.

    A head that no longer matches the log is never overwritten, so that later lines cannot hide the tampering.
    """

    def __init__(self, database: Database, head_file: Path) -> None:
        self._database, self._head_file = database, head_file

    def add(self, session: Session, entry: AuditEntry) -> None:
        """Record `entry` in the writing transaction of `session`: both are committed, or neither."""
        last = session.scalars(select(AuditRow).order_by(AuditRow.number.desc()).limit(1)).first()
        row = AuditRow(
            number=1 if last is None else last.number + 1,
            at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            **vars(entry),
        )
        row.hash = _hash(row, GENESIS_HASH if last is None else last.hash)
        if self._head_matches(session):
            head = {"number": row.number, "hash": row.hash}
            event.listen(session, "after_commit", lambda _: self._write_head(head), once=True)
        session.add(row)
        session.flush()

    def record(self, entry: AuditEntry) -> None:
        """Record `entry` in a transaction of its own. Raises StoreUnavailable."""
        with self._database.writing() as session:
            self.add(session, entry)

    def verify(self) -> tuple[int, str]:
        """Return the number of lines and the hash of the last one.

        Raises AuditError at the first line that was changed, added, removed or moved.
        """
        last, count = GENESIS_HASH, 0
        head = self._head()
        is_known = head["number"] == 0
        with self._database.reading() as session:
            for row in session.scalars(select(AuditRow).order_by(AuditRow.number).execution_options(yield_per=1000)):
                count += 1
                if row.number != count:
                    raise AuditError(f"line {count} of the audit log is missing; line {row.number} follows")
                if row.hash != _hash(row, last):
                    raise AuditError(f"line {count} of the audit log ({row.at}) was changed after it was written")
                last = row.hash
                is_known = is_known or (row.number, row.hash) == (head["number"], head["hash"])
        # A process killed between the commit and the write of the head leaves a log longer than its head says.
        if not is_known or (count and not head["number"]):
            raise AuditError(f"the audit log has {count} lines, {self._head_file.name} names line {head['number']}")
        return count, last

    def _head_matches(self, session: Session) -> bool:
        try:
            head = self._head()
        except AuditError as error:
            log.critical("%s", error)
            return False
        head_row = session.get(AuditRow, head["number"])
        is_first = head["number"] == 0 and session.get(AuditRow, 1) is None
        if is_first or (head_row is not None and head_row.hash == head["hash"]):
            return True
        log.critical("%s names line %d, which the audit log does not have", self._head_file.name, head["number"])
        return False

    def _head(self) -> dict[str, Any]:
        if not self._head_file.exists():
            return {"number": 0, "hash": GENESIS_HASH}
        try:
            head = json.loads(self._head_file.read_text(encoding="utf-8"))
            return {"number": int(head["number"]), "hash": str(head["hash"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AuditError(f"{self._head_file.name} cannot be read: {error}") from error

    def _write_head(self, head: dict[str, Any]) -> None:
        """Record the last line. The transaction is committed, so nothing is raised; verify allows for a lag."""
        try:
            with self._head_file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another process may write it too
                if head["number"] <= self._head()["number"]:
                    return
                new_file = self._head_file.with_suffix(".new")
                with new_file.open("w", encoding="utf-8") as file:
                    json.dump(head, file)
                    file.flush()
                    os.fsync(file.fileno())
                new_file.replace(self._head_file)
        except (OSError, AuditError) as error:
            log.error("The head of the audit log could not be written: %s", error)


def _hash(row: AuditRow, previous_hash: str) -> str:
    content = json.dumps([previous_hash, *(getattr(row, name) for name in COLUMNS)], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()
