"""Fitting score maps on validation data: Platt scaling, temperature scaling, isotonic regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression, root

from fracture_det.calibration.score_maps import (
    IDENTITY,
    METHODS,
    CalibrationError,
    Floats,
    ScoreMap,
    logit,
    require,
    sigmoid,
)

# Of the gradient of the mean cross-entropy.
TOLERANCE = 1e-8
NO_RISE = "the scores do not rise with the truth, so that no rising map fits them"
NO_TEMPERATURE = "no temperature fits: the scores say more than .5 of what is mostly false, or less of what is true"


def fit_maps(
    method: str, boxes: tuple[ArrayLike, ArrayLike], images: tuple[ArrayLike, ArrayLike]
) -> tuple[ScoreMap, ScoreMap, dict[str, str]]:
    """Return the maps of box scores and of image scores, and by "box" and "image" why one could not be fitted.

    boxes: scores (N,) 0..1 and whether each hit, (N,) bool. images: highest box scores (I,), 0 without a box, and
    whether each is fractured, (I,) bool. Where nothing can be fitted the map is the identity; see `fit_map`.
    Raises CalibrationError for an unknown method.
    """
    require(method in METHODS, "method", f"one of {', '.join(METHODS)}", method)
    maps, not_fitted = [], {}
    for name, (scores, truth) in (("box", boxes), ("image", images)):
        try:
            maps.append(fit_map(method, scores, truth))
        except CalibrationError as error:
            maps.append(ScoreMap(IDENTITY))
            not_fitted[name] = str(error)
    return maps[0], maps[1], not_fitted


def fit_map(method: str, scores: ArrayLike, truth: ArrayLike) -> ScoreMap:
    """Return the map fitted to validation scores (N,) 0..1 and whether each came true, (N,) bool.

    platt (the default): slope and offset on the logit, by maximum likelihood with Platt's smoothed targets,
        (N+ + 1) / (N+ + 2) and 1 / (N- + 2), with which few or perfectly parted scores stay short of 0 and 1
        (Platt 1999). On the logit it is the logistic recalibration of clinical prediction models (Cox 1958).
    temperature: the slope alone (Guo et al. 2017), with the same targets. Whatever the temperature, a score of .5
        stays .5. The scores of a detector are not centred there: of its boxes of score .5, mostly fewer than half hit.
    isotonic: pool adjacent violators (Ayer et al. 1955), each pooled block a knot at its mean score (centred isotonic
        regression, Oron and Flournoy 2017). Free of any shape, but below about a thousand scores it follows their
        noise (Niculescu-Mizil and Caruana 2005), and its last block says 1 where a handful of boxes all hit.

    Platt is the default because a displayed .8 should mean about 80 %: that takes the offset, which temperature lacks,
    and two parameters can be estimated from the few hundred boxes of a validation set; isotonic needs more.
    Scores of exactly 0 (images without a box) have no logit and are not low scores of the detector: their
    probability is (true + 1) / (all + 2) (Laplace), at most that of the lowest score above 0; the others are fitted
    without them.

    Raises CalibrationError when the scores above 0 are none, all equal, all true or all false, or do not rise with the
    truth, and for a score outside 0..1.
    """
    raw, true = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool)
    require(method in METHODS, "method", f"one of {', '.join(METHODS)}", method)
    require(raw.ndim == 1 and raw.shape == true.shape, "scores", f"one for each of {true.shape} truths", raw.shape)
    outside = raw[~((raw >= 0) & (raw <= 1))]
    require(not len(outside), "scores", "0..1", outside[:1])
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
    logits = logit(scores)
    if np.ptp(logits) == 0:
        raise CalibrationError(f"all {n} scores above 0 are {scores[0]:g}")
    if method == "isotonic":
        knots = _fit_isotonic(scores, truth)
        if len(knots) < 2:
            raise CalibrationError(NO_RISE)
        return ScoreMap(method, knots=knots)
    targets = np.where(truth, (n_true + 1) / (n_true + 2), 1 / (n - n_true + 2))
    slope, offset = _fit_logistic(logits, targets, with_offset=method == "platt")
    if slope <= 0:
        raise CalibrationError(NO_RISE if method == "platt" else NO_TEMPERATURE)
    return ScoreMap(method, slope, offset)


def _fit_logistic(logits: Floats, targets: Floats, *, with_offset: bool) -> tuple[float, float]:
    """Return the slope and the offset (0 without one) that minimise the mean cross-entropy to `targets` 0..1.

    It is convex, so that its only minimum is where its gradient is 0. scikit-learn's LogisticRegression takes targets
    of 0 and 1 alone.
    """
    n = len(targets)
    columns = np.stack([logits, np.ones(n)], axis=1)[:, : 1 + with_offset]

    def gradient(weights: Floats) -> Floats:
        slopes: Floats = columns.T @ (sigmoid(columns @ weights) - targets) / n
        return slopes

    def hessian(weights: Floats) -> Floats:
        probability = sigmoid(columns @ weights)
        curvature: Floats = (columns * (probability * (1 - probability))[:, None]).T @ columns / n
        return curvature

    weights = root(gradient, np.zeros(columns.shape[1]), jac=hessian, options={"xtol": 1e-12}).x
    if not abs(gradient(weights)).max() <= TOLERANCE:
        raise CalibrationError(f"the logistic fit to {n} scores did not converge")
    return float(weights[0]), float(weights[1]) if with_offset else 0.0


def _fit_isotonic(scores: Floats, truth: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Return (mean score, share that came true) of the pooled blocks, both strictly rising."""
    values, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    shares = isotonic_regression(np.bincount(place, truth) / counts, weights=counts).x
    levels, starts = np.unique(shares, return_index=True)
    means = np.add.reduceat(values * counts, starts) / np.add.reduceat(counts, starts)
    return tuple(zip(means.tolist(), levels.tolist(), strict=True))
