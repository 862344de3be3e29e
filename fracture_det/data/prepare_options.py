"""The options of prepare_dataset.py."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fracture_det.data.checks import AnnotationRules
from fracture_det.structures.image_files import escaped
from fracture_det.structures.processors import available_cpus

DEFAULT_NEIGHBOURS = 10
# The format is known from what the annotations hold; with DICOM, every image must be a DICOM file besides.
AUTO, DICOM = "auto", "dicom"


@dataclass(frozen=True)
class PrepareOptions:
    """The options of prepare_dataset.py, named as on its command line.

    images, annotations: where to read. rules: classes and repairs. fractions: of train, val and test; None means
    the default, restricted to the splits that `split_from` does not name. neighbours: consecutive numbers per group.
    allow_empty_split: a split may come out empty. strict: nothing is written when anything is left out.
    """

    images: Path
    annotations: Path
    out: Path
    format: str = AUTO
    rules: AnnotationRules = field(default_factory=AnnotationRules)
    yolo_names: tuple[str, ...] | None = None
    metadata: Path | None = None
    anatomy_columns: tuple[str, ...] = ()
    group_column: str | None = None
    neighbours: int = DEFAULT_NEIGHBOURS
    fractions: tuple[float, float, float] | None = None
    split_from: Path | None = None
    drop_leaks: bool = False
    allow_empty_split: bool = False
    missing_xml_is_healthy: bool = False
    strict: bool = False
    seed: int = 0
    workers: int = field(default_factory=lambda: min(available_cpus(), 8))

    def __post_init__(self) -> None:
        if self.neighbours < 0:
            raise ValueError(f"neighbours: expected 0 or more, got {self.neighbours}")
        if self.group_column and not self.metadata:
            raise ValueError("group column: needs a metadata table")
        if self.anatomy_columns and not self.metadata:
            raise ValueError("anatomy columns: need a metadata table")


def describe(options: PrepareOptions) -> dict[str, Any]:
    """Return the options that decide the result, in the form in which split.json keeps them."""
    content = asdict(options)
    for key in ("out", "workers"):
        del content[key]
    content["rules"]["repairs"] = sorted(options.rules.repairs)
    return {key: escaped(str(value)) if isinstance(value, Path) else value for key, value in content.items()}
