"""How many radiographs a second each trained detector does on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fracture_det.baselines.reproduction.study import Run
from fracture_det.baselines.speed.candidates import Candidate, Candidates, kind_of_detector
from fracture_det.baselines.speed.rounds import benchmark, save
from fracture_det.data.coco import read_coco
from fracture_det.inference.detectron2 import find_weights

ROUNDS, RADIOGRAPHS = 3, 8


def measure_speed(
    runs: Sequence[Run], out: Path, images: Path, data: Path, *, quick: bool
) -> Mapping[str, Mapping[str, float]]:
    """Return images_per_s of each run, with `low` and `high` over the rounds, by name of its model.

    Each detector runs in a process of its own, in turns, on evenly spaced test radiographs of `data`. It is not
    measured again while the weights are the same; out: has a folder speed/ with every figure. quick: one round of two.
    """
    weights = {run.name: find_weights(out / "runs" / run.name).stat().st_mtime for run in runs}
    known = out / "speed" / "of.json"
    if not (known.is_file() and json.loads(known.read_text(encoding="utf-8")) == weights):
        records = read_coco(data / "test.json").records
        places = np.linspace(0, len(records) - 1, 2 if quick else RADIOGRAPHS).round().astype(int)
        files = [images / records[place].file_name for place in places]
        uris = {run.model.name: f"{run.model.scheme}:{out / 'runs' / run.name}" for run in runs}
        candidates = tuple(Candidate(name, uri, kind_of_detector(uri), "") for name, uri in uris.items())
        save(benchmark(Candidates(candidates), files, repeats=1 if quick else ROUNDS), out / "speed")
        known.write_text(json.dumps(weights), encoding="utf-8")
    rows = json.loads((out / "speed" / "benchmark.json").read_text(encoding="utf-8"))["rows"]
    return {
        row["name"]: dict(zip(("value", "low", "high"), (row["images_per_s"], *row["images_per_s_range"]), strict=True))
        for row in rows
    }
