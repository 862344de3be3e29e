"""What the page stores: results with images and feedback, accounts, the audit log. All SQL is in here."""

from __future__ import annotations

from pathlib import Path

from .accounts import Accounts
from .audit import HEAD_FILE, AuditLog
from .database import Database, StoreError, StoreUnavailable
from .results import Feedback, HistoryFilter, ResultMetadata, Results, StoredPrediction

__all__ = ["Feedback", "HistoryFilter", "ResultMetadata", "Store", "StoreError", "StoreUnavailable", "StoredPrediction"]


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
            images,
            retention_days=retention_days,
            feedback_days=feedback_days,
            keep_images=keep_images,
        )

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()
