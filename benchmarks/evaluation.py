"""Time and memory of matching and counting, from 1,000 to 100,000 images of ten boxes.

    .venv/bin/python benchmarks/evaluation.py --sizes 1000 10000 100000

For each size, in a process of its own: a random study (0 to 3 truth boxes of 15 to 200 px and 10 detections an image,
half of them near a truth box where there is one; images in pairs of one patient) is matched and counted:

  COCO       pycocotools matches at ten IoUs and four area ranges (`coco_matches`), once
  rules      matching by IoU .5, IoU .3 and the centre (`match_dataset`), once
  figures    COCO's twelve figures of one bootstrap resample (`CocoMatches.figures`), median of --repeats
  FROC       sensitivity at the seven targets for the three rules of one resample (`froc_curve`), likewise

Times are those of the processor, so that other work on the machine lengthens them little; on an idle machine the clock
says the same. `study` is the memory of the process before matching, `peak` its largest. The rows "growth" say by what
the row above is larger than the size before: images tenfold, x 10.0 would be in proportion.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.coco_eval import coco_matches
from fracture_det.evaluation.froc import froc_curve
from fracture_det.evaluation.matching import MATCH_RULES, Matches, match_dataset
from fracture_det.structures.detections import Detections

N_DETECTIONS, MAX_TRUTH = 10, 3
# measured -> its title and how it is written
COLUMNS = {
    "images": ("images", "{:,.0f}"),
    "boxes": ("boxes", "{:,.0f}"),
    "coco_s": ("COCO, s", "{:.1f}"),
    "rules_s": ("rules, s", "{:.2f}"),
    "figures_ms": ("figures, ms", "{:.2f}"),
    "froc_ms": ("FROC, ms", "{:.2f}"),
    "study_mib": ("study, MiB", "{:,.0f}"),
    "peak_mib": ("peak, MiB", "{:,.0f}"),
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers of images")
    parser.add_argument("--repeats", type=int, default=5, help="resamples of which the median is reported")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure each size in a fresh process and print a Markdown table."""
    arguments = build_parser().parse_args(argv)
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one, arguments.repeats)))
        return 0
    print_row(title for title, _ in COLUMNS.values())
    print_row("---" for _ in COLUMNS)
    before: dict[str, float] = {}
    for size in arguments.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--repeats", str(arguments.repeats)]
        measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print_row(form.format(measured[name]) for name, (_, form) in COLUMNS.items())
        if before:
            ratios = [f"x {measured[name] / before[name]:.1f}" for name in COLUMNS]
            print_row(["growth", *ratios[1:]])
        before = measured
    return 0


def print_row(cells: Iterable[str]) -> None:
    """Print one row of a Markdown table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def measure(n_images: int, repeats: int) -> dict[str, float]:
    """Return what COLUMNS names for a study of `n_images`."""
    dataset, detections = draw_study(n_images)
    random = np.random.default_rng(1)
    weights = [random.multinomial(n_images, np.full(n_images, 1 / n_images)).astype(float) for _ in range(repeats)]
    study_mib = peak_mib()
    coco, coco_s = timed(coco_matches, dataset, detections)
    rules, rules_s = timed(match_by_each_rule, dataset, detections)
    figures = [timed(coco.figures, resample)[1] for resample in weights]
    froc = [timed(sensitivities, rules, resample)[1] for resample in weights]
    return {
        "images": n_images,
        "boxes": sum(map(len, detections.values())),
        "coco_s": coco_s,
        "rules_s": rules_s,
        "figures_ms": 1000 * statistics.median(figures),
        "froc_ms": 1000 * statistics.median(froc),
        "study_mib": study_mib,
        "peak_mib": peak_mib(),
    }


def draw_study(n_images: int) -> tuple[Dataset, dict[int, Detections]]:
    """Return random truth and detections, partly right."""
    random = np.random.default_rng(0)
    records, detections = [], {}
    for image_id in range(n_images):
        truth = draw_boxes(random, int(random.integers(0, MAX_TRUTH + 1)))
        boxes = draw_boxes(random, N_DETECTIONS)
        if len(truth):
            near = random.random(N_DETECTIONS) < 0.5
            boxes[near] = truth[random.integers(0, len(truth), near.sum())] + random.normal(0, 8, (near.sum(), 4))
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        classes = np.zeros(len(truth), np.int64)
        group = f"patient{image_id // 2}"
        records.append(ImageRecord(image_id, f"{image_id}.png", 800, 800, group, None, truth, classes))
        scores = random.random(N_DETECTIONS)
        detections[image_id] = Detections.from_unsorted(boxes, scores, np.zeros(N_DETECTIONS, np.int64))
    return Dataset(tuple(records), ("fracture",)), detections


def draw_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Return boxes (N, 4) x0 y0 x1 y1 of 15 to 200 px in 800."""
    corners = random.uniform(0, 600, (count, 2))
    return np.concatenate([corners, corners + random.uniform(15, 200, (count, 2))], axis=1)


def match_by_each_rule(dataset: Dataset, detections: dict[int, Detections]) -> list[Matches]:
    """Return the matches by the three rules."""
    return [match_dataset(dataset, detections, rule=rule) for rule in MATCH_RULES]


def sensitivities(matches: list[Matches], weights: np.ndarray) -> list[np.ndarray]:
    """Return the FROC figures of each rule."""
    return [froc_curve(by_rule, weights).at() for by_rule in matches]


def timed(work: Callable[..., Any], *arguments: object) -> tuple[Any, float]:
    """Return what `work` returns for these arguments, and its seconds of processor time."""
    start = time.process_time()
    result = work(*arguments)
    return result, time.process_time() - start


def peak_mib() -> float:
    """Return the largest resident memory of this process so far in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
