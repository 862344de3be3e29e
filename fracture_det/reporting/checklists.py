"""CLAIM (2024 update) and TRIPOD+AI, partly completed: what a report covers, with its values, and what it does not.

Numbers and order of the items are those of the published checklists; their titles here are our own summaries.
CLAIM: Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300. TRIPOD+AI: Collins et al., BMJ
2024;385:e078378.
An item counts as reported only when the report itself contains the information.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fracture_det.evaluation.report import Report
from fracture_det.reporting import checklist_answers
from fracture_det.reporting.checklist_answers import ChecklistAnswer
from fracture_det.reporting.formatting import RESEARCH_ONLY
from fracture_det.reporting.markdown import escaped, table

NOT_REPORTED = "not reported"


@dataclass(frozen=True)
class Item:
    """An item of a checklist. answer: None where no report has one. scope: D, E or D;E, as in TRIPOD+AI."""

    number: str
    title: str
    answer: Callable[[Report], ChecklistAnswer | None] | None = None
    scope: str = ""


# heading -> its items
Parts = Mapping[str, Sequence[Item]]
CLAIM: Parts = {
    "Title and abstract": (
        Item("1", "Title or abstract names the AI technology"),
        Item("2", "Structured summary of design, methods, results and conclusions", checklist_answers.summary),
    ),
    "Introduction": (
        Item("3", "Background, intended use and clinical role"),
        Item("4", "Aims, objectives and hypotheses"),
    ),
    "Methods: study design": (
        Item("5", "Prospective or retrospective design"),
        Item("6", "Goal of the study"),
    ),
    "Methods: data": (
        Item("7", "Data sources", checklist_answers.sources),
        Item("8", "Inclusion and exclusion criteria"),
        Item("9", "Preprocessing"),
        Item("10", "Selection of subsets of the data"),
        Item("11", "De-identification"),
        Item("12", "Missing data", checklist_answers.missing),
        Item("13", "Image acquisition protocol"),
    ),
    "Methods: reference standard": (
        Item("14", "Definition of the reference standard"),
        Item("15", "Rationale for the reference standard"),
        Item("16", "Annotators"),
        Item("17", "Annotation of the test set"),
        Item("18", "Variability within and between annotators"),
    ),
    "Methods: data partitions": (
        Item("19", "How data were assigned to partitions", checklist_answers.split),
        Item("20", "Level at which partitions are disjoint"),
    ),
    "Methods: testing data": (Item("21", "Intended sample size"),),
    "Methods: model": (
        Item("22", "Description of the model", checklist_answers.model),
        Item("23", "Software, with versions", checklist_answers.software),
        Item("24", "Initialisation of the parameters"),
    ),
    "Methods: training": (
        Item("25", "Training approach"),
        Item("26", "How the final model was selected"),
        Item("27", "Ensembling, if any"),
    ),
    "Methods: evaluation": (
        Item("28", "Metrics of performance", checklist_answers.measures),
        Item("29", "Significance and uncertainty", checklist_answers.uncertainty),
        Item("30", "Robustness or sensitivity analysis", checklist_answers.robustness),
        Item("31", "Explainability, if any"),
        Item("32", "Evaluation on internal data"),
        Item("33", "Testing on external data"),
        Item("34", "Trial registration"),
    ),
    "Results: data": (
        Item("35", "Numbers included and excluded", checklist_answers.flow),
        Item("36", "Demographic and clinical characteristics by partition", checklist_answers.characteristics),
    ),
    "Results: model performance": (
        Item("37", "Performance with its uncertainty", checklist_answers.performance),
        Item("38", "Diagnostic performance with its precision", checklist_answers.accuracy),
        Item("39", "Analysis of failures", checklist_answers.failure_analysis),
    ),
    "Discussion": (
        Item("40", "Limitations", checklist_answers.notes),
        Item("41", "Implications for practice"),
    ),
    "Other information": (
        Item("42", "Access to the full protocol or further details"),
        Item("43", "Availability of software, model and data"),
        Item("44", "Funding and the funders' role"),
    ),
}
BOTH, DEVELOPMENT, EVALUATION = "D;E", "D", "E"
TRIPOD: Parts = {
    "Title and abstract": (
        Item("1", "Title: development or evaluation, population, outcome", None, BOTH),
        Item("2", "Abstract, by TRIPOD+AI for Abstracts", checklist_answers.summary, BOTH),
    ),
    "Introduction": (
        Item("3a", "Healthcare context, rationale, existing models", None, BOTH),
        Item("3b", "Target population, purpose, users", None, BOTH),
        Item("3c", "Known health inequalities", None, BOTH),
        Item("4", "Objectives", None, BOTH),
    ),
    "Methods": (
        Item("5a", "Sources of the data", checklist_answers.sources, BOTH),
        Item("5b", "Dates of the data", None, BOTH),
        Item("6a", "Setting and centres", None, BOTH),
        Item("6b", "Eligibility criteria", None, BOTH),
        Item("6c", "Treatments received", None, BOTH),
        Item("7", "Data preparation and quality checks", None, BOTH),
        Item("8a", "Outcome: definition, when and how assessed", checklist_answers.outcome, BOTH),
        Item("8b", "Outcome assessors", None, BOTH),
        Item("8c", "Blinding of outcome assessment", None, BOTH),
        Item("9a", "Choice of initial predictors", None, DEVELOPMENT),
        Item("9b", "Definition of predictors", None, BOTH),
        Item("9c", "Predictor assessors", None, BOTH),
        Item("10", "Sample size and its justification", None, BOTH),
        Item("11", "Missing data", checklist_answers.missing, BOTH),
        Item("12a", "How the data were used and partitioned", checklist_answers.split, DEVELOPMENT),
        Item("12b", "Handling of predictors", None, DEVELOPMENT),
        Item("12c", "Type of model, building steps, internal validation", None, DEVELOPMENT),
        Item("12d", "Heterogeneity across clusters", checklist_answers.clusters, BOTH),
        Item("12e", "Measures and plots of performance", checklist_answers.measures, BOTH),
        Item("12f", "Model updating, such as recalibration", checklist_answers.recalibrated, EVALUATION),
        Item("12g", "How predictions were calculated", checklist_answers.calculated, EVALUATION),
        Item("13", "Class imbalance methods", None, BOTH),
        Item("14", "Approaches to fairness", None, BOTH),
        Item("15", "Output of the model, thresholds", checklist_answers.output, DEVELOPMENT),
        Item("16", "Differences of development and evaluation data", None, BOTH),
        Item("17", "Ethical approval and consent", None, BOTH),
    ),
    "Open science": (
        Item("18a", "Funding", None, BOTH),
        Item("18b", "Conflicts of interest", None, BOTH),
        Item("18c", "Protocol", None, BOTH),
        Item("18d", "Registration", None, BOTH),
        Item("18e", "Sharing of data", None, BOTH),
        Item("18f", "Sharing of code", None, BOTH),
    ),
    "Patient and public involvement": (Item("19", "Patient and public involvement", None, BOTH),),
    "Results": (
        Item("20a", "Flow of participants", checklist_answers.flow, BOTH),
        Item("20b", "Characteristics of participants", checklist_answers.characteristics, BOTH),
        Item("20c", "Comparison with the development data", None, EVALUATION),
        Item("21", "Participants and events in each analysis", checklist_answers.events, BOTH),
        Item("22", "Specification of the model", checklist_answers.model, DEVELOPMENT),
        Item("23a", "Performance with intervals, also by subgroup", checklist_answers.by_stratum, BOTH),
        Item("23b", "Heterogeneity of performance across clusters", checklist_answers.heterogeneity, BOTH),
        Item("24", "Results of model updating", checklist_answers.recalibration_result, EVALUATION),
    ),
    "Discussion": (
        Item("25", "Interpretation, with fairness", None, BOTH),
        Item("26", "Limitations", checklist_answers.notes, BOTH),
        Item("27a", "Handling of poor or unavailable input data in use", None, DEVELOPMENT),
        Item("27b", "Requirements for users", None, DEVELOPMENT),
        Item("27c", "Next steps", None, BOTH),
    ),
}


def claim(report: Report) -> str:
    """Return CLAIM_2024.md."""
    source = (
        "Tejani AS, Klontzas ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical Imaging (CLAIM): "
        "2024 Update. Radiology: Artificial Intelligence 2024;6(4):e240300, <https://doi.org/10.1148/ryai.240300>"
    )
    return _completed("CLAIM, 2024 update", source, CLAIM, report)


def tripod(report: Report) -> str:
    """Return TRIPOD_AI.md."""
    source = (
        "Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement: updated guidance for reporting clinical "
        "prediction models that use regression or machine learning methods. BMJ 2024;385:e078378, "
        "<https://doi.org/10.1136/bmj-2023-078378>"
    )
    scope = "Scope: D, items for the development of a model; E, for its evaluation, as here; D;E, for both."
    return _completed("TRIPOD+AI", source, TRIPOD, report, scope)


def _completed(title: str, source: str, parts: Parts, report: Report, scope: str = "") -> str:
    items = [item for members in parts.values() for item in members]
    answers = {item.number: item.answer(report) if item.answer else None for item in items}
    reported = [answer for answer in answers.values() if answer is not None]
    in_full = sum(not answer.partly for answer in reported)
    lines = [
        f"# {title} checklist",
        f"*Completed from an evaluation report as far as the report allows. {RESEARCH_ONLY}*",
        f"Source: {source}. The titles below are our own summaries of the items; consult the published wording to "
        "complete the checklist. What the report does not contain is for the authors of the study to report.",
        f"Of {len(items)} items, the report covers {in_full} in full and {len(reported) - in_full} in part; "
        f"{len(items) - len(reported)} are not reported.",
        *([scope] if scope else []),
    ]
    for heading, members in parts.items():
        scoped = any(item.scope for item in members)
        header = ["No.", "Item", *(["Scope"] if scoped else []), "In the report", "In the manuscript"]
        rows = [
            [item.number, escaped(item.title), *([item.scope] if scoped else []), _cell(answers[item.number]), ""]
            for item in members
        ]
        lines += [f"## {heading}", table(header, rows, words=[True] * len(header))]
    return "\n\n".join(lines) + "\n"


def _cell(answer: ChecklistAnswer | None) -> str:
    if answer is None:
        return NOT_REPORTED
    return f"[{'in part' if answer.partly else 'yes'}](report.html#{answer.section}): {answer.text}"
