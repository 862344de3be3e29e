"""Labels of a whole image (tags, flags, choices): they say what boxes alone do not."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from fracture_det.data.annotation_formats.fields import FieldReader

HEALTHY_LABELS = frozenset(
    {
        "background",
        "healthy",
        "intact",
        "negative",
        "no abnormality",
        "no finding",
        "no findings",
        "no fracture",
        "no fractures",
        "no lesion",
        "non fracture",
        "non fractured",
        "normal",
        "not fractured",
        "unfractured",
    }
)


def means_healthy(label: str) -> bool:
    """Return whether a label of a whole image says that nothing is to be found on it."""
    return " ".join(re.findall(r"[^\W_]+", label.lower())) in HEALTHY_LABELS


def check_image_labels(reader: FieldReader, labels: Sequence[str], boxes: Collection[object]) -> None:
    """Note a label of health beside boxes. Raises AnnotationError for another label without any box.

    `fractured`, said of an image without a box, must not become a healthy image; nor may a label that the reader
    does not know.
    """
    for label in labels:
        if not boxes and not means_healthy(label):
            raise reader.fail(
                "label of the image", f"{label!r}, and no box: not known to be healthy", kind="label_without_box"
            )
        if boxes and means_healthy(label):
            reader.note("label_of_image", f"the image is labelled {label!r}, and has boxes; the boxes are used")
