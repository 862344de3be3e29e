"""What the page stores: results with images and readings, accounts, the audit log. All SQL is in here."""

from __future__ import annotations

import os
from pathlib import Path

from .accounts import Accounts
from .audit import AuditLog
from .audit_chain import HEAD_FILE, AuditReader, Verified
from .database import Database, StoreError, StoreUnavailable
from .images import Images
from .pacs import PacsQueue
from .pacs_status import PacsStatus
from .read_only import reading_only
from .readiness import Readiness
from .records import ResultMetadata, StoredPrediction
from .results import HistoryFilter, KeyTaken, Results
from .shadow import ShadowAnswer, ShadowAnswers
from .watch import WatchCounts

__all__ = [
    "HistoryFilter",
    "KeyTaken",
    "ResultMetadata",
    "ShadowAnswer",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "StoredPrediction",
    "verify_audit",
]


class Store:
    """The store in `folder`, with its database at `url` or, without one, in SQLite in `folder`.

    retention_days, feedback_days, keep_images: see Results. audit_folder, audit_key: see verify_audit.
    Raises StoreError.
    """

    def __init__(
        self,
        folder: Path,
        *,
        url: str | None = None,
        retention_days: float = 1.0,
        feedback_days: float = 30.0,
        keep_images: bool = True,
        audit_folder: Path | None = None,
        audit_key: str | None = None,
    ) -> None:
        folder = folder.absolute()
        images = folder / "images"
        try:
            images.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        except OSError as error:
            raise StoreError(f"the data folder {folder} cannot be used ({error}); see FRACTURE_DATA_DIR") from error
        self._database = Database(url or default_url(folder))
        audit_folder = audit_folder or audit_folder_beside(folder)
        self.audit = AuditLog(self._database, audit_folder, folder / HEAD_FILE, audit_key)
        self.audit.prepare()
        # Of the node beside a PACS; without one they stay empty, and so does its folder.
        self.pacs = PacsQueue(self._database, self.audit, folder / "pacs")
        self.pacs_status = PacsStatus(self._database, self.audit)
        self.accounts = Accounts(self._database, self.audit)
        self.watch = WatchCounts(self._database)
        self.results = Results(
            self._database,
            self.audit,
            Images(images),
            retention_days=retention_days,
            feedback_days=feedback_days,
            keep_images=keep_images,
        )

        self.shadow = ShadowAnswers(self._database)
        checks = [Images(images).check] if keep_images else []
        self._readiness = Readiness([*checks, self._database.check])

    @property
    def problem(self) -> str | None:
        """Why no result can be kept at the moment, or None."""
        return self._readiness.problem

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()


def verify_audit(
    folder: Path, *, url: str | None = None, audit_folder: Path | None = None, audit_key: str | None = None
) -> Verified:
    """Verify the audit log of the store in `folder` without writing anything, such as that of a backup.

    audit_folder: where its head and its keys are; audit_key: FRACTURE_AUDIT_KEY in place of the keys there.
    Raises AuditError, StoreError or StoreUnavailable.
    """
    folder = folder.absolute()
    reader = AuditReader(audit_folder or audit_folder_beside(folder), folder / HEAD_FILE, audit_key)
    with reading_only(url or default_url(folder)) as session:
        return reader.verify_in(session)


def audit_folder_beside(folder: Path) -> Path:
    """Return the folder of the audit log's keys and head: not in the data folder, which holds SQLite's file."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a name for "..", and links stay what they are
    return folder.with_name(f"{folder.name}.audit")


def default_url(folder: Path) -> str:
    """Return the URL of SQLite's file in the data folder."""
    return f"sqlite:///{folder / 'results.sqlite3'}"
