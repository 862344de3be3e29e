"""Users with a password and a role, and their API tokens. Passwords and tokens are stored as argon2 hashes."""

from __future__ import annotations

import re
import secrets
import threading
import time
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select

from .audit import NOBODY, PACS, RETENTION, AuditEntry, AuditLog
from .database import Database
from .models import PredictionRow, ReadingRow, TokenRow, UserRow

READER, ADJUDICATOR, ADMIN = "reader", "adjudicator", "admin"
ROLES = (READER, ADJUDICATOR, ADMIN)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MIN_PASSWORD_LENGTH = 12
TOKEN_PREFIX = "fracture"


class AccountError(ValueError):
    """A user or a token cannot be created, found or changed; the message says which and why."""


@dataclass(frozen=True)
class Account:
    """A user as the views know it. A session holds the `stamp` too, which changes with the password."""

    name: str
    role: str
    stamp: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether the account may see and delete everybody's results."""
        return self.role == ADMIN

    @property
    def can_settle(self) -> bool:
        """Whether the account may see everybody's results and readings, and settle what readers disagree on."""
        return self.role in (ADJUDICATOR, ADMIN)


# The account of every request where there is no login: the person at this machine.
LOCAL = Account("local", ADMIN)
# In the audit log each of these means that no user acted.
RESERVED = (LOCAL.name, NOBODY, PACS, RETENTION)


@dataclass(frozen=True)
class TokenInfo:
    """What is stored about a token; the token itself is shown once, when it is created."""

    id: str
    user: str
    label: str
    created_at: float


class Accounts:
    """The users and tokens in `database`. Each change is recorded in the audit log. Raises StoreUnavailable."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database, self._audit = database, audit
        self._passwords = PasswordHasher()
        # A token has 256 random bits, so a cheap hash is safe, and every request pays for the check.
        self._tokens = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
        self._checking = threading.BoundedSemaphore(2)  # each check takes 64 MiB
        self._dummy_hash = self._passwords.hash(secrets.token_hex())

    def add_user(self, name: str, role: str, password: str, *, by: str) -> Account:
        """Create a user. Raises AccountError."""
        if not NAME.fullmatch(name) or name in RESERVED:
            reserved = ", ".join(RESERVED[:-1])
            raise AccountError(
                f"user {name!r}: expected lower-case letters, digits and . _ -, and not {reserved} or {RESERVED[-1]}"
            )
        if role not in ROLES:
            raise AccountError(f"role of {name}: expected {', '.join(ROLES[:-1])} or {ROLES[-1]}, got {role!r}")
        row = UserRow(name=name, role=role, created_at=time.time(), **self._secrets(name, password))
        with self._database.writing() as session:
            if session.get(UserRow, name) is not None:
                raise AccountError(f"user {name} exists already")
            if session.scalars(select(PredictionRow.id).where(PredictionRow.owner == name).limit(1)).first():
                raise AccountError(f"user {name}: results of a former {name} are still stored and would become theirs")
            if session.scalars(select(ReadingRow.author).where(ReadingRow.author == name).limit(1)).first():
                raise AccountError(f"user {name}: readings of a former {name} are still stored and would become theirs")
            session.add(row)
            self._audit.add(session, AuditEntry(by, "add user", name))
            return _account(row)

    def set_password(self, name: str, password: str, *, by: str) -> None:
        """Change a password and end the user's sessions. Raises AccountError."""
        new_secrets = self._secrets(name, password)
        with self._database.writing() as session:
            row = session.get(UserRow, name)
            if row is None:
                raise AccountError(f"there is no user {name}")
            row.password_hash, row.stamp = new_secrets["password_hash"], new_secrets["stamp"]
            self._audit.add(session, AuditEntry(by, "set password", name))

    def remove_user(self, name: str, *, by: str) -> None:
        """Remove a user with all tokens and sessions; results stay until they expire. Raises AccountError."""
        with self._database.writing() as session:
            row = session.get(UserRow, name)
            if row is None:
                raise AccountError(f"there is no user {name}")
            session.delete(row)
            self._audit.add(session, AuditEntry(by, "remove user", name))

    def users(self) -> list[Account]:
        """Return all users by name."""
        with self._database.reading() as session:
            return [_account(row) for row in session.scalars(select(UserRow).order_by(UserRow.name))]

    def log_in(self, name: str, password: str) -> Account | None:
        """Return the user if the password is right; an unknown user takes as long, so that names cannot be guessed."""
        with self._database.reading() as session:
            row = session.get(UserRow, name) if NAME.fullmatch(name) else None
            account, password_hash = (None, self._dummy_hash) if row is None else (_account(row), row.password_hash)
        with self._checking:
            is_right = _verify(self._passwords, password_hash, password)
        return account if is_right else None

    def in_session(self, name: str, stamp: str) -> Account | None:
        """Return the user of a session, or None when the user is gone or has a new password."""
        with self._database.reading() as session:
            row = session.get(UserRow, name)
            account = None if row is None else _account(row)
        return account if account is not None and secrets.compare_digest(account.stamp, stamp) else None

    def add_token(self, name: str, label: str, *, by: str) -> str:
        """Create a token for a user and return it; it cannot be read again. Raises AccountError."""
        identifier, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        with self._database.writing() as session:
            if session.get(UserRow, name) is None:
                raise AccountError(f"there is no user {name}")
            secret_hash = self._tokens.hash(secret)
            token = TokenRow(id=identifier, user=name, secret_hash=secret_hash, label=label, created_at=time.time())
            session.add(token)
            self._audit.add(session, AuditEntry(by, "add token", f"{name}/{identifier}"))
        return f"{TOKEN_PREFIX}_{identifier}.{secret}"

    def revoke_token(self, identifier: str, *, by: str) -> None:
        """Revoke a token, named by the part before its dot. Raises AccountError."""
        with self._database.writing() as session:
            row = session.get(TokenRow, identifier.removeprefix(f"{TOKEN_PREFIX}_"))
            if row is None:
                raise AccountError(f"there is no token {identifier}")
            session.execute(delete(TokenRow).where(TokenRow.id == row.id))
            self._audit.add(session, AuditEntry(by, "revoke token", f"{row.user}/{row.id}"))

    def tokens(self) -> list[TokenInfo]:
        """Return all tokens, oldest first."""
        with self._database.reading() as session:
            rows = session.scalars(select(TokenRow).order_by(TokenRow.created_at))
            return [TokenInfo(row.id, row.user, row.label, row.created_at) for row in rows]

    def of_token(self, token: str) -> Account | None:
        """Return the user of a token, or None if it is unknown or revoked."""
        identifier, _, secret = token.removeprefix(f"{TOKEN_PREFIX}_").partition(".")
        with self._database.reading() as session:
            row = session.get(TokenRow, identifier)
            user = None if row is None else session.get(UserRow, row.user)
            if row is None or user is None:
                return None
            account, secret_hash = _account(user), row.secret_hash
        return account if _verify(self._tokens, secret_hash, secret) else None

    def _secrets(self, name: str, password: str) -> dict[str, str]:
        if len(password) < MIN_PASSWORD_LENGTH:
            raise AccountError(
                f"password of {name}: expected at least {MIN_PASSWORD_LENGTH} characters, got {len(password)}"
            )
        return {"password_hash": self._passwords.hash(password), "stamp": secrets.token_hex(16)}


def _account(row: UserRow) -> Account:
    return Account(row.name, row.role, row.stamp)


def _verify(hasher: PasswordHasher, hashed: str, plain: str) -> bool:
    try:
        return hasher.verify(hashed, plain)
    except (VerificationError, InvalidHashError):
        return False
