"""The images of results, and beside an image of more than 8 bits its samples, a file each.

They and their row in the database go together, or none of them goes.
"""

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

    def samples_path(self, identifier: str) -> Path:
        """Return the path that the samples of a result's image have if there are any."""
        return self._folder / f"{identifier}.samples.png"

    def write(self, identifier: str, content: bytes, samples: bytes | None = None) -> None:
        """Store an image, and its samples."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(self.path(identifier), content)
            if samples is not None:
                _write(self.samples_path(identifier), samples)
        except OSError as error:
            raise ImagesUnavailable(f"the image could not be stored: {error.strerror}") from error

    def discard(self, identifier: str) -> None:
        """Delete an image that has no row; where that fails, a later sweep deletes it."""
        for path in self._paths(identifier):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.error("An image without a result could not be deleted: %s", error.strerror)

    def _paths(self, identifier: str) -> tuple[Path, Path]:
        return self.path(identifier), self.samples_path(identifier)

    @contextmanager
    def deleting(self) -> Iterator[Callable[[str], None]]:
        """Yield a function that takes an image away. When the block raises, the images taken away come back.

        They are deleted after the block, so that whatever commits the deletion of their rows belongs inside it.
        """
        hidden: list[Path] = []

        def hide(identifier: str) -> None:
            for path in self._paths(identifier):
                try:
                    path.rename(path.with_suffix(HIDDEN))
                except FileNotFoundError:  # not kept
                    continue
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
                elif path.name.partition(".")[0] not in kept and (path.suffix == HIDDEN or status.st_mtime < recent):
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


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a committed row must not lose its image in a power cut


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except FileNotFoundError:
        return
    except OSError as error:
        log.error("An image could not be brought back after a failed deletion: %s", error.strerror)
