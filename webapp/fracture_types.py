"""What a result says of the type of a fracture, in one wording for the API, the pages, the reports and the node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from numpy.typing import NDArray

from fracture_det.inference.service import Detections
from fracture_det.structures.fracture_types import fracture_types
from fracture_det.structures.wording import percent

from .schemas import ListedTypeSchema, TypeFindingSchema, TypeSchema

UNCERTAIN = "Type uncertain"
# A second type stands beside the first from this probability on.
SHOWN_FROM, SHOWN_AT_MOST = 0.1, 2


def title_of(name: str) -> str:
    """Return a type as the first word of a line, also one that is no longer in the list."""
    known = fracture_types().find(name)
    return name[:1].upper() + name[1:] if known is None else known.title


def definition_of(name: str) -> str:
    """Return the definition of a type, or an empty text of one that is no longer in the list."""
    known = fracture_types().find(name)
    return "" if known is None else known.definition


def listed_types() -> list[ListedTypeSchema]:
    """Return every type that a reader may state."""
    return [
        ListedTypeSchema(name=kind.name, title=kind.title, definition=kind.definition)
        for kind in fracture_types().types
    ]


def type_schemas(names: Sequence[str], probabilities: Iterable[float]) -> list[TypeSchema]:
    """Return types with their probabilities (0..1), the highest first."""
    shares = sorted(zip(probabilities, names, strict=True), key=lambda pair: -pair[0])
    return [TypeSchema(name=name, title=title_of(name), probability=_rounded(share)) for share, name in shares]


def image_types(detections: Detections, names: Sequence[str]) -> list[TypeSchema]:
    """Return the types of a radiograph with a finding: the mean of its boxes by score; none without boxes."""
    means: NDArray | None = detections.image_types()
    return [] if means is None else type_schemas(names, means.tolist())


def named(types: Sequence[TypeSchema], confidence: float | None) -> TypeSchema | None:
    """Return the type that is named: the first of `types`, unless it is below what the detector needs to name one."""
    if not types or types[0].probability < _rounded(confidence or 0.0):
        return None
    return types[0]


def leading(types: Sequence[TypeSchema]) -> list[TypeSchema]:
    """Return those of `types` that stand in one line: the first, and the second where it is likely enough."""
    return [kind for kind in types[:SHOWN_AT_MOST] if kind is types[0] or kind.probability >= SHOWN_FROM]


def type_finding(
    types: Sequence[TypeSchema], confidence: float | None, accuracy: float | None
) -> TypeFindingSchema | None:
    """Return what is said of the types of a radiograph, or None where there is none to speak of."""
    if not types:
        return None
    first = named(types, confidence)
    shares = ", ".join(f"{kind.name} {percent(kind.probability)}" for kind in leading(types))
    return TypeFindingSchema(
        name=None if first is None else first.name,
        uncertain=first is None,
        title=UNCERTAIN if first is None else f"Type of fracture: {shares}",
        notice=_notice(first is None, confidence, accuracy),
        confidence=confidence,
        accuracy=accuracy,
    )


def _notice(is_uncertain: bool, confidence: float | None, accuracy: float | None) -> str:
    """Return how far the types can be trusted, in words."""
    sentences = []
    if is_uncertain and confidence is not None:
        sentences.append(f"No type reaches {percent(confidence)}, from which on this detector names one.")
    if accuracy is None:
        sentences.append("How often the named type is right is not measured for this detector.")
    else:
        sentences.append(
            f"The type that this detector names was right for {percent(accuracy)} of validation radiographs."
        )
    return " ".join([*sentences, "It is only a hint: look for yourself."])


def _rounded(share: float) -> float:
    return round(min(share, 1.0), 4)
