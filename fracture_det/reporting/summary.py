"""The one paragraph in plain words that a report opens with."""

from __future__ import annotations

from collections.abc import Iterator

from fracture_det.evaluation.report import SMALL_N, Estimate, OperatingPoint, Report, Stratum
from fracture_det.reporting.formatting import between, counted, number, percent, point_title


def plain_words(report: Report) -> str:
    """Return one paragraph: what was tested on whom, what it found, what it missed, and how sure that is."""
    return " ".join(_sentences(report))


def _sentences(report: Report) -> Iterator[str]:
    counts, point = report.counts, report.operating_points[0]
    who = report.about.get("detector", "The detector")
    failed = counts["images_failed"]
    yield (
        f"{who} was tested on {counted(counts['images_predicted'], 'radiograph')}{_groups(report)}: "
        f"{counts['images_fractured']:,} fractured ({counted(counts['boxes_truth'], 'marked fracture')}), "
        f"{counts['images_healthy']:,} healthy" + (f"; {failed:,} more could not be predicted." if failed else ".")
    )
    yield from _called(point)
    yield from _weakest(report)
    yield from _boxes(point)
    auroc = report.image["AUROC"]
    if auroc.value is not None:
        yield (
            "By score alone, a fractured radiograph ranks above a healthy one in "
            f"{percent(auroc.value)} % of pairs (AUROC {number(auroc.value)}{_sure(auroc)})."
        )
    yield _how_sure(report)


def _groups(report: Report) -> str:
    groups, images = report.counts["groups"], report.counts["images_predicted"]
    if images < 2:
        return ""
    if groups == images:
        return ", each taken as a patient of its own"
    return f" in {counted(groups, 'group')} (patients, or copies of one image)"


def _called(point: OperatingPoint) -> Iterator[str]:
    """Yield what it called on fractured and on healthy radiographs at one operating point."""
    sensitivity, specificity = point.image["sensitivity"], point.image["specificity"]
    parts = []
    if sensitivity.value is not None:
        tp, fn = point.counts["images_tp"], point.counts["images_fn"]
        parts.append(
            f"of {counted(tp + fn, 'fractured radiograph')} it called {tp:,} ({percent(sensitivity.value)} %"
            f"{_sure_percent(sensitivity.low, sensitivity.high, first=True)}) and missed {fn:,}"
        )
    if specificity.value is not None:
        fp, tn = point.counts["images_fp"], point.counts["images_tn"]
        low, high = specificity.low, specificity.high
        parts.append(
            f"of {counted(fp + tn, 'healthy radiograph')} it wrongly called {fp:,} ({percent(1 - specificity.value)} %"
            f"{_sure_percent(None if high is None else 1 - high, None if low is None else 1 - low, first=not parts)})"
        )
    if parts:
        yield f"At its main operating point ({_named(point)}), " + "; ".join(parts) + "."
    for figure, gap in (
        (sensitivity, "how many fractures it finds"),
        (specificity, "how often it calls a false alarm"),
    ):
        if figure.value is None:
            yield f"{gap.capitalize()} cannot be said: {figure.reason}."


def _named(point: OperatingPoint) -> str:
    return f"{point_title(point)}, {point.origin}"


def _weakest(report: Report) -> Iterator[str]:
    """Yield the anatomy where most is missed, if there are several that rest on enough."""
    anatomies = [row for row in report.strata if row.column == "anatomy" and _missed(row) is not None]
    if len(anatomies) > 1:
        worst = max(anatomies, key=lambda row: _missed(row) or 0.0)
        figure = worst.figures["sensitivity"]
        missed = (figure.n or 0) - (figure.count or 0)
        if missed:
            yield (
                f"It missed the largest share on {worst.value}: {missed:,} of {figure.n:,} (body parts with at least "
                f"{SMALL_N} fractured radiographs)."
            )


def _missed(row: Stratum) -> float | None:
    figure = row.figures.get("sensitivity")
    return None if figure is None or figure.value is None or figure.small else 1 - figure.value


def _boxes(point: OperatingPoint) -> Iterator[str]:
    recall = point.lesion["recall"]
    if recall.value is None:
        return
    found, false = point.counts["boxes_tp"], point.counts["boxes_fp"]
    rate = point.lesion["fp_per_image"].value
    yield (
        f"Its boxes lay on {found:,} of {counted(found + point.counts['boxes_fn'], 'marked fracture')} "
        f"({percent(recall.value)} %{_sure_percent(recall.low, recall.high)}), and "
        f"{false:,} of {counted(found + false, 'box', 'boxes')} lay on none"
        + ("." if rate is None else f" ({number(rate, 2)} per radiograph).")
    )


def _sure(figure: Estimate) -> str:
    interval = between(figure.low, figure.high, "{}")
    return f", {interval}" if interval else ""


def _sure_percent(low: float | None, high: float | None, *, first: bool = False) -> str:
    if low is None or high is None:
        return ""
    interval = f"{percent(low)} to {percent(high)} %"
    return f", 95 % interval {interval}" if first else f", {interval}"


def _how_sure(report: Report) -> str:
    if report.settings.get("n_bootstrap") and report.counts["groups"] > 1:
        return (
            "The intervals say how far these figures would move with other patients of the same kind, and nothing of "
            "other hospitals, machines or readers."
        )
    return "No intervals were computed, so nothing here says how far these figures would move with other patients."
