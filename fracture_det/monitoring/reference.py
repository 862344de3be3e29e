"""What a detector saw and said when all was well: the reference that later days are compared with, as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fracture_det.monitoring.counts import Counts, WatchError
from fracture_det.monitoring.drift import MIN_IMAGES, Rule, thresholds_of
from fracture_det.monitoring.features import FEATURES
from fracture_det.structures.strict_json import convert_json, parse_json

FORMAT = "fracture_det watch reference"
VERSION = 1


@dataclass(frozen=True, eq=False)
class Reference:
    """Counts of a time when all was well.

    detector_sha256: whose outputs these are; those of another detector are not compared with them.
    about: what it was made of, for people. counts: of all. strata: body part -> the counts of its radiographs, {} where
    nobody knows. rule: how thresholds were set. thresholds: feature -> above which its statistic is an alarm.
    """

    detector_sha256: str
    about: str
    counts: Counts
    strata: Mapping[str, Counts] = field(default_factory=dict)
    rule: Rule = field(default_factory=Rule)
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON. Raises OSError."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "detector_sha256": self.detector_sha256,
            "about": self.about,
            "rule": vars(self.rule),
            "thresholds": {name: round(value, 4) for name, value in self.thresholds.items()},
            "counts": self.counts.to_json(),
            "strata": {name: counts.to_json() for name, counts in self.strata.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def make_reference(
    detector_sha256: str,
    about: str,
    counts: Counts,
    strata: Mapping[str, Counts] | None = None,
    rule: Rule | None = None,
) -> Reference:
    """Return the reference of `counts`, with thresholds by `rule`. Raises WatchError where they are too few."""
    rule = rule or Rule()
    if counts.images < MIN_IMAGES:
        raise WatchError(f"a reference: expected at least {MIN_IMAGES} radiographs, got {counts.images}")
    return Reference(detector_sha256, about, counts, dict(strata or {}), rule, thresholds_of(counts, rule))


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: int
    detector_sha256: str
    about: str
    rule: Rule
    thresholds: dict[str, float]
    counts: dict[str, Any]
    strata: dict[str, dict[str, Any]]


def load_reference(path: Path) -> Reference:
    """Read a reference. Raises WatchError."""
    try:
        return _reference_of(convert_json(parse_json(path.read_bytes()), _File))
    except OSError as error:
        raise WatchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise WatchError(f"{path}: {error}") from error


def _reference_of(file: _File) -> Reference:
    if (file.format, file.version) != (FORMAT, VERSION):
        raise ValueError(f"format, version: expected {FORMAT!r}, {VERSION}, got {file.format!r}, {file.version}")
    for name in FEATURES:
        value = file.thresholds.get(name)
        if value is None or not value > 0:
            raise ValueError(f"thresholds.{name}: expected a number above 0, got {value!r}")
    strata = {name: Counts.from_json(counts) for name, counts in file.strata.items()}
    counts = Counts.from_json(file.counts)
    return Reference(file.detector_sha256, file.about, counts, strata, file.rule, file.thresholds)
