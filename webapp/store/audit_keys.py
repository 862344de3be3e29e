"""The keys that sign the audit log, outside the database: whoever can write the database alone can sign nothing."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KEY_FILE = "key"


@dataclass(frozen=True)
class AuditKeys:
    """Secrets, oldest first. The last one signs, and all of them verify what they signed."""

    secrets: tuple[bytes, ...]

    @classmethod
    def of_setting(cls, text: str) -> AuditKeys:
        """Return the keys of FRACTURE_AUDIT_KEY: separated by commas, the one that signs first."""
        return cls(tuple(key.strip().encode() for key in reversed(text.split(",")) if key.strip()))

    @property
    def names(self) -> list[str]:
        """The names of the keys, which tell nothing about them."""
        return [hashlib.sha256(b"fracture_det audit key\0" + key).hexdigest()[:8] for key in self.secrets]

    def signature(self, name: str, content: Sequence[object]) -> str:
        """Return the HMAC-SHA256 of `content` by one of the keys. Raises KeyError for an unknown one."""
        key = dict(zip(self.names, self.secrets, strict=True))[name]
        return hmac.new(key, json.dumps([name, *content], ensure_ascii=True).encode(), hashlib.sha256).hexdigest()


class KeyFile:
    """The file with the keys, one a line, oldest first, that only its owner can read. Read again when it changes."""

    def __init__(self, folder: Path) -> None:
        self.path, self._new = folder / KEY_FILE, folder / f"{KEY_FILE}.proposed"
        self._read_at: tuple[int, int, int] | None = None
        self._keys = AuditKeys(())

    def read(self) -> AuditKeys:
        """Return the keys, none where there is no file. Raises OSError."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return AuditKeys(())
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version != self._read_at:
            self._keys = AuditKeys(tuple(self.path.read_bytes().split()))
            self._read_at = version
        return self._keys

    def propose(self) -> AuditKeys:
        """Return the keys with a new one, which `accept` makes the one that signs. Raises OSError."""
        keys = self.read()
        if not keys.secrets and self._new.exists():  # the process was killed before it accepted the first one
            return AuditKeys(tuple(self._new.read_bytes().split()))
        keys = AuditKeys((*keys.secrets, secrets.token_hex(32).encode()))
        write_private(self._new, b"".join(key + b"\n" for key in keys.secrets))
        return keys

    def accept(self) -> None:
        """Put the proposed keys into force. Raises OSError."""
        self._new.replace(self.path)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file by one that only its owner can read, whole and on the disk. Raises OSError."""
    new_file = path.with_name(f"{path.name}.new")
    new_file.unlink(missing_ok=True)
    with open(os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new_file.replace(path)
