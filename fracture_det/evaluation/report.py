"""One evaluation: a data set and what was predicted on it in, a Report out, which is saved and read back."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fracture_det import figures

FORMAT = "fracture_det report"
VERSION = 1
# Cells that rest on fewer than this are marked: their value says little.
SMALL_N = 30
SMALL_MARK = "†"
TITLES = {
    "precision": "Precision (share of boxes that hit)",
    "recall": "Recall (share of fractures found)",
    "f1": "F1",
    "sensitivity": "Image sensitivity",
    "specificity": "Image specificity",
    "accuracy": "Image accuracy",
}


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
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(self.to_json(), encoding="utf-8")
        (folder / "report.md").write_text(markdown(self), encoding="utf-8")
        with (folder / "per_site.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(_site_cells(self.sites))
        draw_figures(self, folder)

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


# --- for people: report.md, per_site.csv and the figures, all drawn from what report.json keeps --------------------


def draw_figures(report: Report, folder: Path) -> None:
    """Draw pr_curve.png and froc.png from a report, new or loaded."""
    pr = report.curves.get("pr", {"recall": [], "precision": []})
    marks = {}
    for point in report.operating_points:
        recall, precision = point.figures["recall"].value, point.figures["precision"].value
        if recall is not None and precision is not None and report.settings["iou"] == 0.5:
            marks[f"{point.name}, score {point.score:g}"] = (recall, precision)
    ap50 = report.coco["AP50"].value
    figures.draw_pr_curve(pr["recall"], pr["precision"], folder / "pr_curve.png", ap50=ap50, points=marks)
    froc = report.curves.get("froc", {"fp_per_image": [], "sensitivity": []})
    pairs = zip(report.froc.fp_per_image, report.froc.sensitivity, strict=True)
    points = [(x, one.value, one.low, one.high) for x, one in pairs if one.value is not None]
    figures.draw_froc(froc["fp_per_image"], froc["sensitivity"], folder / "froc.png", points=points)


def _site_cells(rows: Sequence[SiteRow]) -> list[list[str]]:
    """Return per_site.csv: a header and a row per site; an undefined cell is empty."""
    header = ["site", "n_images", "n_fractured", "n_boxes"]
    for name in ("ap50", "precision", "recall"):
        header += [name, f"{name}_low", f"{name}_high", f"{name}_n"]
    table = [header]
    for row in rows:
        line = [row.site, str(row.n_images), str(row.n_fractured), str(row.n_boxes)]
        for cell in (row.ap50, row.precision, row.recall):
            line += ["" if value is None else f"{value:.6g}" for value in (cell.value, cell.low, cell.high, cell.n)]
        table.append(line)
    return table


def markdown(report: Report) -> str:
    """Return report.md."""
    parts = ["# Evaluation of a fracture detector", _summary(report)]
    if report.notes:
        parts += ["## To be known first", "\n".join(f"- {note}" for note in report.notes)]
    parts += ["![Free-response curve](froc.png)", "![Precision and recall](pr_curve.png)"]
    parts += ["## At the operating points", _operating_table(report)]
    parts += ["## Boxes", "From pycocotools.", _table(["Figure", "Value"], _coco_rows(report))]
    parts += ["## Free response", _froc_table(report)]
    parts += ["## Images", _table(["Figure", "Value"], [["AUROC (highest box score)", _cell(report.image["AUROC"])]])]
    parts += ["## By site", f"At score {report.operating_points[0].score:g}.", _site_table(report.sites)]
    parts += [f"{SMALL_MARK} rests on fewer than {SMALL_N}: read it as an example, not as a rate."]
    if report.failures:
        parts += ["## Failed images", _table(["Image", "Error"], [[k, v] for k, v in sorted(report.failures.items())])]
    parts += ["## How it was made", _table(["", ""], _provenance(report))]
    parts += ["Research use only; not a medical device."]
    return "\n\n".join(parts) + "\n"


def _summary(report: Report) -> str:
    counts, point = report.counts, report.operating_points[0]
    sentences = [
        f"{report.about.get('detector', 'The detector')} was asked about {counts['images_asked']} radiographs and "
        f"answered on {counts['images_predicted']}: {counts['images_fractured']} fractured with "
        f"{counts['boxes_truth']} marked fractures, {counts['images_healthy']} healthy, from {counts['groups']} groups."
    ]
    for figure, kind in (("sensitivity", "fractured"), ("specificity", "healthy")):
        one = point.figures[figure]
        if one.value is not None and one.n is not None and one.count is not None:
            called = one.count if kind == "fractured" else one.n - one.count
            sentences.append(f"At score {point.score:g} it called {called} of {one.n} {kind} images fractured.")
    recall = point.figures["recall"]
    if recall.value is not None:
        sentences.append(f"Its boxes hit {recall.count} of {recall.n} marked fractures.")
    return " ".join(sentences)


def _operating_table(report: Report) -> str:
    points = report.operating_points
    rows = [[title, *(_cell(point.figures[key]) for point in points)] for key, title in TITLES.items()]
    for key in ("boxes", "images"):
        names = [name for name in points[0].counts if name.startswith(key)]
        label = f"{key.capitalize()}: " + ", ".join(name.removeprefix(f"{key}_").upper() for name in names)
        rows.append([label, *(", ".join(str(point.counts[name]) for name in names) for point in points)])
    return _table(["Figure", *(f"{point.name.capitalize()}, score {point.score:g}" for point in points)], rows)


def _coco_rows(report: Report) -> list[list[str]]:
    return [[name, _cell(figure, digits=4)] for name, figure in report.coco.items()]


def _froc_table(report: Report) -> str:
    pairs = zip(report.froc.fp_per_image, report.froc.sensitivity, strict=True)
    rows = [[f"{target:g}", _cell(figure)] for target, figure in pairs]
    return _table(["False positives per image", "Sensitivity"], [*rows, ["mean", _cell(report.froc.mean)]])


def _site_table(rows: Sequence[SiteRow]) -> str:
    body = [
        [row.site, str(row.n_images), str(row.n_fractured), str(row.n_boxes)]
        + [_cell(figure) for figure in (row.ap50, row.precision, row.recall)]
        for row in rows
    ]
    return _table(["Site", "Images", "Fractured", "Boxes", "AP50", "Precision", "Recall"], body)


def _provenance(report: Report) -> list[list[str]]:
    rows = [[name, value] for name, value in sorted(report.about.items())]
    rows += [[name, f"{value:g}"] for name, value in sorted(report.settings.items())]
    rows += [[f"timing: {name}", str(value)] for name, value in sorted((report.timing or {}).items())]
    return rows


def _cell(figure: Estimate, digits: int = 3) -> str:
    if figure.value is None:
        return f"not defined: {figure.reason}"
    text = f"{figure.value:.{digits}f}"
    if figure.low is not None and figure.high is not None:
        text += f" ({figure.low:.{digits}f} to {figure.high:.{digits}f})"
    if figure.count is not None:
        text += f", {figure.count}/{figure.n}"
    return text + (f" {SMALL_MARK}" if figure.small else "")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )
