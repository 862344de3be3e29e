"""The sections of a report after its opening: which tables and figures answer which question, and in what order."""

from __future__ import annotations

from fracture_det.evaluation.report import Report
from fracture_det.reporting import analyses, performance
from fracture_det.reporting.blocks import Drawing, Files, Section

OVERVIEW = Drawing(
    "overview",
    "Left: fractures found (IoU at least .5) for the false boxes that one accepts. Right: fractured images called "
    "fractured, for the healthy ones that are called, too. Equal symbols mark the same operating point in both.",
    "Free-response curve beside the image-level ROC curve with the operating points marked; the values are in the "
    "tables of operating points and of boxes.",
)
CHECKLISTS = (
    ("MODEL_CARD.md", "model card, generated from this report"),
    ("CLAIM_2024.md", "CLAIM, 2024 update: a skeleton, filled as far as this report answers it"),
    ("TRIPOD_AI.md", "TRIPOD+AI: a skeleton, filled as far as this report answers it"),
)
DATA_FILES = (
    ("report.json", "every figure of this report, for programs"),
    ("per_anatomy.csv", "the table by body part"),
    ("strata.csv", "the tables of all strata"),
)


def sections(report: Report) -> list[Section]:
    """Return the sections of a report that follow its opening, in reading order."""
    made = {
        ("operating-points", "Operating points"): performance.operating(report),
        ("boxes", "Lesion level: are the boxes on the fractures?"): performance.lesions(report),
        ("images", "Image and group level: is there a fracture at all?"): performance.images(report),
        ("calibration", "Calibration: what a score is worth"): performance.calibration(report),
        ("strata", "Strata: for whom it works better or worse"): analyses.strata(report),
        ("errors", "Errors: what goes wrong"): analyses.errors(report),
        ("robustness", "Robustness: what poor images do"): analyses.robustness(report),
        ("speed", "Speed"): analyses.speed(report),
        ("provenance", "Provenance: how to make it again"): analyses.provenance(report),
        ("failures", "Failed images"): analyses.failures(report),
        ("files", "Checklists and data"): [Files((*CHECKLISTS, *DATA_FILES))],
    }
    return [Section(name, title, list(blocks)) for (name, title), blocks in made.items()]
