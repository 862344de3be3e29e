"""The margins of the gate, from configs/gate.yaml and a file that states its differences to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import msgspec

from fracture_det.resources import find_config
from fracture_det.structures.strict_json import convert_json

RULES_FILE = "configs/gate.yaml"
FIGURES = ("AP50", "AUROC", "FROC@1")
# Fewer resamples leave a bound of 95 % to chance, and Holm's smallest levels out of reach.
LEAST_RESAMPLES = 200
Margin = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Ratio = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class RulesError(ValueError):
    """The rules of the gate are wrong; the message names file, field and value."""


class Margins(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"froc": "FROC@1", "ap50": "AP50", "auroc": "AUROC"}
):
    """A margin for each of FIGURES."""

    ap50: Margin
    auroc: Margin
    froc: Margin

    def of(self, figure: str) -> float:
        """Return the margin of one of FIGURES."""
        return {"AP50": self.ap50, "AUROC": self.auroc, "FROC@1": self.froc}[figure]


class StrataRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From how many images on a subgroup counts, and how far it may fall."""

    min_images: Count
    margins: Margins


class CalibrationRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much higher the ECE of image and box probabilities may be."""

    image: Margin
    box: Margin


class RobustnessRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much lower a figure may be over all perturbations, and under the worst one."""

    mean: Margin
    worst: Margin


class TimingRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many images are timed, and how often each."""

    images: Count
    rounds: Count


class GateRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All rules of the gate; configs/gate.yaml explains each field."""

    margins: Margins
    min_fractured: Count
    strata: StrataRules
    max_new_failures: Annotated[int, msgspec.Meta(ge=0)]
    calibration: CalibrationRules
    robustness: RobustnessRules
    speed_ratio: Ratio
    size_ratio: Ratio
    timing: TimingRules
    bootstrap: Annotated[int, msgspec.Meta(ge=LEAST_RESAMPLES)]
    seed: Annotated[int, msgspec.Meta(ge=0)]

    def as_dict(self) -> dict[str, Any]:
        """Return the rules as the file names them."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        return content

    @property
    def sha256(self) -> str:
        """The SHA-256 of the rules in effect, whatever files and comments they come from."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


def read_rules(path: str | Path | None = None) -> GateRules:
    """Return the rules that come with the package, with what the file at `path` states instead.

    Raises RulesError naming file, field and value: an unreadable file, an unknown field, a margin that is none.
    """
    content = _content(find_config(RULES_FILE))
    if path is not None:
        _overlay(content, _content(Path(path)), str(path), "")
    try:
        return convert_json(content, GateRules)
    except ValueError as error:
        raise RulesError(f"{path or RULES_FILE}: {error}") from error


def _content(path: Path) -> dict[str, Any]:
    try:
        content = msgspec.yaml.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise RulesError(f"{path}: cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RulesError(f"{path}: expected an object with fields such as margins, got {content!r}")
    return content


def _overlay(content: dict[str, Any], changes: dict[str, Any], path: str, above: str) -> None:
    """Put `changes` into `content`, in place; an unknown field would be a rule that is never applied."""
    for name, value in changes.items():
        field = f"{above}{name}"
        if name not in content:
            raise RulesError(f"{path}: {field}: unknown, got {value!r}; there is {', '.join(content)}")
        if isinstance(content[name], dict):
            if not isinstance(value, dict):
                raise RulesError(f"{path}: {field}: expected {', '.join(content[name])}, got {value!r}")
            _overlay(content[name], value, path, f"{field}.")
        else:
            content[name] = value
