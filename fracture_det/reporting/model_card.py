"""MODEL_CARD.md: the results of a report, in the sections of "Model Cards for Model Reporting".

Mitchell et al., Conference on Fairness, Accountability, and Transparency (FAT*) 2019. What the report does not
contain is marked as missing; nothing is assumed about training or use.
"""

from __future__ import annotations

from fracture_det.evaluation.provenance import (
    CALIBRATION,
    COMMIT,
    CONFIG,
    DATA,
    DETECTOR,
    SPLIT,
    WEIGHTS,
    digest_key,
)
from fracture_det.evaluation.report import ALL, ANATOMY, RAW, Estimate, Report
from fracture_det.reporting.formatting import (
    RESEARCH_ONLY,
    TITLES,
    column_name,
    format_estimate,
    point_title,
    reading,
    rule_title,
)
from fracture_det.reporting.markdown import code, escaped, table
from fracture_det.reporting.summary import summary_text
from fracture_det.structures.wording import counted

MISSING = "not in this report"
TRAINING_CARD = f"{MISSING}; see the model card of the training"
# The facts of `about` under Model details.
DETAILS = (
    DETECTOR,
    CONFIG,
    WEIGHTS,
    digest_key(WEIGHTS),
    CALIBRATION,
    digest_key(CALIBRATION),
    "fracture_det",
    COMMIT,
)


def model_card(report: Report) -> str:
    """Return MODEL_CARD.md."""
    parts = [
        f"# Model card: {escaped(report.about.get(DETECTOR, 'a fracture detector'))}",
        f"*{RESEARCH_ONLY} Generated from an evaluation report.*",
        "## Model details",
        _details(report),
        "## Intended use",
        "Localisation of possible bone fractures on limb radiographs, for research. Not a medical device; not for "
        "clinical decisions. A radiograph without a box may still show a fracture.",
        "## Factors",
        _factors(report),
        "## Metrics",
        _metrics(report),
        "## Evaluation data",
        _evaluation_data(report),
        "## Training data",
        _training(report),
        "## Quantitative analyses",
        escaped(summary_text(report)),
        _analyses(report),
        escaped(reading(report)),
        "All figures: [report.html](report.html), [report.md](report.md).",
        "## Ethical considerations",
        f"Consent, ethical approval and representativeness of the data: {MISSING}.",
        "## Caveats and recommendations",
        _caveats(report),
    ]
    return "\n\n".join(parts) + "\n"


def _details(report: Report) -> str:
    rows = [[name, code(report.about[name])] for name in DETAILS if name in report.about]
    if not rows:
        return f"Name, version and weights: {MISSING}."
    return (
        table(["", ""], rows, words=[True, True])
        + "\n\nDevelopers, date, licence and architecture: "
        + TRAINING_CARD
        + "."
    )


def _factors(report: Report) -> str:
    columns = dict.fromkeys(column_name(row.column) for row in report.strata if row.column != ALL)
    if not columns:
        return "No subgroups were measured."
    others = "Age, sex and other characteristics of patients were evaluated only if they are listed here."
    return f"Subgroups were evaluated by {escaped(', '.join(columns))}. {others}"


def _metrics(report: Report) -> str:
    points = [f"- {escaped(point_title(point))}: {escaped(point.origin)}" for point in report.operating_points]
    points += [
        f"- {escaped(rule_title(rule))}: not reached, {escaped(reason)}" for rule, reason in report.not_reached.items()
    ]
    return (
        "Lesion level: precision, recall, AP (COCO), sensitivity at fixed false positives per image (FROC). Image and "
        "group level: sensitivity, specificity, predictive values, AUROC, AUPRC. Calibration: ECE, Brier score. "
        "Operating points, the main one first:\n\n" + "\n".join(points)
    )


def _evaluation_data(report: Report) -> str:
    counts = report.counts
    names = (DATA, digest_key(DATA), SPLIT)
    files = "; ".join(f"{name} {code(report.about[name])}" for name in names if name in report.about)
    return (
        f"{counted(counts['images_predicted'], 'image')} from {counted(counts['groups'], 'group')}: "
        f"{counts['images_fractured']:,} fractured with {counted(counts['boxes_truth'], 'annotated fracture')}, "
        f"{counts['images_healthy']:,} healthy. {f'Files: {files}. ' if files else ''}Source of the data and "
        f"annotators: {MISSING}."
    )


def _training(report: Report) -> str:
    rows = [[escaped(name), code(value)] for name, value in report.about.items() if name.lower().startswith("training")]
    return table(["", ""], rows, words=[True, True]) if rows else TRAINING_CARD[0].upper() + TRAINING_CARD[1:] + "."


def _analyses(report: Report) -> str:
    point = report.operating_points[0]
    rows: list[tuple[str, Estimate]] = [("AP50", report.coco["AP50"])]
    rows += [("Lesion sensitivity, mean of FROC", next(iter(report.froc.values())).mean)] if report.froc else []
    rows += [("AUROC, images", report.image["AUROC"])]
    rows += [(_box_title(name), figure) for name, figure in point.lesion.items()]
    rows += [(f"{TITLES.get(name, name)}, images", figure) for name, figure in point.image.items()]
    cells = [[escaped(name), escaped(str(format_estimate(figure)))] for name, figure in rows]
    header = ["Metric", f"At {escaped(point_title(point))}"]
    return "\n\n".join([table(header, cells, words=[True, True]), _by_anatomy(report)]).strip()


def _box_title(name: str) -> str:
    title = TITLES.get(name, name)
    return title if name == "fp_per_image" else f"{title}, boxes"


def _by_anatomy(report: Report) -> str:
    rows = [row for row in report.strata if row.column == ANATOMY]
    if not rows:
        return ""
    names = [
        name for name in ("AP50", "sensitivity", "specificity", "AUROC") if any(name in row.figures for row in rows)
    ]
    cells = [
        [escaped(row.value), f"{row.n_images:,}"]
        + [escaped(str(format_estimate(row.figures[name]))) if name in row.figures else "" for name in names]
        for row in rows
    ]
    return table(["Body part", "Images", *(TITLES.get(name, name) for name in names)], cells)


def _caveats(report: Report) -> str:
    notes = [f"- {escaped(note)}" for note in report.notes]
    notes += [
        "- Only one data set was evaluated: performance at other hospitals, with other equipment or readers is unknown."
    ]
    if not report.robustness:
        notes += ["- Robustness to poor image quality was not measured."]
    if all(reliability.scores == RAW for reliability in report.calibration):
        notes += ["- No calibration was applied: a score of .8 is not a probability of 80 %."]
    return "\n".join(notes)
