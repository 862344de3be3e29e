"""Is this a radiograph of a limb at all? Rules for what can be named, and a small fitted head for the rest.

    assess(read_radiograph(path))  ->  Suitability(ok=False, probability=0.02, reasons=("photograph",))

It knows nothing of any detector and takes milliseconds. docs/suitability.md has what it refuses, and how often.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fracture_det.structures.dicom_meaning import SECONDARY_CAPTURES
from fracture_det.structures.radiograph import Pixels, Radiograph
from fracture_det.suitability.features import Colour, Plane, measure_colour, picture_features, shrink, to_grey
from fracture_det.suitability.head import DOCUMENT, KINDS, LIMB, PHOTOGRAPH, Head, shipped_head

# The shortest side that is analysed: on a smaller picture no fracture line could be seen.
MIN_SIDE_PX = 64
# A limb takes a part of a radiograph and its greys spread; these bounds are far below those of any film of the fit.
BLANK_RANGE, BLANK_STD = 12.0, 2.5
DARK_LEVEL, BRIGHT_LEVEL = 30.0, 225.0
EXPOSED_SHARE = 0.995
# The darkest of 5,575 real films shows something on 7 % of its pixels; a JPEG whose brightness drifted, which no
# decoder notices, on 3 %.
DARK_SHARE = 0.95
# Of the colour that brightness does not explain; a film on a coloured screen stays below it.
COLOUR_SPREAD = 0.06

TOO_SMALL, BLANK, UNDEREXPOSED, OVEREXPOSED = "too_small", "blank", "underexposed", "overexposed"
COLOUR_PHOTOGRAPH, GREY_PHOTOGRAPH, PAGE, NOT_A_RADIOGRAPH = (
    "colour_photograph",
    "photograph",
    "document",
    "not_a_limb_radiograph",
)
SEVERAL_FILMS = "several_films"
# What only a DICOM file says.
OTHER_BODY_PART, BURNED_IN, BURNED_IN_UNKNOWN = "other_body_part", "burned_in", "burned_in_unknown"

# The sentence for each reason; a refusal has exactly one reason that refuses.
REASONS = {
    TOO_SMALL: f"It is too small: a side has fewer than {MIN_SIDE_PX} pixels.",
    BLANK: "It is blank, or nearly so.",
    UNDEREXPOSED: "It is almost wholly black (underexposed).",
    OVEREXPOSED: "It is almost wholly white (overexposed).",
    COLOUR_PHOTOGRAPH: "It looks like a colour photograph.",
    GREY_PHOTOGRAPH: "It looks like a photograph.",
    PAGE: "It looks like a document, a chart or a screenshot.",
    NOT_A_RADIOGRAPH: "It looks like something else.",
    OTHER_BODY_PART: "Its file says that it shows another part of the body than a limb.",
    SEVERAL_FILMS: "It seems to hold several films; boxes are given for the whole picture.",
    BURNED_IN: "Its file says that writing is burned into the picture, which may name the patient.",
    BURNED_IN_UNKNOWN: "It is a secondary capture whose file does not say whether writing, such as a patient's name, "
    "is burned into the picture.",
}
# What is worth saying and refuses nothing.
NOTES = (SEVERAL_FILMS, BURNED_IN, BURNED_IN_UNKNOWN)
CAPTION = "Does not look like a limb radiograph; analysed anyway"
BURNED_IN_CAPTION = "Writing is burned into this picture; it may name the patient"
HEADLINE = "this does not look like a limb radiograph"


@dataclass(frozen=True)
class Suitability:
    """Whether a picture is analysed.

    ok: whether it may be given to a detector. probability: 0..1, that it is a radiograph of a limb.
    reasons: keys of REASONS; the first refuses unless `ok`, the others are NOTES.
    """

    ok: bool
    probability: float
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [reason for reason in self.reasons if reason not in REASONS]
        if unknown or not 0 <= self.probability <= 1:
            raise ValueError(f"Suitability: expected reasons of REASONS and 0..1, got {unknown}, {self.probability}")
        refusing = [reason for reason in self.reasons if reason not in NOTES]
        if self.ok == bool(refusing):
            raise ValueError(f"Suitability.ok: expected {not refusing} with the reasons {self.reasons}, got {self.ok}")

    @property
    def reason(self) -> str | None:
        """Why it is refused: a key of REASONS, or None."""
        return None if self.ok else self.reasons[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth saying and refuses nothing: those of its reasons that are NOTES."""
        return tuple(reason for reason in self.reasons if reason in NOTES)

    @property
    def sentence(self) -> str:
        """The reasons as sentences; empty without any."""
        return " ".join(REASONS[reason] for reason in self.reasons)


