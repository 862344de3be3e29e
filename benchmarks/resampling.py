"""Bootstrap of COCO's twelve figures and FROC by counting matches, against running pycocotools on each resample.

    .venv/bin/python benchmarks/resampling.py --images 4000 --resamples 2000

A random study (see benchmarks/evaluation.py: 10 detections an image, images in pairs of one patient) is matched once
and resampled by patients with `bootstrap.measure`, which also leaves out 100 blocks of patients for its intervals:

  ours         COCO's twelve figures and sensitivity at seven false positives per image by three match rules
  pycocotools  COCO's twelve figures alone, by COCOeval on the data set in which each image comes as often as it was
               drawn; `--judged` resamples are run, and the mean is multiplied by the number of resamples

`agreement` is the largest difference of a figure between the two on the judged resamples. Seconds are by the clock and,
in brackets, of the processor, which other work on the machine lengthens less.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.evaluation import draw_study, match_by_each_rule, peak_mib, sensitivities
from fracture_det.data.records import Dataset
from fracture_det.evaluation.bootstrap import bootstrap_intervals
from fracture_det.evaluation.coco_eval import STATS, coco_matches
from fracture_det.structures.detections import Detections

Seconds = tuple[float, float]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--judged", type=int, default=3, help="resamples that pycocotools is run on")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Time both and print a Markdown table."""
    arguments = build_parser().parse_args(argv)
    dataset, detections = draw_study(arguments.images)
    (coco, rules), matching = timed(
        lambda: (coco_matches(dataset, detections), match_by_each_rule(dataset, detections))
    )
    group = rules[0].group

    def statistics(weights: np.ndarray) -> dict[str, float]:
        froc = np.concatenate(sensitivities(rules, weights)).tolist()
        return {**coco.figures(weights), **{f"FROC {index}": value for index, value in enumerate(froc)}}

    measured, ours_s = timed(
        lambda: bootstrap_intervals(statistics, group, n_bootstrap=arguments.resamples, seed=0, progress="bootstrap")
    )
    judged, agreement = [], 0.0
    random = np.random.default_rng(1)
    for _ in range(arguments.judged):
        drawn = np.bincount(random.integers(group.max() + 1, size=group.max() + 1), minlength=group.max() + 1)[group]
        stats, seconds = timed(lambda drawn=drawn: run_pycocotools(dataset, detections, drawn))
        judged.append(seconds)
        figures = coco.figures(drawn.astype(float))
        agreement = max([agreement, *(abs(figures[name] - stats[name]) for name in STATS)])
    pycocotools_s = tuple(np.mean(judged, axis=0) * arguments.resamples)

    print(f"{arguments.images:,} images, {len(rules[0].score):,} boxes, {arguments.resamples:,} resamples\n")
    print("| | seconds |\n| --- | ---: |")
    print(f"| matching once | {written(matching)} |")
    print(f"| ours, {len(measured)} figures | {written(ours_s)} |")
    print(f"| pycocotools, {len(STATS)} figures, from {arguments.judged} resamples | {written(pycocotools_s)} |")
    ratios = [reference / own for reference, own in zip(pycocotools_s, ours_s, strict=True)]
    print(f"\nRatio {ratios[0]:.0f} ({ratios[1]:.0f}); agreement {agreement:.1e}; peak memory {peak_mib():.0f} MiB")
    return 0


def run_pycocotools(dataset: Dataset, detections: Mapping[int, Detections], drawn: np.ndarray) -> dict[str, float]:
    """Return COCOeval's figures of the data set in which image i, in order of image id, comes drawn[i] times."""
    images: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for record, times in zip(sorted(dataset, key=lambda record: record.image_id), drawn.tolist(), strict=True):
        boxes = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in np.asarray(record.boxes, dtype=float).tolist()]
        predicted = detections[record.image_id]
        guesses = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in predicted.boxes.astype(float).tolist()]
        scores = predicted.scores.tolist()
        for _ in range(times):
            image_id = len(images)
            images.append({"id": image_id, "height": record.height, "width": record.width})
            truth += [row(image_id, len(truth) + offset, box) for offset, box in enumerate(boxes, 1)]
            results += [
                {**row(image_id, len(results) + offset, box), "score": score}
                for offset, (box, score) in enumerate(zip(guesses, scores, strict=True), 1)
            ]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(as_coco(images, truth), as_coco(images, results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(STATS, judge.stats.tolist(), strict=True))


def row(image_id: int, number: int, box: list[float]) -> dict[str, Any]:
    """Return one annotation; numbers are from 1, because pycocotools takes 0 for "no match"."""
    return {"id": number, "image_id": image_id, "category_id": 0, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}


def as_coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> COCO:
    """Return pycocotools' index of a data set of one class."""
    coco = COCO()
    coco.dataset = {"images": images, "categories": [{"id": 0, "name": "fracture"}], "annotations": annotations}
    coco.createIndex()
    return coco


def timed(work: Callable[[], Any]) -> tuple[Any, Seconds]:
    """Return what `work` returns, and its seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - clock, time.process_time() - processor)


def written(seconds: Seconds | tuple[Any, ...]) -> str:
    """Return seconds as they are printed: by the clock (of the processor)."""
    return f"{seconds[0]:,.1f} ({seconds[1]:,.1f})"


if __name__ == "__main__":
    sys.exit(main())
