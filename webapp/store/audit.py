"""The audit log: who did what when, each line chained to the one before by its hash."""

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

FIRST = "0" * 64
HEAD_FILE = "audit_head.json"
COLUMNS = ("number", "at", "actor", "action", "subject", "input_sha256", "model_sha256", "result_sha256")
log = logging.getLogger(__name__)


class AuditError(ValueError):
    """The audit log is not as it was written; the message names the first line that is wrong."""


@dataclass(frozen=True)
class Act:
    """One act to be recorded. `subject` is a random identifier or a user's name, never anything of a patient."""

    actor: str
    action: str
    subject: str | None = None
    input_sha256: str | None = None
    model_sha256: str | None = None
    result_sha256: str | None = None


class AuditLog:
    """The log in `database`. `head_file` notes its last line as well, so that lines cut off its end are missed.

    A head that no longer fits the log stays as it is, an alarm that later lines do not cover.
    """

    def __init__(self, database: Database, head_file: Path) -> None:
        self._database, self._head_file = database, head_file

    def add(self, session: Session, act: Act) -> None:
        """Record `act` within the transaction of `session`, a writing one: both are kept, or neither."""
        last = session.scalars(select(AuditRow).order_by(AuditRow.number.desc()).limit(1)).first()
        row = AuditRow(
            number=1 if last is None else last.number + 1,
            at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            **vars(act),
        )
        row.hash = _hash(row, FIRST if last is None else last.hash)
        if self._head_fits(session):
            head = {"number": row.number, "hash": row.hash}
            event.listen(session, "after_commit", lambda _: self._note(head), once=True)
        session.add(row)
        session.flush()

    def record(self, act: Act) -> None:
        """Record `act` in a transaction of its own. Raises StoreUnavailable."""
        with self._database.writing() as session:
            self.add(session, act)

    def verify(self) -> tuple[int, str]:
        """Return the number of lines and the hash of the last one.

        Raises AuditError at the first line that was changed, added, taken away or moved.
        """
        last, count = FIRST, 0
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
        # A process that was killed between the commit and the note leaves a log that is longer than its head says.
        if not is_known or (count and not head["number"]):
            raise AuditError(f"the audit log has {count} lines, {self._head_file.name} names line {head['number']}")
        return count, last

    def _head_fits(self, session: Session) -> bool:
        try:
            head = self._head()
        except AuditError as error:
            log.critical("%s", error)
            return False
        noted = session.get(AuditRow, head["number"])
        is_first = head["number"] == 0 and session.get(AuditRow, 1) is None
        if is_first or (noted is not None and noted.hash == head["hash"]):
            return True
        log.critical("%s names line %d, which the audit log does not have", self._head_file.name, head["number"])
        return False

    def _head(self) -> dict[str, Any]:
        if not self._head_file.exists():
            return {"number": 0, "hash": FIRST}
        try:
            head = json.loads(self._head_file.read_text(encoding="utf-8"))
            return {"number": int(head["number"]), "hash": str(head["hash"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AuditError(f"{self._head_file.name} cannot be read: {error}") from error

    def _note(self, head: dict[str, Any]) -> None:
        """Note the last line. What it belongs to is committed, so nothing is raised: verify allows for a lag."""
        try:
            with self._head_file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be at it
                if head["number"] <= self._head()["number"]:
                    return
                fresh = self._head_file.with_suffix(".new")
                with fresh.open("w", encoding="utf-8") as file:
                    json.dump(head, file)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(self._head_file)
        except (OSError, AuditError) as error:
            log.error("The head of the audit log could not be noted: %s", error)


def _hash(row: AuditRow, before: str) -> str:
    content = json.dumps([before, *(getattr(row, name) for name in COLUMNS)], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()
