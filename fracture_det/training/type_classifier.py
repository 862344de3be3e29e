"""Fitting the linear layer of a classifier of types, and its answers on pictures that it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from torch.nn import functional

FOLDS, INNER_FOLDS = 5, 3
# Strengths of the penalty on squared weights of standardised features, of which inner folds choose one.
PENALTIES = (0.003, 0.01, 0.03, 0.1)
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """Logits are features @ weight + bias. weight: (D, T), bias: (T,), on features as they are."""

    weight: Floats
    bias: Floats

    def log_probabilities(self, features: NDArray[np.float32]) -> Floats:
        """Return the logarithms of the probabilities (N, T) of features (N, D)."""
        logits = features.astype(np.float64) @ self.weight + self.bias
        return np.asarray(torch.log_softmax(torch.from_numpy(logits), dim=1).numpy())

    def cooled(self, temperature: float) -> LinearLayer:
        """Return the layer whose logits are divided by a temperature."""
        return LinearLayer(self.weight / temperature, self.bias / temperature)


def fit_layer(features: NDArray[np.float32], types: NDArray[np.int64], penalty: float) -> LinearLayer:
    """Fit a softmax regression in which each type weighs the same, by L-BFGS.

    features: (N, V, D) of V views of N pictures. types: (N,) indices from 0. penalty: see PENALTIES.
    """
    n, views, size = features.shape
    rows = features.reshape(-1, size).astype(np.float64)
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    given = torch.from_numpy(((rows - mean) / spread).astype(np.float32))
    truth = torch.from_numpy(np.repeat(types, views))
    counts = np.bincount(types)
    weights = torch.from_numpy((n / (len(counts) * counts))[np.repeat(types, views)].astype(np.float32))
    layer = torch.zeros(size, len(counts), requires_grad=True)
    bias = torch.zeros(len(counts), requires_grad=True)
    optimizer = torch.optim.LBFGS([layer, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        costs = functional.cross_entropy(given @ layer + bias, truth, reduction="none") * weights
        total = costs.mean() + penalty * layer.square().sum()
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted, shift = layer.detach().double().numpy(), bias.detach().double().numpy()
    weight = fitted / spread[:, None]
    return LinearLayer(weight, shift - mean @ weight)


def fit_temperature(log_probabilities: Floats, types: NDArray[np.int64]) -> float:
    """Return the temperature (.25 to 4) of the least mean negative log-likelihood (Guo et al. 2017), to about 2 %."""
    temperatures = np.geomspace(0.25, 4.0, 141)
    costs = []
    for temperature in temperatures:
        scaled = torch.log_softmax(torch.from_numpy(log_probabilities / temperature), dim=1).numpy()
        costs.append(-scaled[np.arange(len(types)), types].mean())
    return float(temperatures[int(np.argmin(costs))])


@dataclass(frozen=True, eq=False)
class FoldedAnswers:
    """Answers on each picture by a layer, penalty and temperature that come from pictures of other groups alone.

    probability: (N, T). fold: (N,) which fold a picture is in. penalties, temperatures: what each fold was given.
    """

    probability: Floats
    fold: NDArray[np.int64]
    penalties: tuple[float, ...]
    temperatures: tuple[float, ...]


def answer_in_folds(
    features: NDArray[np.float32], types: NDArray[np.int64], groups: Sequence[str], *, seed: int = 0
) -> FoldedAnswers:
    """Return answers in FOLDS folds of whole groups, of features (N, V, D) whose first view is the one that is asked.

    Within the other folds, inner folds of whole groups choose the penalty and fit the temperature.
    """
    group = np.unique(groups, return_inverse=True)[1]
    probability, fold = np.zeros((len(types), int(types.max()) + 1)), np.zeros(len(types), dtype=np.int64)
    chosen = []
    for index, (others, own) in enumerate(_folds(types, group, FOLDS, seed)):
        penalty, temperature = choose_penalty(features[others], types[others], group[others], seed=seed)
        layer = fit_layer(features[others], types[others], penalty).cooled(temperature)
        probability[own], fold[own] = np.exp(layer.log_probabilities(features[own, 0])), index
        chosen.append((penalty, temperature))
    penalties, temperatures = zip(*chosen, strict=True)
    return FoldedAnswers(probability, fold, penalties, temperatures)


def choose_penalty(
    features: NDArray[np.float32], types: NDArray[np.int64], group: NDArray[np.int64], *, seed: int = 0
) -> tuple[float, float]:
    """Return the penalty with the least log-likelihood cost in folds of whole groups, and its temperature."""
    best = (np.inf, PENALTIES[0], 1.0)
    for penalty in PENALTIES:
        said = np.zeros((len(types), int(types.max()) + 1))
        for others, own in _folds(types, group, INNER_FOLDS, seed + 1):
            said[own] = fit_layer(features[others], types[others], penalty).log_probabilities(features[own, 0])
        temperature = fit_temperature(said, types)
        scaled = torch.log_softmax(torch.from_numpy(said / temperature), dim=1).numpy()
        best = min(best, (float(-scaled[np.arange(len(types)), types].mean()), penalty, temperature))
    return best[1:]


def _folds(
    types: NDArray[np.int64], group: NDArray[np.int64], n_folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    return list(StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(types, types, group))
