"""MODEL_CARD.md: what a report says of a detector, in the sections of "Model Cards for Model Reporting".

Mitchell et al., Conference on Fairness, Accountability, and Transparency (FAT*) 2019. What the report does not know
stays open and says so; nothing is assumed about training or use.
"""

from __future__ import annotations

from fracture_det.evaluation.report import Estimate, Report
from fracture_det.reporting.formatting import RESEARCH_ONLY, TITLES, counted, point_title, reading, rule_title, written
from fracture_det.reporting.markdown import code, escaped, table
from fracture_det.reporting.summary import plain_words

OPEN = "not in this report"
TRAINING_CARD = f"{OPEN}; see the training's own card"


def model_card(report: Report) -> str:
    """Return MODEL_CARD.md."""
    parts = [
        f"# Model card: {escaped(report.about.get('detector', 'a fracture detector'))}",
        f"*{RESEARCH_ONLY} Made from an evaluation report.*",
        "## Model details",
        _details(report),
        "## Intended use",
        "Boxes around possible bone fractures on radiographs of limbs, for research. Never to decide about a patient; "
        "not a medical device. A radiograph without a box is not thereby without a fracture.",
        "## Factors",
        _factors(report),
        "## Metrics",
        _metrics(report),
        "## Evaluation data",
        _evaluation_data(report),
        "## Training data",
        _training(report),
        "## Quantitative analyses",
        escaped(plain_words(report)),
        _analyses(report),
        escaped(reading(report)),
        "All figures: [report.html](report.html), [report.md](report.md).",
        "## Ethical considerations",
        f"Consent, approval, and for whom the data speak: {OPEN}.",
        "## Caveats and recommendations",
        _caveats(report),
    ]
    return "\n\n".join(parts) + "\n"


def _details(report: Report) -> str:
    names = (
        "detector",
        "config",
        "weights",
        "weights SHA-256",
        "calibration",
        "calibration SHA-256",
        "fracture_det",
        "commit",
    )
    rows = [[name, code(report.about[name])] for name in names if name in report.about]
    if not rows:
        return f"Name, version and weights: {OPEN}."
    return (
        table(["", ""], rows, words=[True, True])
        + "\n\nDevelopers, date, licence and architecture: "
        + TRAINING_CARD
        + "."
    )


def _factors(report: Report) -> str:
    columns = list(dict.fromkeys(row.column for row in report.strata if row.column != "all"))
    if not columns:
        return "No strata were measured."
    withheld = "Age, sex and other properties of patients are in the report only where they are named here."
    return f"Measured by {escaped(', '.join(columns))}. {withheld}"


def _metrics(report: Report) -> str:
    points = [f"- {escaped(point_title(point))}: {escaped(point.origin)}" for point in report.operating_points]
    points += [
        f"- {escaped(rule_title(rule))}: not reached, {escaped(why)}" for rule, why in report.not_reached.items()
    ]
    return (
        "Boxes: precision, recall, AP (COCO), sensitivity at fixed false positives per image (FROC). Images and "
        "groups: sensitivity, specificity, predictive values, AUROC, AUPRC. Scores: ECE, Brier. Thresholds, the main "
        "one first:\n\n" + "\n".join(points)
    )


def _evaluation_data(report: Report) -> str:
    counts = report.counts
    about = [f"{name} {code(report.about[name])}" for name in ("data", "data SHA-256", "split") if name in report.about]
    return (
        f"{counted(counts['images_predicted'], 'image')} of {counted(counts['groups'], 'group')}: "
        f"{counts['images_fractured']:,} fractured with {counted(counts['boxes_truth'], 'marked fracture')}, "
        f"{counts['images_healthy']:,} healthy. {'; '.join(about) + '. ' if about else ''}Where they come from, and "
        f"who marked the fractures: {OPEN}."
    )


def _training(report: Report) -> str:
    rows = [[escaped(name), code(value)] for name, value in report.about.items() if name.lower().startswith("training")]
    return table(["", ""], rows, words=[True, True]) if rows else TRAINING_CARD[0].upper() + TRAINING_CARD[1:] + "."


def _analyses(report: Report) -> str:
    point = report.operating_points[0]
    rows: list[tuple[str, Estimate]] = [("AP50", report.coco["AP50"])]
    rows += [("Sensitivity of boxes, mean of FROC", next(iter(report.froc.values())).mean)] if report.froc else []
    rows += [("AUROC of images", report.image["AUROC"])]
    rows += [(_of_boxes(name), one) for name, one in point.lesion.items()]
    rows += [(f"{TITLES.get(name, name)} of images", one) for name, one in point.image.items()]
    cells = [[escaped(name), escaped(str(written(one)))] for name, one in rows]
    header = ["Figure", f"At {escaped(point_title(point))}"]
    return "\n\n".join([table(header, cells, words=[True, True]), _by_site(report)]).strip()


def _of_boxes(name: str) -> str:
    title = TITLES.get(name, name)
    return title if name == "fp_per_image" else f"{title} of boxes"


def _by_site(report: Report) -> str:
    rows = [row for row in report.strata if row.column == "anatomy"]
    if not rows:
        return ""
    names = [
        name for name in ("AP50", "sensitivity", "specificity", "AUROC") if any(name in row.figures for row in rows)
    ]
    cells = [
        [escaped(row.value), f"{row.n_images:,}"]
        + [escaped(str(written(row.figures[name]))) if name in row.figures else "" for name in names]
        for row in rows
    ]
    return table(["Site", "Images", *(TITLES.get(name, name) for name in names)], cells)


def _caveats(report: Report) -> str:
    notes = [f"- {escaped(note)}" for note in report.notes]
    notes += ["- One data set was measured: other hospitals, machines and readers were not."]
    if not report.robustness:
        notes += ["- Robustness to poor images was not measured."]
    if all(one.scores == "raw" for one in report.calibration):
        notes += ["- No calibration was applied: a score of .8 does not mean 80 %."]
    return "\n".join(notes)
