"""Whether anything can be used of what was read, and the words that help where nothing can."""

from __future__ import annotations

import shlex
from collections import Counter

from fracture_det.data.formats import CheckedDataset
from fracture_det.data.pairing import AnnotationSource
from fracture_det.data.prepare_options import PrepareOptions
from fracture_det.data.records import EXCLUDED
from fracture_det.data.stated_types import known_type
from fracture_det.structures.wording import counted


class NothingUsableError(ValueError):
    """No image can be used, or none of the images with boxes; the message says what was found and what helps."""


def check_usable(checked: CheckedDataset, source: AnnotationSource, options: PrepareOptions) -> None:
    """Raise NothingUsableError when no image, or no image with a box, is left of those that there were."""
    excluded = Counter(problem.kind for problem in checked.problems if problem.action == EXCLUDED)
    some_matched = any(source.has(name) for name in source.images)
    if not source.n_items and not options.missing_xml_is_healthy:
        raise NothingUsableError(source.nothing_found())
    if source.n_items and not some_matched:
        raise NothingUsableError(f"no annotation belongs to an image: {source.examples()}")
    if any(record.fractured for record in checked.dataset):
        return
    boxes = sum(checked.class_counts.values())
    if checked.faults and not boxes:
        faults = f"{counted(checked.faults, 'annotation')} cannot be used: {_kinds(excluded)}"
        raise NothingUsableError(f"no image with a box is left, and {faults}")
    if boxes:
        reason = class_hint(checked, options) or _kinds(excluded)
        raise NothingUsableError(f"no image with a box can be used, of {counted(boxes, 'box', 'boxes')}: {reason}")
    if not len(checked.dataset):
        hint = "; --missing-xml-is-healthy takes images without annotation as healthy" * bool(excluded["unlabelled"])
        raise NothingUsableError(f"no image can be used: {_kinds(excluded)}{hint}")


def _kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{n:,} {kind}" for kind, n in counts.most_common(5)) or "nothing was found"


def class_hint(checked: CheckedDataset, options: PrepareOptions) -> str:
    """Return the classes of the files that are not known, with a ready --class-map, or an empty text."""
    rules = options.rules
    unknown = {name: n for name, n in checked.class_counts.items() if rules.class_index(name) is None}
    if not unknown:
        return ""
    target = rules.class_names[0] if len(rules.class_names) == 1 else "CLASS"
    ordered = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
    found = ", ".join(f"{name} ({counted(n, 'box', 'boxes')})" for name, n in ordered)
    kinds = {name: f":{kind}" if (kind := known_type(name)) else "" for name in sorted(unknown)}
    mapped = " ".join(shlex.quote(f"{name}={target}{kind}") for name, kind in kinds.items())
    return (
        f"the annotations have the class{'es' * (len(unknown) > 1)} {found}, expected {', '.join(rules.class_names)}; "
        f"where they mean the same, give --class-map {mapped}"
    )
