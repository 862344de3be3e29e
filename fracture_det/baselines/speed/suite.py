"""What one run of tools/benchmark.py measures, from exports to files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from fracture_det.baselines.speed.candidates import Candidate, Candidates, kind_of, ours, pruned, rivals, shipped
from fracture_det.baselines.speed.profiling import profile
from fracture_det.baselines.speed.rounds import Result, benchmark, save
from fracture_det.inference.ensemble import EnsembleConfig
from fracture_det.inference.registry import FLOAT
from fracture_det.structures.image_files import InputError, find_images
from fracture_det.structures.radiograph import UnreadableImage, read_radiograph

SYNTHETIC_NOTE = "synthetic radiographs: --images and FRACATLAS_DIR name none"
QUICK_NOTE = "quick: rivals in OpenVINO FP32 alone, so no comparison with their best form; one round; no profile"


@dataclass(frozen=True)
class BenchmarkOptions:
    """One run.

    out: folder for results and exports. images: file, folder or glob of radiographs; without, those in FRACATLAS_DIR,
    else synthetic ones are drawn. detector: an ensemble.json whose members are d2. rounds, count: how often, and on how
    many radiographs each time. quick: rivals in one exported form, no profile. pruned: URI of a pruned detector.
    more: further contenders, NAME=URI.

    Raises ValueError for numbers below 1 and for a contender that is not NAME=URI.
    """

    out: Path
    detector: Path
    images: str | None = None
    rounds: int = 3
    count: int = 8
    quick: bool = False
    with_rivals: bool = True
    pruned: str | None = None
    more: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rounds", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: expected at least 1, got {getattr(self, name)}")
        for text in self.more:
            if not all(text.partition("=")):
                raise ValueError(f"--contender: expected NAME=URI, got {text!r}")


def run_benchmark(suite: BenchmarkOptions, *, say: Callable[[str], None] = print) -> Result:
    """Export what is missing, measure everything, write the files, and return what was measured."""
    images, notes = _images(suite)
    result = benchmark(_lineup(suite, images, say), images, repeats=suite.rounds)
    result = replace(result, notes=(*notes, *([QUICK_NOTE] if suite.quick else [])))
    if not suite.quick:
        member = EnsembleConfig.load(suite.detector).members[0].partition(":")[2]
        result = replace(result, profile=profile(f"d2:{suite.detector.parent / member}", images))
    save(result, suite.out)
    return result


def _lineup(suite: BenchmarkOptions, images: list[Path], say: Callable[[str], None]) -> Candidates:
    exports = suite.out / "exports"
    lineup = ours(suite.detector, exports, images, say=say)
    lineup += shipped(suite.detector.resolve() == FLOAT.resolve()) + pruned(suite.pruned)
    given = [(name, uri) for name, _, uri in (text.partition("=") for text in suite.more)]
    lineup += Candidates(tuple(Candidate(name, uri, kind_of(uri), "not measured here") for name, uri in given))
    return lineup + rivals(exports, images, quick=suite.quick, say=say) if suite.with_rivals else lineup


def _images(suite: BenchmarkOptions) -> tuple[list[Path], list[str]]:
    """Return `count` readable files, evenly spaced over those that are there, and notes on them."""
    source = suite.images
    if source is None and os.environ.get("FRACATLAS_DIR"):
        source = str(Path(os.environ["FRACATLAS_DIR"]) / "images")
    if source is None:
        return _synthetic(suite.out / "synthetic", suite.count), [SYNTHETIC_NOTE]
    files = [path for _, path in find_images(source).files]
    places = np.linspace(0, len(files) - 1, suite.count).round().astype(int)
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
    """Draw soft grey noise of the size of a small radiograph: enough to measure time, not to find anything."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        noise = np.random.default_rng(index).normal(90, 60, (500, 400)).clip(0, 255).astype(np.uint8)
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 6))
        paths.append(path)
    return paths
