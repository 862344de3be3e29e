"""Why an image file is not read."""

from __future__ import annotations

# libpng refuses more than 1,000,000, and neither a JPEG nor a DICOM file can have more than this.
MAX_SIDE_PX = 65_535


class UnreadableImage(ValueError):
    """The file or the bytes are not an image that can be read.

    reason: why, without the name of the file. The message is the name, if there is one, and the reason.
    """

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(reason if name is None else f"{name}: {reason}")
        self.reason = reason


class DamagedImage(UnreadableImage):
    """The file is of a kind that is read, but part of its picture is missing or contradicts itself."""


class UnsupportedImage(UnreadableImage):
    """The file or the bytes are of a kind that is not accepted."""


class ImageTooLarge(UnreadableImage):
    """The header announces more pixels than are accepted."""


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Raise ImageTooLarge where a header announces more pixels, or a longer side, than are read."""
    if max(width, height) > MAX_SIDE_PX:
        raise ImageTooLarge(f"{width:,} x {height:,} pixels, at most {MAX_SIDE_PX:,} on a side are read")
    if width * height > max_pixels:
        raise ImageTooLarge(f"{width:,} x {height:,} pixels, at most {max_pixels:,} are read")
