"""The audit log: who did what when. Each line is signed together with the hash of the previous one."""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from .audit_chain import (
    GENESIS_HASH,
    HEAD_FILE,
    AuditError,
    AuditReader,
    Chain,
    Head,
    Verified,
    audit_rows,
    line_hash,
    read_head,
)
from .audit_keys import AuditKeys, write_private
from .database import Database, StoreError, StoreUnavailable
from .models import AuditRow

# Who acts where no user does; no user may have these names.
NOBODY, RETENTION, PACS = "nobody", "retention", "pacs"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditEntry:
    """One action to record. `subject` is a random identifier or a user's name, never anything about a patient."""

    actor: str
    action: str
    subject: str | None = None
    input_sha256: str | None = None
    model_sha256: str | None = None
    result_sha256: str | None = None


class AuditLog(AuditReader):
    """The log in `database`, with its keys and its head in `folder`; see AuditReader.

    A head that is missing or does not match the log is never written, so that later lines cannot hide the tampering.
    """

    def __init__(self, database: Database, folder: Path, former_head: Path, setting: str | None = None) -> None:
        super().__init__(folder, former_head, setting)
        self._database = database
        self._last_keys = AuditKeys(())

    def prepare(self) -> None:
        """Make the first key and the first head. Raises StoreError where the folder cannot be used."""
        try:
            self._last_keys = self.keys()
            if self._last_keys.secrets and self._head_file.exists():
                return
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.chmod(0o700)
            with self._database.writing() as session, self._locked():
                is_first = not self.keys().secrets
                keys = self._key_file.propose() if is_first else self.keys()
                if not self._head_file.exists() and (is_first or self._fixed_keys is not None):
                    self._begin(session, keys)
                if is_first:
                    self._key_file.accept()
            self._last_keys = keys
        except (OSError, AuditError, StoreUnavailable) as error:
            reason = getattr(error, "strerror", None) or error
            raise StoreError(
                f"the folder {self._folder} for the audit log's key cannot be used ({reason}); see FRACTURE_AUDIT_DIR"
            ) from error

    def rotate_key(self, *, by: str) -> str:
        """Sign with a new key from now on, and return its name. Raises AuditError where the setting has the key."""
        if self._fixed_keys is not None:
            raise AuditError("FRACTURE_AUDIT_KEY is set: put the new key before the former ones, separated by a comma")
        try:
            with self._database.writing() as session:  # so that the former key signs no line after the new one
                keys = self._key_file.propose()
                self._key_file.accept()
                self.add(session, AuditEntry(by, "rotate audit key", keys.names[-1]))
        except OSError as error:
            raise AuditError(f"the key cannot be written: {error.strerror}") from error
        return keys.names[-1]

    def add(self, session: Session, entry: AuditEntry) -> None:
        """Record `entry` in the writing transaction of `session`: both are committed, or neither."""
        last = session.scalars(select(AuditRow).order_by(AuditRow.number.desc()).limit(1)).first()
        row = AuditRow(
            number=1 if last is None else last.number + 1,
            at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            **vars(entry),
        )
        keys = self._signing_keys()
        row.key = keys.names[-1]
        row.hash = line_hash(row, GENESIS_HASH if last is None else last.hash, keys)
        head = self._trusted_head(session)
        if head is not None:
            new_head = Head(row.number, row.hash, head.signed_from).signed(keys)
            event.listen(session, "after_commit", lambda _: self._write_head(new_head), once=True)
        session.add(row)
        session.flush()

    def record(self, entry: AuditEntry) -> None:
        """Record `entry` in a transaction of its own. Raises StoreUnavailable."""
        with self._database.writing() as session:
            self.add(session, entry)

    def verify(self) -> Verified:
        """Verify the whole log. Raises AuditError at the first line that was changed, added, removed or moved."""
        with self._database.reading() as session:
            return self.verify_in(session)

    def _signing_keys(self) -> AuditKeys:
        """Return the keys, or where they are gone those of before: no result is lost for that, and verify finds it."""
        try:
            if (keys := self.keys()).secrets:
                self._last_keys = keys
                return keys
            log.critical("The key of the audit log is missing")
        except AuditError as error:
            log.critical("%s", error)
        return self._last_keys

    def _begin(self, session: Session, keys: AuditKeys) -> None:
        """Make the first head, for the log as it is, unless that was tampered with."""
        rows = list(audit_rows(session))
        if any(row.key is not None for row in rows):
            log.critical("%s is missing, although the audit log was signed", HEAD_FILE)
            return
        try:
            former = read_head(self._former_head)
            chain = Chain(keys, GENESIS_HASH, None)
            for row in rows:
                chain.check(row)
            lines = {(row.number, row.hash) for row in rows}
            if former is not None and former.number and (former.number, former.hash) not in lines:
                raise AuditError(f"the audit log has {len(rows)} lines, {HEAD_FILE} names line {former.number}")
        except AuditError as error:
            log.critical("The audit log was tampered with before it was signed: %s", error)
            return
        last = rows[-1] if rows else None
        number, last_hash = (0, GENESIS_HASH) if last is None else (last.number, last.hash)
        head = Head(number, last_hash, number + 1).signed(keys)
        write_private(self._head_file, json.dumps(vars(head)).encode())

    def _trusted_head(self, session: Session) -> Head | None:
        """Return the head if it matches the log, and what was written since was signed; else say why not."""
        try:
            head = self.head()
            if head is None or not head.key:
                raise AuditError(f"{HEAD_FILE} is missing")
            known = session.get(AuditRow, head.number)
            if head.number and (known is None or known.hash != head.hash):
                raise AuditError(f"{HEAD_FILE} names line {head.number}, which the audit log does not have")
            later = select(AuditRow).where(AuditRow.number > head.number).order_by(AuditRow.number)
            chain = Chain(self.keys(), head.hash, head.signed_from, after=head)
            for row in session.scalars(later):
                chain.check(row)
        except AuditError as error:
            log.critical("%s", error)
            return None
        return head

    def _write_head(self, head: Head) -> None:
        """Record the last line. The transaction is committed, so nothing is raised; verify allows for a lag."""
        try:
            with self._locked():
                current = self.head()
                if current is None or head.number <= current.number:
                    return
                write_private(self._head_file, json.dumps(vars(head)).encode())
        except (OSError, AuditError) as error:
            log.error("The head of the audit log could not be written: %s", error)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the head against other processes."""
        with self._head_file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
