"""The files of the queue beside a PACS: what was received, and what is sent. Each is on the disk before its row is."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Set
from pathlib import Path

from .database import StoreUnavailable, reserve

# A file is written moments before its row; one that has none after this time never gets one.
IN_PROGRESS_S = 3600.0


class Spool:
    """Files in `folder`, with random names that say nothing. Raises StoreUnavailable.

    incoming: what is being received. objects: what was received, whole. outbox: what is sent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming, self._objects, self._outbox = folder / "incoming", folder / "objects", folder / "outbox"

    def prepare(self) -> None:
        """Make the folders, and remove what an earlier process was receiving when it ended."""
        try:
            for folder in (self.incoming, self._objects, self._outbox):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            for path in self.incoming.iterdir():
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"the spool cannot be used: {error.strerror}") from error

    def check(self) -> None:
        """Raise StoreUnavailable while nothing could be received."""
        try:
            reserve(self.incoming)
        except OSError as error:
            raise StoreUnavailable(f"the spool cannot be written: {error.strerror}") from error

    def object_path(self, identifier: str) -> Path:
        """Return where a received object is."""
        return self._objects / f"{identifier}.dcm"

    def output_path(self, identifier: str) -> Path:
        """Return where an output is."""
        return self._outbox / identifier

    def take(self, path: Path, identifier: str) -> None:
        """Move a file of the same file system into the spool, whole and on the disk."""
        target = self.object_path(identifier)
        try:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o600)
            path.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise StoreUnavailable(f"the object could not be stored: {error.strerror}") from error

    def write_output(self, content: bytes) -> str:
        """Store an output and return its new identifier."""
        identifier = secrets.token_hex(16)
        path = self.output_path(identifier)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(path.parent)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StoreUnavailable(f"the output could not be stored: {error.strerror}") from error
        return identifier

    def discard(self, path: Path) -> None:
        """Delete a file; where that fails, a later sweep deletes it."""
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return

    def sweep(self, objects: Set[str], outputs: Set[str]) -> None:
        """Delete files that belong to none of these identifiers, but for those that may be in progress."""
        recent = time.time() - IN_PROGRESS_S
        kept_in: tuple[tuple[Path, Set[str]], ...] = (
            (self.incoming, frozenset()),
            (self._objects, objects),
            (self._outbox, outputs),
        )
        try:
            for folder, kept in kept_in:
                for path in folder.iterdir():
                    if path.stem not in kept and path.lstat().st_mtime < recent:
                        self.discard(path)
        except OSError as error:
            raise StoreUnavailable(f"the spool cannot be swept: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk: a power cut may otherwise undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
