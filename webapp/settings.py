"""The settings of the page: FRACTURE_* variables, checked when they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PREFIX = "FRACTURE_"


class SettingsError(ValueError):
    """A setting cannot be used; the message names the variable, its value and what is expected."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be set; each field is the variable FRACTURE_<FIELD>, see docs/api.md.

    `calibration` is a file that makes the detector's scores probabilities; None means raw scores. `score` None means
    the detector's own operating point, `possible_score` None the calibration's or half the operating point, and
    `nms_iou` None what the detector's configuration says.
    """

    detector: str = "shipped"
    calibration: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    data_dir: Path = Path("instance")
    retention_hours: float = 24.0
    score: float | None = None
    possible_score: float | None = None
    nms_iou: float | None = None
    max_upload_mb: float = 16.0
    max_megapixels: float = 64.0
    queue_size: int = 64
    max_batch: int = 4
    max_wait_ms: float = 10.0
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        if not self.detector.strip():
            raise SettingsError(f"{PREFIX}DETECTOR: expected shipped or scheme:path, got nothing")
        self._check("port", 0, 65_535)
        for name in ("score", "possible_score", "nms_iou"):
            self._check(name, 0, 1)
        self._check("retention_hours", 0.01, 24 * 3650)
        self._check("max_upload_mb", 0.01, 1024)
        self._check("max_megapixels", 0.01, 1000)
        self._check("queue_size", 1, 1000)
        self._check("max_batch", 1, 64)
        self._check("max_wait_ms", 0, 1000)
        self._check("timeout_s", 1, 3600)
        if self.score is not None and self.possible_score is not None and self.possible_score > self.score:
            raise SettingsError(
                f"{PREFIX}POSSIBLE_SCORE: expected at most {PREFIX}SCORE ({self.score:g}), got {self.possible_score:g}"
            )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ, **overrides: object) -> Settings:
        """Read the settings from `environ`; `overrides` that are not None win. An empty variable counts as unset.

        Raises SettingsError.
        """
        values: dict[str, Any] = {}
        for field in fields(cls):
            variable = PREFIX + field.name.upper()
            if text := environ.get(variable, "").strip():
                values[field.name] = _parse(variable, text, PARSERS.get(field.name, float))
        return cls(**values | {name: value for name, value in overrides.items() if value is not None})

    @property
    def max_upload_bytes(self) -> int:
        """The largest file that is accepted."""
        return int(self.max_upload_mb * 1024 * 1024)

    @property
    def max_pixels(self) -> int:
        """The most pixels that are decoded."""
        return int(self.max_megapixels * 1_000_000)

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is not None and not low <= value <= high:
            raise SettingsError(f"{PREFIX}{name.upper()}: expected {low:g} to {high:g}, got {value:g}")


# What is not listed is a number with a fraction.
PARSERS: dict[str, Callable[[str], object]] = {
    "detector": str,
    "calibration": Path,
    "host": str,
    "port": int,
    "data_dir": Path,
    "queue_size": int,
    "max_batch": int,
}


def _parse(variable: str, text: str, parser: Callable[[str], object]) -> object:
    try:
        return parser(text)
    except ValueError as error:
        kind = "a whole number" if parser is int else "a number"
        raise SettingsError(f"{variable}: expected {kind}, got {text!r}") from error
