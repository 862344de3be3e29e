"""The fitted head: from the features of a picture to probabilities of what kind of picture it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fracture_det.resources import resource
from fracture_det.suitability.features import Values

FORMAT = "fracture_det suitability head 1"
LIMB, PHOTOGRAPH, DOCUMENT, OTHER = KINDS = ("limb", "photograph", "document", "other")
SHIPPED = "weights/shipped/suitability.json"
# Features are clipped at so many standard deviations: what no picture of the fit had must not outvote the rest.
CLIP = 6.0
ARRAYS = ("mean", "scale", "hidden_weights", "hidden_bias", "weights", "bias")


class HeadError(ValueError):
    """The file of a head cannot be used; the message names the file, the field and the value."""


class _HeadFile(msgspec.Struct, forbid_unknown_fields=True):
    """The file as written."""

    format: str
    kinds: list[str]
    threshold: float
    mean: list[float]
    scale: list[float]
    hidden_weights: list[list[float]]
    hidden_bias: list[float]
    weights: list[list[float]]
    bias: list[float]
    fitted_on: dict[str, dict[str, int]] = {}


@dataclass(frozen=True, eq=False)
class Head:
    """Softmax regression on standardised features and one hidden layer of rectified sums.

    mean, scale: (F,). hidden_weights: (N, F), hidden_bias: (N,). weights: (K, N), bias: (K,), for KINDS in their order.
    threshold: a picture that is a limb with a lower probability (0..1) is refused.
    fitted_on: part -> source -> number of pictures. Raises HeadError for shapes that do not fit.
    """

    mean: Values
    scale: Values
    hidden_weights: Values
    hidden_bias: Values
    weights: Values
    bias: Values
    threshold: float
    fitted_on: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        features, units = self.mean.shape, self.hidden_bias.shape
        expected = dict(
            zip(ARRAYS, (features, features, units + features, units, (len(KINDS), *units), (len(KINDS),)), strict=True)
        )
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise HeadError(f"Head.{name}: expected the shape {shape}, got {getattr(self, name).shape}")

    def probabilities(self, features: Values) -> Values:
        """Return the probabilities (..., K) of KINDS for features (..., F)."""
        standard = np.clip((features - self.mean) / self.scale, -CLIP, CLIP)
        hidden = np.maximum(standard @ self.hidden_weights.T + self.hidden_bias, 0)
        logits = hidden @ self.weights.T + self.bias
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)

    def save(self, path: Path) -> None:
        """Write the head as JSON, with six significant digits."""
        content = {
            "format": FORMAT,
            "kinds": list(KINDS),
            "threshold": self.threshold,
            "fitted_on": self.fitted_on,
            **{name: _rounded(getattr(self, name)) for name in ARRAYS},
        }
        lines = (
            f"{msgspec.json.encode(name).decode()}: {msgspec.json.encode(value).decode()}"
            for name, value in content.items()
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Head:
        """Read a head. Raises HeadError."""
        try:
            content = msgspec.json.decode(path.read_bytes(), type=_HeadFile)
            arrays = {name: np.array(getattr(content, name), dtype=np.float64) for name in ARRAYS}
        except (OSError, ValueError) as error:
            raise HeadError(f"{path}: {error}") from error
        if content.format != FORMAT or tuple(content.kinds) != KINDS:
            raise HeadError(f"{path}: expected {FORMAT!r} of {KINDS}, got {content.format!r} of {content.kinds}")
        return cls(**arrays, threshold=content.threshold, fitted_on=content.fitted_on)


@lru_cache(maxsize=1)
def shipped_head() -> Head:
    """Return the shipped head, read once. Raises HeadError."""
    return Head.load(resource(SHIPPED))


def _rounded(array: Values) -> Any:
    return [_rounded(row) for row in array] if array.ndim > 1 else [float(f"{value:.6g}") for value in array]
