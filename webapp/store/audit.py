"""The audit log: who did what when, each line chained to the one before by its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from webapp.store.database import Database
from webapp.store.tables import AuditRow

FIRST = "0" * 64
HEAD_FILE = "audit_head.json"
COLUMNS = ("number", "at", "actor", "action", "subject", "input_sha256", "model_sha256", "result_sha256")


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
    """The log in `database`. `head_file` notes its last line as well, so that lines cut off its end are missed."""

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
        before = FIRST if last is None else last.hash
        row.hash = _hash(row, before)
        session.add(row)
        session.flush()
        head = {"number": row.number, "hash": row.hash}
        event.listen(session, "after_commit", lambda _: self._note(head), once=True)

    def record(self, act: Act) -> None:
        """Record `act` in a transaction of its own. Raises StoreUnavailable."""
        with self._database.writing() as session:
            self.add(session, act)

    def verify(self) -> tuple[int, str]:
        """Return the number of lines and the hash of the last one.

        Raises AuditError at the first line that was changed, added, taken away or moved.
        """
        before, last, count = FIRST, FIRST, 0
        with self._database.reading() as session:
            for row in session.scalars(select(AuditRow).order_by(AuditRow.number).execution_options(yield_per=1000)):
                count += 1
                if row.number != count:
                    raise AuditError(f"line {count} of the audit log is missing; line {row.number} follows")
                if row.hash != _hash(row, last):
                    raise AuditError(f"line {count} of the audit log ({row.at}) was changed after it was written")
                before, last = last, row.hash
        self._check_head(count, last, before)
        return count, last

    def _check_head(self, count: int, last: str, before: str) -> None:
        head = self._head()
        # A process that was killed between the commit and the note leaves a log that is one line longer.
        if (head["number"], head["hash"]) not in ((count, last), (count - 1, before)):
            raise AuditError(f"the audit log has {count} lines, {self._head_file.name} names line {head['number']}")

    def _head(self) -> dict[str, Any]:
        if not self._head_file.exists():
            return {"number": 0, "hash": FIRST}
        found: dict[str, Any] = json.loads(self._head_file.read_text(encoding="utf-8"))
        return found

    def _note(self, head: dict[str, Any]) -> None:
        if head["number"] <= self._head()["number"]:  # another process was quicker
            return
        fresh = self._head_file.with_suffix(".new")
        fresh.write_text(json.dumps(head), encoding="utf-8")
        fresh.replace(self._head_file)


def _hash(row: AuditRow, before: str) -> str:
    content = json.dumps([before, *(getattr(row, name) for name in COLUMNS)], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()
