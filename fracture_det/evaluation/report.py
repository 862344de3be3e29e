"""One evaluation: a data set and what was predicted on it in, a Report out, which is saved and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "fracture_det report"
VERSION = 1
# Cells that rest on fewer than this are marked: their value says little.
SMALL_N = 30


class ReportError(ValueError):
    """A report file cannot be read; the message says file, field and value."""


@dataclass(frozen=True)
class Estimate:
    """One figure, 0..1, with what it rests on.

    value: None where it is not defined; `reason` then says why.
    low, high: 95 % interval by bootstrap over groups, or None.
    count, n: numerator and denominator, where the figure is a proportion; n alone is what it rests on.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    n: int | None = None
    reason: str | None = None

    @property
    def small(self) -> bool:
        """True when it rests on fewer than 30."""
        return self.n is not None and self.n < SMALL_N


@dataclass(frozen=True)
class OperatingPoint:
    """All figures at one score threshold.

    figures: precision, recall, f1 (boxes at the report's IoU); sensitivity, specificity, accuracy (images).
    counts: boxes_tp, boxes_fp, boxes_fn, images_tp, images_fn, images_fp, images_tn.
    """

    name: str
    score: float
    figures: Mapping[str, Estimate]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class SiteRow:
    """One row of the per-site table (the paper's Table II); site "all" is every image."""

    site: str
    n_images: int
    n_fractured: int
    n_boxes: int
    ap50: Estimate
    precision: Estimate
    recall: Estimate


@dataclass(frozen=True)
class Froc:
    """Sensitivity at fixed false positives per image, and their mean."""

    fp_per_image: tuple[float, ...]
    sensitivity: tuple[Estimate, ...]
    mean: Estimate


@dataclass(frozen=True)
class Report:
    """Everything one evaluation found; equal inputs give an equal Report, `timing` aside.

    about: detector, data and where the operating score comes from, as the caller states them.
    settings: iou, seed, n_bootstrap, level.
    counts: images asked, predicted, failed, failed_fractured, fractured, healthy; groups; boxes; detections.
    coco: the twelve figures of COCOeval. image: AUROC.
    curves: the points of the figures: pr, froc, roc.
    failures: image -> error; these images are in no figure. notes: what a reader must know, in sentences.
    timing: images, seconds in the detector, images_per_second, machine; None where nothing was run.
    """

    about: Mapping[str, str]
    settings: Mapping[str, float]
    counts: Mapping[str, int]
    coco: Mapping[str, Estimate]
    image: Mapping[str, Estimate]
    froc: Froc
    operating_points: tuple[OperatingPoint, ...]
    sites: tuple[SiteRow, ...]
    curves: Mapping[str, Mapping[str, Sequence[float]]]
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    timing: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """Return the report as JSON text: fields in order, no NaN, the same bytes for the same content."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> None:
        """Write report.json, report.md, per_site.csv, pr_curve.png and froc.png into `folder`, made when missing."""
        from fracture_det.evaluation.pages import write_pages  # it draws from a Report

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(self.to_json(), encoding="utf-8")
        write_pages(self, folder)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report.json, or the one in a folder. Raises ReportError naming file, field and value."""
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ReportError(f"{path}: cannot be read: {error}") from error
        found = (content.get("format"), content.get("version")) if isinstance(content, dict) else (None, None)
        if found != (FORMAT, VERSION):
            raise ReportError(f"{path}: expected format {FORMAT!r}, version {VERSION}, got {found[0]!r}, {found[1]!r}")
        try:
            return _from_json(content)
        except (KeyError, TypeError) as error:
            raise ReportError(f"{path}: a field is missing or wrong: {error}") from error


def _from_json(content: dict[str, Any]) -> Report:
    def estimates(rows: Mapping[str, Any]) -> dict[str, Estimate]:
        return {name: Estimate(**row) for name, row in rows.items()}

    froc = content["froc"]
    points = [{**point, "figures": estimates(point["figures"])} for point in content["operating_points"]]
    cells = ("ap50", "precision", "recall")
    sites = [{**row, **estimates({name: row[name] for name in cells})} for row in content["sites"]]
    known = {name: value for name, value in content.items() if name not in ("format", "version")}
    return Report(
        **{
            **known,
            "coco": estimates(content["coco"]),
            "image": estimates(content["image"]),
            "froc": Froc(
                tuple(froc["fp_per_image"]), tuple(Estimate(**row) for row in froc["sensitivity"]),
                Estimate(**froc["mean"]),
            ),
            "operating_points": tuple(OperatingPoint(**point) for point in points),
            "sites": tuple(SiteRow(**row) for row in sites),
            "notes": tuple(content["notes"]),
        }
    )  # fmt: skip
