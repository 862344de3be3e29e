"""Write the shipped detector's figures into the documents, so that none is copied by hand.

    .venv/bin/python docs/write_figures.py --report output/report_shipped --sources output/report_sources

--report is an evaluation on FracAtlas' test images, --sources one on the pooled test images of docs/sources.md. Writes
docs/fracatlas.md and docs/overview.png, and in README.md, docs/sources.md and the model card the tables between
`<!-- figures: NAME -->` and `<!-- end of figures -->`. Sentences that quote a figure stay: read them again.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fracture_det.evaluation.report import Estimate, OperatingPoint, Report

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/sources.md", "weights/shipped/MODEL_CARD.md")
# What docs/fracatlas.md takes from the report, by the beginnings of its tables' titles.
TABLES = (
    "Thresholds",
    "Boxes at each",
    "Images at each",
    "Predictive values",
    "Sensitivity at fixed",
    "COCO metrics",
    "Areas under",
    "Calibration error",
    "Performance by",
    "TIDE",
    "Healthy images by",
)
FRACATLAS = """# The shipped detector on FracAtlas
<!-- measured-with: detector {sha256} -->

What the evaluation report of the shipped detector says; confusion tables, bins, galleries and the other figures are in
the report that this command writes.

    .venv/bin/python tools/eval.py --detector shipped --calibration weights/shipped/calibration.json \\
        --data output/shipped/fracatlas/test.json --images datasets/fracatlas/images --batch-size 2 \\
        --out output/report_shipped

*Research use only; not a medical device.*

{summary}

![Free-response curve beside the image-level ROC curve with the operating points](overview.png)

*Left: free-response ROC (FROC) curve of boxes at IoU ≥ .5. Right: image-level ROC curve. The same symbol marks the same
operating point in both.*

{sections}

## Limits

One test set of {images} radiographs, with {fractured} fractured ones; rows with † are examples, not rates. More in the
[model card](../weights/shipped/MODEL_CARD.md).
"""
POINTS = {
    "specificity": 'specificity of .95: from here "likely"',
    "sensitivity": 'sensitivity of .95: from here "possible"',
    "youden": "Youden's index",
    "fp target": "one false positive per image",
    "paper": "the paper's",
}


def main() -> int:
    """Write all of it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, required=True, help="folder of the evaluation on FracAtlas")
    parser.add_argument("--sources", type=Path, required=True, help="folder of the evaluation on pooled sources")
    arguments = parser.parse_args()
    report, sources = (Report.load(folder / "report.json") for folder in (arguments.report, arguments.sources))
    tables = {
        "readme": _readme(report),
        "sources": _sources(sources),
        "card": _card(report),
        "card points": _card_points(report),
        "card body parts": _card_body_parts(report),
    }
    text = (arguments.report / "report.md").read_text(encoding="utf-8")
    (ROOT / "docs/fracatlas.md").write_text(_fracatlas(text, report), encoding="utf-8")
    shutil.copy(arguments.report / "figures" / "overview.png", ROOT / "docs")
    for page in PAGES:
        path = ROOT / page
        path.write_text(_fill(path.read_text(encoding="utf-8"), tables), encoding="utf-8")
    return 0


def _fill(text: str, tables: dict[str, str]) -> str:
    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{tables[match[2]]}\n{match[3]}"

    return re.sub(r"(<!-- figures: ([a-z ]+) -->)\n.*?\n(<!-- end of figures -->)", table, text, flags=re.DOTALL)


def _fracatlas(text: str, report: Report) -> str:
    sections = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        blocks = body.split("\n\n")
        kept = [
            "\n\n".join(blocks[index : index + 2]).strip()
            for index, block in enumerate(blocks)
            if block.strip().startswith(tuple(f"**{title}" for title in TABLES))
        ]
        if kept:
            sections.append("\n\n".join([f"## {heading}", *kept]))
    summary = re.search(r"## Summary\n\n(.+?)\n\n", text, flags=re.DOTALL)
    assert summary is not None, "report.md has no summary"
    return FRACATLAS.format(
        sha256=report.about["weights SHA-256"][:12],
        summary=summary[1],
        sections="\n\n".join(sections),
        images=report.counts["images_predicted"],
        fractured=report.counts["images_fractured"],
    )


