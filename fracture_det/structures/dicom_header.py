"""The header of a DICOM file by pydicom, value by value, each of a size that it may have."""

from __future__ import annotations

import io
import math
import re
import struct
from typing import Any

import numpy as np

from fracture_det.structures.dicom_elements import Layout
from fracture_det.structures.dicom_greys import LINEAR, GreyScale, Table, Window
from fracture_det.structures.image_errors import DamagedImage, UnsupportedImage

# Values that are read have a few bytes, lookup tables up to 65,536 words, and a sequence a few of these.
MAX_VALUE_BYTES, MAX_TABLE_BYTES, MAX_ITEMS = 1_024, 2 * 65_536, 16
# Of a pixel, in mm; detectors have .05 to .4, and photographs of films up to a few.
SPACING_MM = (0.001, 10.0)
INSTALL = "a DICOM file, which is not read without pydicom; `pip install 'fracture_det[dicom]'` adds it"


def open_header(layout: Layout) -> Header:
    """Return the header of a DICOM file. Raises UnsupportedImage without pydicom, and DamagedImage."""
    try:
        from pydicom import config
        from pydicom.filereader import read_dataset
    except ImportError as error:
        raise UnsupportedImage(INSTALL) from error
    # Else pydicom writes values of the file, such as a name, into warnings.
    config.settings.reading_validation_mode = config.IGNORE
    stream = io.BytesIO(layout.data[: layout.header_end])
    try:
        return Header(read_dataset(stream, layout.implicit, layout.little), layout)
    except Exception as error:
        raise DamagedImage(f"its header cannot be read ({type(error).__name__})") from None


