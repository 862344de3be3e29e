"""One run of tools/benchmark.py, from exports to result files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from fracture_det.baselines.speed.candidates import (
    Candidate,
    Candidates,
    baseline_candidates,
    kind_of_detector,
    own_candidates,
    pruned_candidate,
    shipped_candidate,
)
from fracture_det.baselines.speed.profiling import profile
from fracture_det.baselines.speed.rounds import Result, benchmark, save
from fracture_det.inference.ensemble import EnsembleConfig
from fracture_det.inference.registry import FLOAT
from fracture_det.structures.image_files import InputError, find_images
from fracture_det.structures.radiograph import UnreadableImage, read_radiograph

SYNTHETIC_NOTE = "synthetic radiographs: --images and FRACATLAS_DIR name none"
QUICK_NOTE = "quick: baselines in OpenVINO FP32 alone, so no comparison with their best form; one round; no profile"


@dataclass(frozen=True)
class BenchmarkOptions:
    """One run.

    out: folder for results and exports. images: file, folder or glob of radiographs; without, those in FRACATLAS_DIR,
    else synthetic ones are drawn. detector: an ensemble.json whose members are d2. rounds, count: how often, and on how
    many radiographs each time. quick: baselines in one exported form, no profile. pruned: URI of a pruned detector.
    more: further candidates, NAME=URI.

    Raises ValueError for numbers below 1 and for a candidate that is not NAME=URI.
    """

    out: Path
    detector: Path
    images: str | None = None
    rounds: int = 3
    count: int = 8
    quick: bool = False
    with_baselines: bool = True
    pruned: str | None = None
    more: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rounds", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: expected at least 1, got {getattr(self, name)}")
        for text in self.more:
            if not all(text.partition("=")):
                raise ValueError(f"--candidate: expected NAME=URI, got {text!r}")


def run_benchmark(options: BenchmarkOptions, *, say: Callable[[str], None] = print) -> Result:
    """Export what is missing, measure everything, write the files, and return what was measured."""
    images, notes = _images(options)
    result = benchmark(_collect_candidates(options, images, say), images, repeats=options.rounds)
    result = replace(result, notes=(*notes, *([QUICK_NOTE] if options.quick else [])))
    if not options.quick:
        member = EnsembleConfig.load(options.detector).members[0].partition(":")[2]
        result = replace(result, profile=profile(f"d2:{options.detector.parent / member}", images))
    save(result, options.out)
    return result


def _collect_candidates(options: BenchmarkOptions, images: list[Path], say: Callable[[str], None]) -> Candidates:
    exports = options.out / "exports"
    candidates = own_candidates(options.detector, exports, images, say=say)
    candidates += shipped_candidate(options.detector.resolve() == FLOAT.resolve()) + pruned_candidate(options.pruned)
    given = [(name, uri) for name, _, uri in (text.partition("=") for text in options.more)]
    candidates += Candidates(
        tuple(Candidate(name, uri, kind_of_detector(uri), "not measured here") for name, uri in given)
    )
    if options.with_baselines:
        candidates += baseline_candidates(exports, images, quick=options.quick, say=say)
    return candidates


def _images(options: BenchmarkOptions) -> tuple[list[Path], list[str]]:
    """Return the readable ones of `count` evenly spaced files, and notes on them."""
    source = options.images
    if source is None and os.environ.get("FRACATLAS_DIR"):
        source = str(Path(os.environ["FRACATLAS_DIR"]) / "images")
    if source is None:
        return _synthetic(options.out / "synthetic", options.count), [SYNTHETIC_NOTE]
    files = [path for _, path in find_images(source).files]
    places = np.linspace(0, len(files) - 1, options.count).round().astype(int)
    chosen = [files[place] for place in places]
    unreadable = {path for path in chosen if not _readable(path)}
    notes = [f"{len(unreadable)} unreadable radiographs left out"] if unreadable else []
    if unreadable == set(chosen):
        raise InputError(f"{source}: none of the {len(chosen)} radiographs that were chosen can be read")
    return [path for path in chosen if path not in unreadable], notes


def _readable(path: Path) -> bool:
    try:
        read_radiograph(path)
    except UnreadableImage:
        return False
    return True


def _synthetic(folder: Path, count: int) -> list[Path]:
    """Write images of smooth grey noise, as large as a small radiograph: good for measuring time only."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        noise = np.random.default_rng(index).normal(90, 60, (500, 400)).clip(0, 255).astype(np.uint8)
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 6))
        paths.append(path)
    return paths
