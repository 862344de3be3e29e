"""The sections of a report after its opening: which tables and figures they hold, and in what order."""

from __future__ import annotations

from fracture_det.evaluation.report import Report
from fracture_det.reporting import analyses, performance
from fracture_det.reporting.blocks import Figure, Files, Section
from fracture_det.reporting.types import SECTION, types_section

SUMMARY_TITLE, NOTES_TITLE = "Summary", "Notes and limitations"
NO_NOTES = "None."
OVERVIEW = Figure(
    "overview",
    "Left: free-response ROC (FROC) curve of boxes at IoU ≥ .5. Right: image-level ROC curve. The same symbol marks "
    "the same operating point in both.",
    "Free-response ROC curve beside the image-level ROC curve with the operating points marked; the values are in the "
    "tables of operating points and of lesion-level performance.",
)
CHECKLISTS = (
    ("MODEL_CARD.md", "model card, generated from this report"),
    ("CLAIM_2024.md", "CLAIM checklist (2024 update), completed as far as this report allows"),
    ("TRIPOD_AI.md", "TRIPOD+AI checklist, completed as far as this report allows"),
)
DATA_FILES = (
    ("report.json", "every figure of this report, machine-readable"),
    ("per_anatomy.csv", "the subgroup table by body part"),
    ("strata.csv", "the table of all subgroups"),
)


def sections(report: Report) -> list[Section]:
    """Return the sections of a report that follow its opening, in reading order."""
    contents = {
        ("data", "Data"): performance.data(report),
        ("operating-points", "Operating points"): performance.operating_points(report),
        ("boxes", "Lesion-level performance"): performance.lesion_level(report),
        ("images", "Image-level and group-level performance"): performance.image_level(report),
        ("calibration", "Calibration"): performance.calibration(report),
        SECTION: types_section(report),
        ("strata", "Subgroup analysis"): analyses.subgroups(report),
        ("errors", "Error analysis"): analyses.errors(report),
        ("robustness", "Robustness"): analyses.robustness(report),
        ("speed", "Inference time"): analyses.inference_time(report),
        ("provenance", "Reproducibility"): analyses.reproducibility(report),
        ("failures", "Failures"): analyses.failures(report),
        ("files", "Checklists and data files"): [Files((*CHECKLISTS, *DATA_FILES))],
    }
    made = [Section(name, title, list(blocks)) for (name, title), blocks in contents.items()]
    return [section for section in made if section.blocks or section.id != SECTION[0]]
