"""comparison.md: a Comparison as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fracture_det.evaluation.comparison import ComparedDetector, Comparison, Difference, PairwiseComparison
from fracture_det.evaluation.report import SMALL_N, Estimate
from fracture_det.evaluation.significance import DeLong, McNemar
from fracture_det.reporting.formatting import (
    DASH,
    RESEARCH_ONLY,
    SMALL,
    UNDEFINED,
    format_estimate,
    format_number,
)
from fracture_det.reporting.markdown import escaped, table
from fracture_det.structures.wording import counted

TITLES = {
    "AP": "AP, IoU .50 to .95",
    "AP50": "AP50",
    "AUROC": "AUROC, image",
    "FROC@0.5": "Lesion sensitivity at .5 false positives per image",
    "FROC@1": "Lesion sensitivity at 1 false positive per image",
    "FROC@2": "Lesion sensitivity at 2 false positives per image",
    "FROC mean": "Lesion sensitivity, mean over ⅛ to 8 false positives per image",
    "precision": "Precision, boxes, at the operating score",
    "recall": "Recall, boxes, at the operating score",
    "sensitivity": "Sensitivity, image, at the operating score",
    "specificity": "Specificity, image, at the operating score",
    "type accuracy": "Type of fracture, accuracy",
    "type macro F1": "Type of fracture, macro F1",
}
# Without level and operating score, for a sentence.
SHORT_TITLES = {
    "AP": "AP",
    "FROC@0.5": "lesion sensitivity at .5 false positives per image",
    "FROC@1": "lesion sensitivity at 1 false positive per image",
    "FROC@2": "lesion sensitivity at 2 false positives per image",
    "FROC mean": "mean lesion sensitivity",
    "precision": "precision of boxes",
    "recall": "recall of boxes",
    "sensitivity": "image-level sensitivity",
    "specificity": "image-level specificity",
    "type accuracy": "accuracy of the type",
    "type macro F1": "macro F1 of the type",
}
READING = (
    "All figures are of the same images. Each is followed by its 95 % confidence interval, from a bootstrap over "
    "groups (a group is one patient, or copies of one image), and by its sample.",
    "A difference is the first detector minus the other, on the same resampled groups, and is therefore more precise "
    "than the two separate intervals suggest. Its p value is below .05 when the 95 % interval excludes 0.",
    "McNemar's test uses only the images that one detector classifies correctly and the other does not (exact test; "
    "interval by Newcombe 1998, method 10). DeLong's test compares the areas under the two image-level ROC curves. "
    "Both assume independent images.",
    "A p value above .05 does not show that two detectors are equivalent; the interval shows how much they may differ.",
)


def comparison_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    parts = [
        "# Comparison of fracture detectors",
        f"*{RESEARCH_ONLY}*",
        escaped(_opening(comparison)),
        "## Notes and limitations",
        _bullets(comparison.notes) or "None.",
        "## Performance",
        *_side_by_side(comparison.detectors),
    ]
    for pair in comparison.pairs:
        parts += list(_pair(pair, comparison))
    parts += ["## Methods", _bullets(READING)]
    if comparison.about:
        parts += ["## Reproducibility", table(("", ""), [_escaped(*row) for row in comparison.about.items()])]
    parts.append(_settings(comparison))
    return "\n\n".join(parts) + "\n"


def p_value(p: float | None) -> str:
    """Return a formatted p value: .027, <.001."""
    if p is None:
        return DASH
    return "<.001" if p < 0.001 else format_number(p)


def _opening(comparison: Comparison) -> str:
    counts = comparison.counts
    names = [detector.name for detector in comparison.detectors]
    return (
        f"{', '.join(names[:-1])} and {names[-1]} were compared on the same "
        f"{counted(counts['images_compared'], 'radiograph')} from {counted(counts['groups'], 'group')}: "
        f"{counts['images_fractured']:,} fractured, with {counted(counts['boxes_truth'], 'annotated fracture')}, and "
        f"{counts['images_healthy']:,} healthy."
    )


def _summary(pair: PairwiseComparison) -> Iterator[str]:
    """Yield sentences: the differences whose interval excludes 0, and the predictions of both."""
    excluding_zero = [
        f"{SHORT_TITLES.get(name, name)} ({format_number(difference.value, signed=True)})"
        for name, difference in pair.differences.items()
        if difference.value is not None and _excludes_zero(difference)
    ]
    n_intervals = sum(difference.low is not None for difference in pair.differences.values())
    if excluding_zero:
        others = " All other intervals include 0." if n_intervals > len(excluding_zero) else ""
        yield f"Differences whose interval excludes 0: {'; '.join(excluding_zero)}.{others}"
    elif n_intervals:
        yield "The interval of every difference includes 0: these radiographs show no difference between the two."
    yield from _predictions(pair)


def _excludes_zero(difference: Difference) -> bool:
    low, high = difference.low, difference.high
    return low is not None and high is not None and not low <= 0 <= high


def _predictions(pair: PairwiseComparison) -> Iterator[str]:
    """Yield how many images both, one or neither predicted fractured, at the operating scores."""
    fractured, healthy = pair.sensitivity, pair.specificity
    if fractured.n:
        yield (
            f"Of {counted(fractured.n, 'fractured radiograph')}, {pair.first} and {pair.other} both detected "
            f"{fractured.both:,}, only {pair.first} {fractured.only_a:,}, only {pair.other} {fractured.only_b:,}, and "
            f"neither {fractured.neither:,}."
        )
    if healthy.n:
        yield (
            f"Of {counted(healthy.n, 'healthy radiograph')}, {healthy.neither:,} were false positives of both, "
            f"{healthy.only_b:,} of {pair.first} only and {healthy.only_a:,} of {pair.other} only."
        )


def _side_by_side(detectors: list[ComparedDetector]) -> Iterator[str]:
    rows = [["Operating score", *(format_number(detector.score) for detector in detectors)]]
    rows += [
        [TITLES.get(name, name), *(_cell(detector.figures[name]) for detector in detectors)]
        for name in detectors[0].figures
    ]
    yield table(_escaped("", *(detector.name for detector in detectors)), [_escaped(*row) for row in rows])
    cells = "".join(cell for row in rows for cell in row)
    marks = {SMALL: f"sample smaller than {SMALL_N}", UNDEFINED: "number of resamples in which it was not defined"}
    legend = [f"{mark}: {meaning}" for mark, meaning in marks.items() if mark in cells]
    if legend:
        yield f"{'; '.join(legend)}."


def _cell(estimate: Estimate) -> str:
    figure = format_estimate(estimate)
    return ", ".join(part for part in (figure.lines[0], figure.basis) if part)


def _pair(pair: PairwiseComparison, comparison: Comparison) -> Iterator[str]:
    by_name = {detector.name: detector for detector in comparison.detectors}
    yield f"## {escaped(pair.first)} versus {escaped(pair.other)}"
    yield escaped(" ".join(_summary(pair)))
    rows = []
    for name, difference in pair.differences.items():
        values = (by_name[detector].figures[name].value for detector in (pair.first, pair.other))
        cells = (DASH if value is None else format_number(value) for value in values)
        rows.append(_escaped(TITLES.get(name, name), *cells, *_difference(difference)))
    header = _escaped("", pair.first, pair.other, "Difference", "95 % interval", "p")
    yield table(header, rows)
    header = _escaped(
        "Correct at the operating scores", "Both", f"Only {pair.first}", f"Only {pair.other}", "Neither",
        "Difference", "95 % interval", "p (McNemar)",
    )  # fmt: skip
    sensitivity = _escaped("Fractured images (sensitivity)", *_mcnemar(pair.sensitivity))
    yield table(header, [sensitivity, _escaped("Healthy images (specificity)", *_mcnemar(pair.specificity))])
    yield escaped(f"AUROC by DeLong's test: {_delong(pair.auroc)}.")


def _difference(difference: Difference | McNemar) -> tuple[str, str, str]:
    value = difference.value if isinstance(difference, Difference) else difference.difference
    if value is None:
        return f"not defined: {difference.reason}", DASH, DASH
    return format_number(value, signed=True), _interval(difference.low, difference.high), p_value(difference.p)


def _mcnemar(test: McNemar) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (test.both, test.only_a, test.only_b, test.neither))
    return *counts, *_difference(test)


def _delong(test: DeLong) -> str:
    if test.auc_a is None or test.auc_b is None or test.difference is None:
        return f"not defined: {test.reason}"
    difference = format_number(test.difference, signed=True)
    text = f"{format_number(test.auc_a)} versus {format_number(test.auc_b)}, difference {difference}"
    if test.low is None or test.p is None:
        return f"{text}; no interval: {test.reason}"
    p = p_value(test.p)
    text = f"{text} ({_interval(test.low, test.high)}), p {p if p.startswith('<') else f'= {p}'}"
    return f"{text} ({test.reason})" if test.reason else text


def _settings(comparison: Comparison) -> str:
    settings = comparison.settings
    if not settings["n_bootstrap"]:
        return "No bootstrap intervals were computed."
    return (
        f"{settings['n_bootstrap']:,} bootstrap resamples of the groups, seed {settings['seed']}; a box is a true "
        "positive at IoU ≥ .5."
    )


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return DASH
    return f"{format_number(low, signed=True)} to {format_number(high, signed=True)}"


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(sentence)}" for sentence in sentences)


def _escaped(*cells: str) -> list[str]:
    return [escaped(cell) for cell in cells]
