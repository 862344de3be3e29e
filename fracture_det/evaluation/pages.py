"""A Report for people: report.md, per_site.csv and the figures, all drawn from what report.json keeps."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from fracture_det import figures
from fracture_det.evaluation.report import SMALL_N, Estimate, Report, SiteRow

SMALL_MARK = "†"
TITLES = {
    "precision": "Precision (share of boxes that hit)",
    "recall": "Recall (share of fractures found)",
    "f1": "F1",
    "sensitivity": "Image sensitivity",
    "specificity": "Image specificity",
    "accuracy": "Image accuracy",
}


def write_pages(report: Report, folder: Path) -> None:
    """Write report.md, per_site.csv, pr_curve.png and froc.png into an existing folder."""
    draw_figures(report, folder)
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    with (folder / "per_site.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(site_cells(report.sites))


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


def site_cells(rows: Sequence[SiteRow]) -> list[list[str]]:
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
