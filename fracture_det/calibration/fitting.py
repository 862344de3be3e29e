"""Fitting score maps on validation data: Platt scaling, temperature scaling, isotonic regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.calibration.score_maps import METHODS, CalibrationError, Floats, ScoreMap, _check, _logit, _sigmoid

MAX_STEPS = 100
NO_RISE = "the scores do not rise with the truth, so that no rising map fits them"
NO_TEMPERATURE = "no temperature fits: the scores say more than .5 of what is mostly false, or less of what is true"


def fit_map(method: str, scores: ArrayLike, truth: ArrayLike) -> ScoreMap:
    """Return the map that validation scores (N,) 0..1 and what came true of them (N,) bool give.

    platt (the default): slope and offset on the logit, by maximum likelihood with Platt's smoothed targets,
        (N+ + 1) / (N+ + 2) and 1 / (N- + 2), with which few or perfectly parted scores stay short of 0 and 1
        (Platt 1999). On the logit it is the logistic recalibration of clinical prediction models (Cox 1958).
    temperature: the slope alone (Guo et al. 2017), with the same targets. Whatever the temperature, a score of .5
        stays .5. The scores of a detector are not centred there: of its boxes of score .5, mostly fewer than half hit.
    isotonic: pool adjacent violators (Ayer et al. 1955), each pooled block a knot at its mean score (centred isotonic
        regression, Oron and Flournoy 2017). Free of any shape, but below about a thousand scores it follows their
        noise (Niculescu-Mizil and Caruana 2005), and its last block says 1 where a handful of boxes all hit.

    Platt is the default because a shown .8 is to mean about 80 %: that takes the offset, which temperature lacks, and
    two numbers can be had from the few hundred boxes of a validation set, of which isotonic needs more.
    Scores of exactly 0 (images without a box) have no logit and are not what a detector says by a low score: their
    probability is (true + 1) / (all + 2) (Laplace), at most that of the lowest score above 0; the rest is fitted apart.

    Raises CalibrationError when the scores above 0 are none, all equal, all true or all false, or do not rise with the
    truth, and for a score outside 0..1.
    """
    raw, true = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool)
    _check(method in METHODS, "method", f"one of {', '.join(METHODS)}", method)
    _check(raw.ndim == 1 and raw.shape == true.shape, "scores", f"one for each of {true.shape} truths", raw.shape)
    outside = raw[~((raw >= 0) & (raw <= 1))]
    _check(not len(outside), "scores", "0..1", outside[:1])
    above = raw > 0
    fitted = _fit(method, raw[above], true[above])
    n_zero = len(raw) - int(above.sum())
    if not n_zero:
        return fitted
    share = (int(true[~above].sum()) + 1) / (n_zero + 2)
    zero = min(share, float(fitted(raw[above].min())))
    return ScoreMap(fitted.method, fitted.slope, fitted.offset, fitted.knots, zero)


def _fit(method: str, scores: Floats, truth: NDArray[np.bool_]) -> ScoreMap:
    n, n_true = len(scores), int(truth.sum())
    if not n:
        raise CalibrationError("there is no score above 0")
    if n_true in (0, n):
        raise CalibrationError(f"of {n} scores above 0 {'none' if not n_true else 'every one'} came true")
    logits = _logit(scores)
    if np.ptp(logits) == 0:
        raise CalibrationError(f"all {n} scores above 0 are {scores[0]:g}")
    if method == "isotonic":
        knots = _pool_adjacent_violators(scores, truth)
        if len(knots) < 2:
            raise CalibrationError(NO_RISE)
        return ScoreMap(method, knots=knots)
    targets = np.where(truth, (n_true + 1) / (n_true + 2), 1 / (n - n_true + 2))
    slope, offset = _fit_logistic(logits, targets, with_offset=method == "platt")
    if slope <= 0:
        raise CalibrationError(NO_RISE if method == "platt" else NO_TEMPERATURE)
    return ScoreMap(method, slope, offset)


def _fit_logistic(logits: Floats, targets: Floats, *, with_offset: bool) -> tuple[float, float]:
    """Return slope and offset (or 0) that minimise the cross-entropy to `targets`, by damped Newton steps."""
    centre = float(logits.mean()) if with_offset else 0.0
    spread = float(abs(logits - centre).max())
    scaled = (logits - centre) / spread
    columns = np.stack([scaled, np.ones(len(scaled))], axis=1)[:, : 1 + with_offset]
    found = np.zeros(columns.shape[1])
    for _ in range(MAX_STEPS):
        shown = _sigmoid(columns @ found)
        gradient = columns.T @ (shown - targets)
        if abs(gradient).max() <= 1e-9 * len(targets):
            slope, offset = float(found[0]) / spread, float(found[1]) if with_offset else 0.0
            return slope, offset - slope * centre
        curvature = (columns * (shown * (1 - shown))[:, None]).T @ columns
        found = _descend(columns, targets, found, np.linalg.solve(curvature, gradient))
    raise CalibrationError(f"no fit after {MAX_STEPS} steps")


def _descend(columns: Floats, targets: Floats, start: Floats, step: Floats) -> Floats:
    """Go back along `step`, by half of it as often as the loss would rise (beyond its last digits)."""
    loss = _cross_entropy(columns @ start, targets)
    while _cross_entropy(columns @ (start - step), targets) > loss * (1 + 1e-12):
        step = step / 2
    return start - step


def _cross_entropy(logits: Floats, targets: Floats) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).sum())


def _pool_adjacent_violators(scores: Floats, truth: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Return (mean score, share that came true) of the blocks of equal share, both strictly rising."""
    values, place = np.unique(scores, return_inverse=True)
    counts = np.bincount(place).tolist()
    trues = np.bincount(place, truth).tolist()
    blocks: list[tuple[float, int, float]] = []  # true, all, sum of scores
    for value, n, true in zip(values.tolist(), counts, trues, strict=True):
        block = (true, n, n * value)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    return tuple((total / n, true / n) for true, n, total in blocks)
