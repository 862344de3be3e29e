"""The images of results, one file each. An image and its row in the database go together, or neither goes."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from .database import StoreUnavailable, reserve

# An image is written moments before its row, and stays under another name for moments while its row is deleted.
IN_PROGRESS_S = 3600.0
HIDDEN = ".deleting"

log = logging.getLogger(__name__)


class ImagesUnavailable(StoreUnavailable):
    """An image could not be stored or deleted."""


class Images:
    """The images in `folder`, named by their results. Thread-safe. Raises ImagesUnavailable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, identifier: str) -> Path:
        """Return the path that the image of a result has if there is one."""
        return self._folder / f"{identifier}.png"

    def write(self, identifier: str, content: bytes) -> None:
        """Store an image."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.path(identifier).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # a committed row must not lose its image in a power cut
        except OSError as error:
            raise ImagesUnavailable(f"the image could not be stored: {error.strerror}") from error

    def discard(self, identifier: str) -> None:
        """Delete an image that has no row; where that fails, a later sweep deletes it."""
        try:
            self.path(identifier).unlink(missing_ok=True)
        except OSError as error:
            log.error("An image without a result could not be deleted: %s", error.strerror)

    @contextmanager
    def deleting(self) -> Iterator[Callable[[str], None]]:
        """Yield a function that takes an image away. When the block raises, the images taken away come back.

        They are deleted after the block, so that whatever commits the deletion of their rows belongs inside it.
        """
        hidden: list[Path] = []

        def hide(identifier: str) -> None:
            path = self.path(identifier)
            try:
                path.rename(path.with_suffix(HIDDEN))
            except FileNotFoundError:  # not kept
                return
            except OSError as error:
                raise ImagesUnavailable(f"the image could not be deleted: {error.strerror}") from error
            hidden.append(path)

        try:
            yield hide
        except BaseException:
            for path in hidden:
                _rename(path.with_suffix(HIDDEN), path)
            raise
        for path in hidden:
            try:
                path.with_suffix(HIDDEN).unlink(missing_ok=True)
            except OSError as error:
                log.error("The image of a deleted result could not be deleted: %s", error.strerror)

    def sweep(self, kept: Set[str]) -> None:
        """Delete images that belong to no result in `kept`, and bring back those whose deletion was cut short.

        What is neither a file nor a link is left alone.
        """
        failures = []
        recent = time.time() - IN_PROGRESS_S
        try:
            paths = sorted(self._folder.iterdir())
        except OSError as error:
            raise ImagesUnavailable(f"the images folder cannot be read: {error.strerror}") from error
        for path in paths:
            try:
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
                    log.warning("The images folder has a stray entry that is not a file")
                elif path.stem not in kept and (path.suffix == HIDDEN or status.st_mtime < recent):
                    path.unlink(missing_ok=True)
                elif path.suffix == HIDDEN and status.st_ctime < recent:
                    _rename(path, path.with_suffix(".png"))
            except FileNotFoundError:  # deleted in the meantime
                continue
            except OSError as error:
                failures.append(error.strerror)
        if failures:
            raise ImagesUnavailable(f"{len(failures)} left-over images could not be deleted: {failures[0]}")

    def check(self) -> None:
        """Raise ImagesUnavailable while no image could be stored."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            reserve(self._folder)
        except OSError as error:
            raise ImagesUnavailable(f"images cannot be stored: {error.strerror}") from error


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except FileNotFoundError:
        return
    except OSError as error:
        log.error("An image could not be brought back after a failed deletion: %s", error.strerror)
