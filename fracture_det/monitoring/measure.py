"""The values of many files with a detector, as a table on disk that an interrupted run goes on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fracture_det.inference.base import Detector
from fracture_det.inference.batch import Alter, PredictedFile, predict_files
from fracture_det.monitoring.counts import WatchError
from fracture_det.monitoring.features import FEATURES, INPUTS, Values, limb_value, picture_values, result_values
from fracture_det.structures.image_files import NamedFile
from fracture_det.structures.radiograph import Radiograph, read_radiograph
from fracture_det.suitability.assess import assess

# The first line of a table without a detector.
PICTURES_HEAD: dict[str, Any] = {"detector": None, "possible_score": None}


@dataclass(frozen=True)
class Measured:
    """One file. values: see FEATURES; None where it could not be read or was refused as no radiograph of a limb."""

    file_name: str
    values: Values | None


def measure_files(
    detector: Detector, files: Sequence[NamedFile], path: Path, *, possible_score: float, alter: Alter | None = None
) -> list[Measured]:
    """Return the values of `files`, as the page would have them, and keep them in `path` (JSON lines).

    alter: (name, pixels) -> the pixels that are uploaded in their place. possible_score: where a finding begins.
    What `path` holds already is not measured again. Raises WatchError for a table of another detector.
    """
    head = {"detector": detector.info.sha256, "possible_score": possible_score}
    known = {one.file_name: one for one in _read_table(path, head)}
    missing = [file for file in files if file[0] not in known]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(head) + "\n", encoding="utf-8")
    with path.open("a", encoding="utf-8") as table:
        for file in tqdm(predict_files(detector, missing, alter=alter), total=len(missing), unit="image", leave=False):
            one = Measured(file.prediction.file_name, _values_of(file, possible_score))
            known[one.file_name] = one
            table.write(json.dumps({"file_name": one.file_name, "values": one.values}) + "\n")
            table.flush()
    return [known[name] for name, _ in files]


def measure_pictures(files: Sequence[NamedFile], path: Path) -> list[Measured]:
    """Return the values of `files` that no detector is needed for, and keep them in `path`, as `measure_files` does."""
    known = {one.file_name: one for one in _read_table(path, PICTURES_HEAD)}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(PICTURES_HEAD) + "\n", encoding="utf-8")
    with path.open("a", encoding="utf-8") as table:
        for name, file in tqdm([file for file in files if file[0] not in known], unit="image", leave=False):
            known[name] = Measured(name, _picture_values(read_radiograph(file)))
            table.write(json.dumps({"file_name": name, "values": known[name].values}) + "\n")
    return [known[name] for name, _ in files]


def _values_of(file: PredictedFile, possible_score: float) -> Values | None:
    if file.pixels is None or file.prediction.detections is None:
        return None
    picture = _picture_values(Radiograph(file.pixels))
    scores = file.prediction.detections.scores
    return None if picture is None else {**picture, **result_values(scores, possible_score)}


def _picture_values(radiograph: Radiograph) -> Values | None:
    said = assess(radiograph)
    return {**picture_values(radiograph.pixels), "limb": limb_value(said.probability)} if said.ok else None


def _read_table(path: Path, head: dict[str, Any]) -> list[Measured]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        found = json.loads(lines[0])
    except (IndexError, ValueError) as error:
        raise WatchError(f"{path}: line 1: expected a table of values, got something else") from error
    if found != head:
        raise WatchError(f"{path}: line 1: expected {head}, got {found}; delete it to measure again")
    measured = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            row = json.loads(line)
            values = row["values"]
            if values is not None and not set(INPUTS) <= set(values) <= set(FEATURES):
                raise ValueError("other features")
            measured.append(Measured(row["file_name"], values))
        except (KeyError, TypeError, ValueError) as error:
            if number == len(lines):  # torn by a kill
                path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
                break
            raise WatchError(f"{path}: line {number}: expected the values of a file") from error
    return measured
