"""The numbers of a de-identified copy: as many, and as exact, as its picture needs, so that none can be an id.

Slope and intercept are put into the window or the table behind them, in units of stored values. Without one, a picture
is the same whatever they are, and they are left out. A window must show some of the values that a sample can have, and
a table must be a curve; what is neither is refused, since nobody knows what it says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fracture_det.structures.dicom import OpenedDicom
from fracture_det.structures.dicom_greys import LINEAR, GreyScale, Table, Values, Window
from fracture_det.structures.image_errors import UnsupportedImage

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
# What is read of the greys; a text in place of one of these numbers is refused, also where it is not needed.
DECIMALS = ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept")
# A millionth of a pixel's size or of a window cannot be seen, and could hold a number.
SIGNIFICANT_DIGITS = 6


def set_numbers(clean: Any, opened: OpenedDicom) -> None:
    """Set what the numbers of a radiograph say in `clean`, a data set of pydicom.

    Raises DamagedImage for a text where a number belongs, and UnsupportedImage for numbers that are none of a picture.
    """
    header, frame, scale = opened.header, opened.frame, opened.scale
    clean.Rows, clean.Columns, clean.PixelRepresentation = frame.rows, frame.columns, 0
    for name in DECIMALS:
        header.numbers(name)
    for name in SPACINGS:
        if (spacing := header.spacing(name)) is not None:
            setattr(clean, name, [_short(side) for side in spacing])
    if scale is None:
        return
    clean.PixelRepresentation = int(scale.signed)
    _set_padding(clean, scale)
    if scale.modality is not None:
        clean.ModalityLUTSequence = [_table_alone(scale.modality, "ModalityLUTSequence")]
    elif scale.slope < 0:
        clean.RescaleSlope, clean.RescaleIntercept, clean.RescaleType = -1, 0, "US"
    if isinstance(scale.voi, Window):
        _set_window(clean, scale, scale.voi)
    elif scale.voi is not None:
        clean.VOILUTSequence = [_table_alone(_before_rescale(scale, scale.voi), "VOILUTSequence")]


def _short(number: float) -> float:
    return float(f"{number:.{SIGNIFICANT_DIGITS}g}")


def _plain_values(scale: GreyScale) -> Values:
    """Return each value that a sample can have: after the modality table or, without one, with the slope's sign."""
    values = scale.stored_values()
    if scale.modality is not None:
        return scale.modality.look_up(values)
    return np.asarray(values * np.sign(scale.slope))


def _set_padding(clean: Any, scale: GreyScale) -> None:
    """Set the padding as far as samples can have it."""
    values = scale.stored_values()
    if scale.padding is None or not scale.is_padding().any():
        return
    low, high = (int(np.clip(end, values.min(), values.max())) for end in scale.padding)
    clean.PixelPaddingValue = low
    if high != low:
        clean.PixelPaddingRangeLimit = high


def _set_window(clean: Any, scale: GreyScale, window: Window) -> None:
    center, width = window.center, window.width
    if scale.modality is None:
        half, one = (0.5, 1.0) if window.function == LINEAR else (0.0, 0.0)
        gain = abs(scale.slope)
        center, width = (center - half - scale.intercept) / gain + half, (width - one) / gain + one
    values = _plain_values(scale)
    room = float(values.max() - values.min()) + 1
    if width > 16 * room or center + width / 2 < values.min() or center - width / 2 > values.max():
        raise UnsupportedImage(
            "a DICOM file whose WindowCenter, WindowWidth, RescaleSlope or RescaleIntercept is none of its picture"
        )
    clean.WindowCenter, clean.WindowWidth = _short(center), _short(width)


def _before_rescale(scale: GreyScale, table: Table) -> Table:
    """Return a VOI table that gives for `_plain_values` what `table` gives after slope and intercept."""
    if scale.modality is not None:
        return table
    values = np.unique(_plain_values(scale))
    entries = table.look_up(values * abs(scale.slope) + scale.intercept)
    return Table(int(values[0]), table.bits, entries.astype(np.uint16))


def _table_alone(table: Table, name: str) -> Any:
    """Return an item with a lookup table and nothing else. Raises UnsupportedImage for one that is no curve."""
    from pydicom.dataset import Dataset

    steps = np.diff(table.entries.astype(np.int64))
    if (steps < 0).any() and (steps > 0).any():
        raise UnsupportedImage(f"a DICOM file whose {name} rises and falls, as no curve of greys does")
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(table.entries) % 65_536, table.first % 65_536, table.bits])
    item.add_new("LUTData", "OW", table.entries.astype("<u2").tobytes())
    return item