def assess(radiograph: Radiograph, *, head: Head | None = None) -> Suitability:
    """Return whether a picture is a radiograph of a limb. `head`: another than the shipped one.

    Of a DICOM file, the tags count too. Raises HeadError when the shipped head cannot be read.
    """
    file = radiograph.dicom
    said = _assess_picture(radiograph.pixels, head)
    if file is not None and file.other_body_part is not None and said.ok:
        said = Suitability(False, said.probability, (OTHER_BODY_PART, *said.reasons))
    if file is not None and file.burned_in:
        said = replace(said, reasons=(*said.reasons, BURNED_IN))
    # Of other classes the standard wants an answer (DX), or pixels are a detector's alone (CR).
    if file is not None and file.burned_in is None and file.sop_class in SECONDARY_CAPTURES:
        said = replace(said, reasons=(*said.reasons, BURNED_IN_UNKNOWN))
    return said


def _assess_picture(pixels: Pixels, head: Head | None) -> Suitability:
    if min(pixels.shape[:2]) < MIN_SIDE_PX:
        return Suitability(False, 0.0, (TOO_SMALL,))
    small = shrink(pixels)
    if (reason := exposure_problem(to_grey(small))) is not None:
        return Suitability(False, 0.0, (reason,))
    return judge(small, head or shipped_head())


def judge(small: Pixels, head: Head) -> Suitability:
    """Return what the head says of a picture that `shrink` made."""
    probabilities = head.probabilities(picture_features(small))
    limb = float(probabilities[KINDS.index(LIMB)])
    if limb >= head.threshold:
        return Suitability(True, limb, (SEVERAL_FILMS,) if holds_several_films(to_grey(small)) else ())
    others = {kind: value for kind, value in zip(KINDS, probabilities, strict=True) if kind != LIMB}
    return Suitability(False, limb, (_name(max(others, key=others.__getitem__), measure_colour(small)),))


def exposure_problem(grey: Plane) -> str | None:
    """Return why a grey (H, W) 0..255 shows nothing, or None."""
    low, high = np.quantile(grey, (1 - EXPOSED_SHARE, EXPOSED_SHARE))
    if high - low < BLANK_RANGE and grey.std() < BLANK_STD:
        return BLANK
    if np.quantile(grey, DARK_SHARE) < DARK_LEVEL:
        return UNDEREXPOSED
    return OVEREXPOSED if low > BRIGHT_LEVEL else None


def holds_several_films(grey: Plane) -> bool:
    """Return whether a grey (H, W) 0..255 has films side by side: an even band from edge to edge divides it."""
    return any(_is_divided(plane) for plane in (grey, grey.T))


def _is_divided(grey: Plane) -> bool:
    """Return whether an even column, in the middle half and unlike its surroundings, goes from top to bottom."""
    width = grey.shape[1]
    flat = grey.std(axis=0) < 2.5
    levels = grey.mean(axis=0)
    for column in np.flatnonzero(flat[width // 5 : width - width // 5]) + width // 5:
        near = max(3, width // 24)
        sides = (grey[:, max(0, column - 3 * near) : column - near], grey[:, column + near : column + 3 * near])
        steps = [abs(side - levels[column]).mean(axis=1) for side in sides if side.size]
        if len(steps) == 2 and all((step > 12).mean() > 0.85 for step in steps):
            return True
    return False


def _name(kind: str, colour: Colour) -> str:
    if kind == PHOTOGRAPH:
        return COLOUR_PHOTOGRAPH if colour.spread > COLOUR_SPREAD else GREY_PHOTOGRAPH
    if kind == DOCUMENT:
        return PAGE
    return COLOUR_PHOTOGRAPH if colour.spread > 2 * COLOUR_SPREAD else NOT_A_RADIOGRAPH
