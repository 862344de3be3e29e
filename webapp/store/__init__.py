"""What the page stores: results with images and feedback, accounts, the audit log. All SQL is in here."""

from __future__ import annotations

from pathlib import Path

from .accounts import Accounts
from .audit import HEAD_FILE, AuditLog
from .database import Database, StoreError, StoreUnavailable
from .images import Images
from .readiness import Readiness
from .results import Feedback, HistoryFilter, KeyTaken, ResultMetadata, Results, StoredPrediction

__all__ = [
    "Feedback",
    "HistoryFilter",
    "KeyTaken",
    "ResultMetadata",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "StoredPrediction",
]


class Store:
    """The store in `folder`, with its database at `url` or, without one, in SQLite in `folder`.

    retention_days, feedback_days, keep_images: see Results. Raises StoreError.
    """

    def __init__(
        self,
        folder: Path,
        *,
        url: str | None = None,
        retention_days: float = 1.0,
        feedback_days: float = 30.0,
        keep_images: bool = True,
    ) -> None:
        folder = folder.absolute()
        images = folder / "images"
        try:
            images.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        except OSError as error:
            raise StoreError(f"the data folder {folder} cannot be used ({error}); see FRACTURE_DATA_DIR") from error
        self._database = Database(url or f"sqlite:///{folder / 'results.sqlite3'}")
        self.audit = AuditLog(self._database, folder / HEAD_FILE)
        self.accounts = Accounts(self._database, self.audit)
        self.results = Results(
            self._database,
            self.audit,
            Images(images),
            retention_days=retention_days,
            feedback_days=feedback_days,
            keep_images=keep_images,
        )

        checks = [Images(images).check] if keep_images else []
        self._readiness = Readiness([*checks, self._database.check])

    @property
    def problem(self) -> str | None:
        """Why no result can be kept at the moment, or None."""
        return self._readiness.problem

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()