def _readme(report: Report) -> str:
    likely, possible = _point(report, "specificity"), _point(report, "sensitivity")
    rows = [
        ("AP at IoU .5", report.coco["AP50"]),
        ("image-level AUROC", report.image["AUROC"]),
        ("fractures found at one false positive per image, IoU .5", _at_one(report, "iou50")),
        ("the same, centre of the box inside the marked one", _at_one(report, "centre")),
        ('"likely": image-level sensitivity', likely.image["sensitivity"]),
        ('"likely": image-level specificity', likely.image["specificity"]),
        ('"possible" or "likely": image-level sensitivity', possible.image["sensitivity"]),
        ('"possible" or "likely": image-level specificity', possible.image["specificity"]),
    ]
    return _table(("figure", "value (95 % interval)"), [(name, _figure(value)) for name, value in rows])


def _card(report: Report) -> str:
    rows = [
        ("AP50 (mAP50, one class)", _figure(report.coco["AP50"])),
        ("FROC sensitivity at 1 false positive per image, IoU .5", _figure(_at_one(report, "iou50"), counts=True)),
        ("the same, IoU .3", _figure(_at_one(report, "iou30"), counts=True)),
        ("the same, centre inside the marked box", _figure(_at_one(report, "centre"), counts=True)),
        ("image AUROC", _figure(report.image["AUROC"])),
    ]
    return _table(("figure", "value"), rows)


def _card_points(report: Report) -> str:
    heads = ("operating point (chosen on validation)", "score", "image sensitivity", "image specificity")
    rows = []
    for rule, title in POINTS.items():
        point = _point(report, rule)
        images = [_figure(point.image[name], counts=True) for name in ("sensitivity", "specificity")]
        boxes = [_figure(point.lesion[name]) for name in ("precision", "recall")]
        rows.append((title, f"{point.score:.3f}".removeprefix("0"), *images, *boxes))
    return _table((*heads, "precision", "recall"), rows)


def _card_body_parts(report: Report) -> str:
    rows = [
        (one.value, str(one.n_images), str(one.n_fractured), *(_figure(one.figures[name]) for name in names))
        for names in [("AP50", "precision", "recall", "AUROC")]
        for one in report.strata
        if one.column == "anatomy"
    ]
    return _table(("body part", "images", "fractured", "AP50", "precision", "recall", "AUROC"), rows)


def _sources(report: Report) -> str:
    titles = {
        "fracatlas": "FracAtlas",
        "healthy_closeups": "close-ups of its healthy films, down to a finger",
        "bonebreak": "Bone Break, pictures with boxes",
    }
    names = ("AP50", "sensitivity", "specificity", "AUROC")
    found = {one.value: one for one in report.strata if one.column == "source"}
    rows = [
        (title, f"{found[name].n_images}, {found[name].n_boxes}", *_source_figures(found[name].figures, names))
        for name, title in titles.items()
    ]
    heads = ("source, test part", "images, fractures", "AP50", '"likely": image sensitivity')
    return _table((*heads, '"likely": image specificity', "image AUROC"), rows)


def _source_figures(figures: dict[str, Estimate], names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield _figure(figures[name], counts=True)


def _point(report: Report, rule: str) -> OperatingPoint:
    return next(point for point in report.operating_points if point.rule == rule)


def _at_one(report: Report, rule: str) -> Estimate:
    froc = report.froc[rule]
    return froc.sensitivity[list(froc.fp_per_image).index(1)]


def _figure(estimate: Estimate, *, counts: bool = False) -> str:
    """Return ".433 (.315 to .539)", with the count it is a share of where asked for, or "-" where it is not defined."""
    if estimate.value is None:
        return "-"
    numbers = (estimate.value, estimate.low, estimate.high)
    value, low, high = (re.sub(r"^0(?=\.)", "", f"{number:.3f}") for number in numbers)
    share = f", {estimate.count}/{estimate.n}" if counts and estimate.count is not None else ""
    return f"{value} ({low} to {high}){share}"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
