"""The summary that a report opens with: one paragraph in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from fracture_det.evaluation.provenance import DETECTOR
from fracture_det.evaluation.report import ANATOMY, SMALL_N, Estimate, OperatingPoint, Report, Stratum
from fracture_det.reporting.formatting import format_interval, format_number, format_percent, point_title
from fracture_det.structures.wording import counted


def summary_text(report: Report) -> str:
    """Return one paragraph: detector, data, main figures with their uncertainty, and the weakest body part."""
    return " ".join(_sentences(report))


def _sentences(report: Report) -> Iterator[str]:
    counts, point = report.counts, report.operating_points[0]
    detector, failed = report.about.get(DETECTOR, "The detector"), counts["images_failed"]
    yield (
        f"{detector} was evaluated on {counted(counts['images_predicted'], 'radiograph')}{_groups(report)}: "
        f"{counts['images_fractured']:,} fractured ({counted(counts['boxes_truth'], 'annotated fracture')}) and "
        f"{counts['images_healthy']:,} healthy" + (f"; a further {failed:,} could not be predicted." if failed else ".")
    )
    yield from _image_level(point)
    yield from _lesion_level(point)
    yield from _weakest_body_part(report)
    auroc = report.image["AUROC"]
    if auroc.value is not None:
        yield (
            f"The image-level AUROC was {format_number(auroc.value)}{_interval(auroc)}: a fractured radiograph scored "
            f"higher than a healthy one in {format_percent(auroc.value)} % of pairs."
        )
    yield _uncertainty(report)


def _groups(report: Report) -> str:
    groups, images = report.counts["groups"], report.counts["images_predicted"]
    if images < 2:
        return ""
    if groups == images:
        return ", each treated as a separate patient"
    return f" in {counted(groups, 'group')} (patients, or copies of one image)"


def _image_level(point: OperatingPoint) -> Iterator[str]:
    """Yield sensitivity and specificity of images at an operating point, or why there is none."""
    sensitivity, specificity = point.image["sensitivity"], point.image["specificity"]
    clauses = []
    if sensitivity.value is not None:
        tp, n = point.counts.images_tp, point.counts.images_tp + point.counts.images_fn
        clauses.append(
            f"image-level sensitivity was {format_percent(sensitivity.value)} % "
            f"({tp:,} of {n:,} fractured radiographs{_percent_interval(sensitivity, first=True)})"
        )
    if specificity.value is not None:
        tn, n = point.counts.images_tn, point.counts.images_fp + point.counts.images_tn
        clauses.append(
            f"{'' if clauses else 'image-level '}specificity was {format_percent(specificity.value)} % "
            f"({tn:,} of {n:,} healthy radiographs{_percent_interval(specificity, first=not clauses)})"
        )
    if clauses:
        yield f"At the main operating point ({point_title(point)}, {point.origin}), {' and '.join(clauses)}."
    for name, figure in (("Sensitivity", sensitivity), ("Specificity", specificity)):
        if figure.value is None:
            yield f"{name} is not defined: {figure.reason}."


def _lesion_level(point: OperatingPoint) -> Iterator[str]:
    recall, rate = point.lesion["recall"], point.lesion["fp_per_image"].value
    if recall.value is None:
        return
    tp, fn = point.counts.boxes_tp, point.counts.boxes_fn
    false_positives = counted(point.counts.boxes_fp, "false-positive box", "false-positive boxes")
    yield (
        f"Its boxes localised {tp:,} of {counted(tp + fn, 'annotated fracture')} "
        f"({format_percent(recall.value)} %{_percent_interval(recall)}), with {false_positives}"
        + ("." if rate is None else f" ({format_number(rate, 2)} per radiograph).")
    )


def _weakest_body_part(report: Report) -> Iterator[str]:
    """Yield the body part of the lowest sensitivity, if several have a sufficient sample."""
    rows = [row for row in report.strata if row.column == ANATOMY and _sensitivity(row) is not None]
    if len(rows) > 1:
        weakest = min(rows, key=lambda row: _sensitivity(row) or 0.0)
        figure = weakest.figures["sensitivity"]
        missed = (figure.n or 0) - (figure.count or 0)
        if missed:
            yield (
                f"Sensitivity was lowest for {weakest.value}, where {missed:,} of {figure.n:,} fractured radiographs "
                f"were missed (among body parts with at least {SMALL_N})."
            )


def _sensitivity(row: Stratum) -> float | None:
    figure = row.figures.get("sensitivity")
    return None if figure is None or figure.small else figure.value


def _interval(figure: Estimate) -> str:
    return format_interval(figure.low, figure.high, " ({})")


def _percent_interval(figure: Estimate, *, first: bool = False) -> str:
    low, high = figure.low, figure.high
    if low is not None and low == high:  # no resample differs: of 0 or n out of n, only Wilson's interval has a width
        low, high = figure.wilson_low, figure.wilson_high
    if low is None or high is None:
        return ""
    interval = f"{format_percent(low)} to {format_percent(high)} %"
    return f"; 95 % CI {interval}" if first else f"; {interval}"


def _uncertainty(report: Report) -> str:
    if report.settings.get("n_bootstrap") and report.counts["groups"] > 1:
        return (
            "The confidence intervals cover the sampling of patients from the same population, but not other "
            "hospitals, equipment or readers."
        )
    return "No confidence intervals were computed, so the uncertainty of these figures is unknown."
