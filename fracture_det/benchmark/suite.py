"""What one run of tools/benchmark.py measures, from exports to files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from fracture_det.benchmark.contenders import Contender, ours, rivals, shipped
from fracture_det.benchmark.profile import profile
from fracture_det.benchmark.run import Result, benchmark, save
from fracture_det.inference.batch import find_images
from fracture_det.inference.fused import Fusion


@dataclass(frozen=True)
class Suite:
    """One run.

    out: folder for results and exports. images: file, folder or glob of radiographs; without, synthetic ones are drawn.
    detector: a fusion file whose members are d2. rounds, count: how often, and on how many radiographs each time.
    quick: rivals only exported, no profile. more: further contenders, NAME=URI.

    Raises ValueError for numbers below 1 and for a contender that is not NAME=URI.
    """

    out: Path
    detector: Path
    images: str | None = None
    rounds: int = 3
    count: int = 8
    quick: bool = False
    with_rivals: bool = True
    more: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rounds", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: expected at least 1, got {getattr(self, name)}")
        for text in self.more:
            if not all(text.partition("=")):
                raise ValueError(f"--contender: expected NAME=URI, got {text!r}")


def run_suite(suite: Suite, *, say: Callable[[str], None] = print) -> Result:
    """Export what is missing, measure everything, write the files, and return what was measured."""
    images = _images(suite)
    exports = suite.out / "exports"
    contenders = [*ours(suite.detector, exports, images, say=say), *shipped()]
    contenders += [Contender(name, uri, "ours", "as given") for name, _, uri in (t.partition("=") for t in suite.more)]
    missing: dict[str, str] = {}
    if suite.with_rivals:
        found, missing = rivals(exports, torch_too=not suite.quick, say=say)
        contenders += found
    result = benchmark(contenders, images, repeats=suite.rounds)
    result = replace(result, failed={**missing, **result.failed})
    if not suite.quick:
        member = Fusion.load(suite.detector).members[0].partition(":")[2]
        result = replace(result, profile=profile(f"d2:{suite.detector.parent / member}", images))
    save(result, suite.out)
    return result


def _images(suite: Suite) -> list[Path]:
    """Return `count` files, evenly spaced over those that are there."""
    if suite.images is None:
        return _synthetic(suite.out / "synthetic", suite.count)
    files = [path for _, path in find_images(suite.images).files]
    return [files[index] for index in np.linspace(0, len(files) - 1, suite.count).round().astype(int)]


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