class Header:
    """One data set, or an item of a sequence. Every method raises DamagedImage, naming the element, for a bad value."""

    def __init__(self, data_set: Any, layout: Layout) -> None:
        self._data_set, self.layout = data_set, layout
        self._raw: dict[str, bytes] = {}  # pydicom forgets them when it converts a value

    def has(self, name: str) -> bool:
        """Say whether an element is there, if only without a value."""
        return name in self._data_set

    def raw(self, name: str, limit: int = MAX_VALUE_BYTES) -> bytes:
        """Return the bytes of an element, empty where it is not there."""
        from pydicom.dataelem import RawDataElement

        if name not in self._data_set:
            return b""
        if name in self._raw:
            return self._raw[name]
        element = self._data_set.get_item(name)
        if not isinstance(element, RawDataElement):  # a sequence
            raise DamagedImage(f"its {name} is a sequence")
        value = element.value or b""
        if len(value) > limit:
            raise DamagedImage(f"its {name} has {len(value):,} bytes")
        self._raw[name] = bytes(value)
        return self._raw[name]

    def texts(self, name: str) -> list[str]:
        """Return the values of an element of text, without what fills them up."""
        return [value.strip(" \0") for value in self.raw(name).decode("latin-1").split("\\")]

    def text(self, name: str) -> str:
        """Return the first value of an element of text, or an empty text."""
        return self.texts(name)[0]

    def numbers(self, name: str) -> list[float]:
        """Return the decimal numbers (DS) of an element, [] where it is not there or empty."""
        texts = [text for text in self.texts(name) if text]
        try:
            numbers = [float(text) for text in texts]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            raise DamagedImage(f"its {name} is no number")
        return numbers

    def integer(self, name: str, default: int) -> int:
        """Return an integer (IS)."""
        numbers = self.numbers(name)
        return int(numbers[0]) if numbers else default

    def words(self, name: str, limit: int = MAX_VALUE_BYTES) -> list[int]:
        """Return the unsigned words (US) of an element; those of SS with their bits."""
        value = self.raw(name, limit)
        if len(value) % 2:
            raise DamagedImage(f"its {name} has {len(value)} bytes, and its words have two")
        return list(struct.unpack(f"{'<' if self.layout.little else '>'}{len(value) // 2}H", value))

    def word(self, name: str, default: int = 0) -> int:
        """Return the first unsigned word of an element."""
        words = self.words(name)
        return words[0] if words else default

    def items(self, name: str) -> list[Header]:
        """Return the items of a sequence, [] where it is not there."""
        if name not in self._data_set:
            return []
        element = self._data_set[name]
        if element.VR != "SQ" or len(element.value) > MAX_ITEMS:
            raise DamagedImage(f"its {name} is no sequence of at most {MAX_ITEMS} items")
        return [Header(item, self.layout) for item in element.value]

    def spacing(self, name: str) -> tuple[float, float] | None:
        """Return (row, column) in mm; None where it is not there, absurd, or 0, of scanners that do not know it."""
        numbers = self.numbers(name)
        if len(numbers) < 2 or not SPACING_MM[0] <= min(numbers[:2]) <= max(numbers[:2]) <= SPACING_MM[1]:
            return None
        return numbers[0], numbers[1]

    @staticmethod
    def class_name(uid: str) -> str:
        """Return the name of a SOP class, as in "CT Image Storage"; a file could hide anything in another."""
        from pydicom.uid import UID, UID_dictionary

        known = UID(re.sub(r"[^0-9.]", "?", uid[:64]))
        return str(known.name) if known in UID_dictionary else "a class that the standard does not name"

    def grey_scale(self, allocated: int, photometric: str) -> GreyScale:
        """Return what the file says of its greys (PS3.3, C.7.6.3, C.11.1, C.11.2 and C.11.6)."""
        stored = self.word("BitsStored", allocated)
        high_bit = self.word("HighBit", stored - 1)
        if not (8 <= stored <= allocated and stored - 1 <= high_bit < allocated):
            if 0 < stored < 8:
                raise UnsupportedImage(f"a DICOM file of {stored} bits, of which 8 to 16 are read")
            raise DamagedImage(f"it says that {stored} bits up to bit {high_bit} of {allocated} are used")
        inverted = photometric == "MONOCHROME1"
        shape = self.text("PresentationLUTShape").upper()
        if shape not in ("", "INVERSE" if inverted else "IDENTITY"):
            other = "IDENTITY" if inverted else "INVERSE"
            raise UnsupportedImage(
                f"a DICOM file that contradicts itself: {photometric}, but a presentation LUT shape that is "
                f"{shape if shape == other else 'unknown'}"
            )
        signed = self.word("PixelRepresentation") == 1
        modality = self._table("ModalityLUTSequence", signed=signed)
        slope, intercept = self.numbers("RescaleSlope"), self.numbers("RescaleIntercept")
        if slope and slope[0] == 0:
            raise DamagedImage("its RescaleSlope is 0")
        gain, offset = (slope[0] if slope else 1.0), (intercept[0] if intercept else 0.0)
        return GreyScale(
            allocated=allocated,
            stored=stored,
            high_bit=high_bit,
            signed=signed,
            slope=gain,
            intercept=offset,
            modality=modality,
            voi=self._voi(signed=modality is None and (signed or offset < 0 or gain < 0)),
            inverted=inverted,
            padding=self._padding(stored, signed=signed),
        )

    def _voi(self, *, signed: bool) -> Table | Window | None:
        """Return the VOI table or, without one, the window; of several the first."""
        table = self._table("VOILUTSequence", signed=signed)
        if table is not None:
            return table
        centers, widths = self.numbers("WindowCenter"), self.numbers("WindowWidth")
        if not centers and not widths:
            return None
        if not centers or not widths:
            raise DamagedImage("its window has no center or no width")
        return Window(centers[0], widths[0], self.text("VOILUTFunction").upper() or LINEAR)

    def _table(self, name: str, *, signed: bool) -> Table | None:
        items = self.items(name)
        if not items:
            return None
        words = items[0].words("LUTDescriptor")
        if len(words) != 3:
            raise DamagedImage(f"the LUTDescriptor of its {name} has {len(words)} values, not 3")
        count, first, bits = words[0] or 65_536, words[1], words[2]
        if signed and first >= 32_768:
            first -= 65_536
        data = items[0].raw("LUTData", MAX_TABLE_BYTES)
        if len(data) >= 2 * count:
            entries = np.frombuffer(data, np.dtype("<u2" if self.layout.little else ">u2"), count)
        elif bits <= 8 and len(data) >= count:
            entries = np.frombuffer(data, np.uint8, count)
        else:
            raise DamagedImage(f"truncated: the LUTData of its {name} have {len(data):,} bytes for {count:,} entries")
        if not 1 <= bits <= 16:
            raise DamagedImage(f"the LUTDescriptor of its {name} says {bits} bits")
        return Table(first, bits, entries)

    def _padding(self, stored: int, *, signed: bool) -> tuple[int, int] | None:
        """Return the lowest and the highest stored value that is padding (PS3.3, C.7.5.1.1.2)."""
        words = [*self.words("PixelPaddingValue")[:1], *self.words("PixelPaddingRangeLimit")[:1]]
        if not words or not self.words("PixelPaddingValue"):
            return None
        if signed:
            words = [word - 65_536 if word >= 32_768 else word for word in words]
        return min(words), max(words)
