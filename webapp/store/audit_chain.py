"""The chain of the audit log, from the first line to the last, which is also recorded outside the database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import inspect, null, select
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.orm import Session

from .audit_keys import AuditKeys, KeyFile
from .models import AuditRow

GENESIS_HASH = "0" * 64
HEAD_FILE = "audit_head.json"
COLUMNS = ("number", "at", "actor", "action", "subject", "input_sha256", "model_sha256", "result_sha256")


class AuditError(ValueError):
    """The audit log was tampered with, or cannot be verified; the message names the first wrong line."""


class Verified(NamedTuple):
    """A log that is whole: its lines, the hash of the last, how many are of before there was a key, when it begins."""

    lines: int
    last_hash: str
    unsigned: int
    since: str | None


@dataclass(frozen=True)
class Head:
    """The last line as it is recorded outside the database, with the first line that must be signed."""

    number: int
    hash: str
    signed_from: int
    key: str = ""
    signature: str = ""

    @property
    def content(self) -> list[object]:
        """What is signed."""
        return ["head", self.number, self.hash, self.signed_from]

    def signed(self, keys: AuditKeys) -> Head:
        """Return it signed with the newest key."""
        name = keys.names[-1]
        return Head(self.number, self.hash, self.signed_from, name, keys.signature(name, self.content))


class AuditReader:
    """The keys and the head in `folder`, and what they say of a log. Writes nothing.

    setting: FRACTURE_AUDIT_KEY, which replaces the key file. former_head: where the head was before there were keys.
    """

    def __init__(self, folder: Path, former_head: Path, setting: str | None = None) -> None:
        self._folder, self._former_head, self._head_file = folder, former_head, folder / HEAD_FILE
        self._key_file = KeyFile(folder)
        self._fixed_keys = None if setting is None else AuditKeys.of_setting(setting)

    def verify_in(self, session: Session) -> Verified:
        """Verify the log that `session` sees. Raises AuditError at the first line changed, added, removed or moved."""
        head, keys = self.head(), self.keys()
        is_signed = head is not None and bool(head.key)
        chain = Chain(keys, GENESIS_HASH, head.signed_from if head is not None and is_signed else None)
        is_recorded = head is None or head.number == 0
        last, count, unsigned, since = GENESIS_HASH, 0, 0, None
        with closing(audit_rows(session)) as rows:  # the first wrong line ends it
            for row in rows:
                chain.check(row)
                count, last, unsigned = row.number, row.hash, unsigned + (row.key is None)
                since = since or row.at
                is_recorded = is_recorded or (head is not None and (row.number, row.hash) == (head.number, head.hash))
        # A process killed between the commit and the write of the head leaves a log longer than its head says.
        if head is not None and (not is_recorded or (count and not head.number and not is_signed)):
            raise AuditError(f"the audit log has {count} lines, {HEAD_FILE} names line {head.number}")
        # Whoever makes a key, or signs a line, has made a head.
        if not is_signed and (keys.secrets or unsigned < count):
            raise AuditError(f"the audit log is signed and has {count} lines, and {HEAD_FILE} is missing")
        if head is None and count:
            raise AuditError(f"the audit log has {count} lines, and {HEAD_FILE} is missing")
        return Verified(count, last, unsigned, since)

    def head(self) -> Head | None:
        """Return the head in `folder`, else the former one. Raises AuditError for one that no key of ours signed."""
        head = read_head(self._head_file)
        if head is None:
            return read_head(self._former_head)
        try:
            if head.signature == self.keys().signature(head.key, head.content):
                return head
        except KeyError:
            raise AuditError(f"{HEAD_FILE} was signed with the key {head.key or '(none)'}, which is not here") from None
        raise AuditError(f"{HEAD_FILE} was changed after it was written")

    def keys(self) -> AuditKeys:
        """Return the keys of the setting, else those of the file. Raises AuditError."""
        if self._fixed_keys is not None:
            return self._fixed_keys
        try:
            return self._key_file.read()
        except OSError as error:
            raise AuditError(f"the key of the audit log cannot be read: {error.strerror}") from error


class Chain:
    """Checks one line after the other, from the first or `after` a head.

    signed_from: the first that must be signed; None: all after a signed one.
    """

    def __init__(self, keys: AuditKeys, last_hash: str, signed_from: int | None, *, after: Head | None = None) -> None:
        self._keys, self._names = keys, keys.names
        self._last, self._signed_from = last_hash, signed_from
        self._number = 0 if after is None else after.number
        self._newest = -1 if after is None else self._names.index(after.key)

    def check(self, row: Any) -> None:
        """Check the next line. Raises AuditError."""
        self._number += 1
        if row.number != self._number:
            raise AuditError(f"line {self._number} of the audit log is missing; line {row.number} follows")
        line = f"line {row.number} of the audit log ({row.at})"
        if row.key is None:
            if self._newest >= 0 or (self._signed_from is not None and row.number >= self._signed_from):
                raise AuditError(f"{line} was changed or added by somebody without the key: it is not signed")
        elif row.key not in self._names:
            raise AuditError(f"{line} was signed with the key {row.key}, which is not here; see FRACTURE_AUDIT_KEY")
        elif (position := self._names.index(row.key)) < self._newest:
            raise AuditError(f"{line} was changed or added: it is signed with a key that was no longer in use")
        else:
            self._newest = position
        if row.hash != line_hash(row, self._last, self._keys):
            raise AuditError(f"{line} was changed after it was written, or added by somebody without the key")
        self._last = row.hash


def audit_rows(session: Session) -> Generator[Any, None, None]:
    """Yield the lines, also of a database of before lines had keys. Raises AuditError where there is no log."""
    try:
        columns = {column["name"] for column in inspect(session.connection()).get_columns(AuditRow.__tablename__)}
    except NoSuchTableError:
        raise AuditError("the database has no audit log") from None
    table = AuditRow.__table__
    key = table.c.key if "key" in columns else null().label("key")
    chosen = select(*(column for column in table.c if column.name != "key"), key).order_by(table.c.number)
    with session.execute(chosen.execution_options(yield_per=1000)) as rows:
        yield from rows


def read_head(path: Path) -> Head | None:
    """Return the head in a file, also one of before there were keys, or None. Raises AuditError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        number = int(content["number"])
        signed = {name: str(content.get(name, "")) for name in ("key", "signature")}
        return Head(number, str(content["hash"]), int(content.get("signed_from", number + 1)), **signed)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AuditError(f"{path.name} cannot be read: {error}") from error


def line_hash(row: Any, previous_hash: str, keys: AuditKeys) -> str:
    """Return the hash that a line must have. Raises KeyError for one signed with an unknown key."""
    content = [previous_hash, *(getattr(row, name) for name in COLUMNS)]
    if row.key is not None:
        return keys.signature(row.key, ["line", *content])
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()
