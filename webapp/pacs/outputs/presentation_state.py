"""The grayscale softcopy presentation state: boxes as graphics over the source image, which stays as it is."""

from __future__ import annotations

import numpy as np
from highdicom import PresentationLUTTransformation
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    TextObject,
)

from ..answers import NOTICE, Box, ImageAnswer, StudyAnswer
from ..wording import box_text, headline
from . import MODEL, copy_study, encode, series_of, side_of

LAYER = "FRACTURES"
# Of a line of text, as shares of the image's height and width.
LINE_SHARE, TEXT_SHARE = 0.03, 0.3


def presentation_state(answer: StudyAnswer, image: ImageAnswer, number: int) -> tuple[str, bytes]:
    """Return the SOP instance UID and the file of the state of one image, the number-th of its study.

    Graphics are in pixels with (0, 0) at the upper left corner of the first one (PS3.3 C.10.5).
    """
    uid = answer.uid("gsps", image.header.SOPInstanceUID)
    layer = GraphicLayer(layer_name=LAYER, order=1, description="Fracture boxes (research use only)")
    annotation = GraphicAnnotation(
        referenced_images=[image.header],
        graphic_layer=layer,
        graphic_objects=[_graphic(box.corners_px) for box in image.result.boxes]
        + [_graphic(corners) for corners in _drawn(image)]
        or None,
        text_objects=[_headline(image), *(_label(image, box) for box in image.result.boxes)],
    )
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=[image.header],
        sop_instance_uid=uid,
        instance_number=(answer.version - 1) * len(answer.images) + number,
        manufacturer_model_name=MODEL,
        software_versions=answer.software,
        device_serial_number=answer.model_sha256[:16] or "unknown",
        content_label="FRACTURES",
        content_description=f"{NOTICE}; version {answer.version}",
        graphic_annotations=[annotation],
        graphic_layers=[layer],
        presentation_lut_transformation=PresentationLUTTransformation(_lut_shape(image)),
        institution_name=answer.institution,
        content_creator_name="fracture_det^",
        **series_of(answer, "gsps"),
    )
    state.Laterality = side_of(image.header)
    copy_study(answer, state)
    return uid, encode(state)


def _lut_shape(image: ImageAnswer) -> str:
    """Return what keeps an image as it is: the state decides alone which end is bright (PS3.3 C.11.6.1.2)."""
    return "INVERSE" if image.header.PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"


def is_grayscale(image: ImageAnswer) -> bool:
    """Return whether a presentation state of this kind can refer to the image: it has one sample per pixel."""
    return str(image.header.get("PhotometricInterpretation", "")).startswith("MONOCHROME")


def _drawn(image: ImageAnswer) -> tuple[tuple[float, float, float, float], ...]:
    """Return the boxes that a reader has drawn, or moved."""
    return () if image.feedback is None else (*image.feedback.missed, *image.feedback.moved.values())


def _graphic(corners_px: tuple[float, float, float, float]) -> GraphicObject:
    x0, y0, x1, y1 = corners_px
    points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], dtype=float)
    return GraphicObject(graphic_type="POLYLINE", graphic_data=points, units="PIXEL")


def _headline(image: ImageAnswer) -> TextObject:
    height, width = int(image.header.Rows), int(image.header.Columns)
    box = (0.0, 0.0, float(width), max(1.0, 2 * LINE_SHARE * height))
    text = f"{NOTICE}. {headline(image.result)}"
    return TextObject(text_value=text, units="PIXEL", bounding_box=box, text_justification="LEFT")


def _label(image: ImageAnswer, box: Box) -> TextObject:
    """Return the text of a box, above it or, where there is no room, in it."""
    height, width = int(image.header.Rows), int(image.header.Columns)
    x0, y0, _, _ = box.corners_px
    line = max(1.0, LINE_SHARE * height)
    top = y0 - line if y0 >= line else y0
    place = (x0, top, min(float(width), x0 + TEXT_SHARE * width), min(float(height), top + line))
    return TextObject(
        text_value=box_text(box, image.verdict(box)), units="PIXEL", bounding_box=place, text_justification="LEFT"
    )
