"""AP50 and AUROC of a detector on degraded radiographs: eight perturbations at five strengths.

Each row of the table is one pass over the images. Its predictions are kept in one predictions file per row, so that an
interrupted run continues where it stopped, and each row can be evaluated again with tools that read such files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from fracture_det import __version__
from fracture_det.data.prediction_writer import cut_torn_line
from fracture_det.data.predictions import ImagePrediction, align, read_predictions
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.bootstrap import Floats, bootstrap_intervals
from fracture_det.evaluation.estimates import NO_TRUTH, Basis, estimate
from fracture_det.evaluation.image_level import auroc
from fracture_det.evaluation.lesion_level import average_precision
from fracture_det.evaluation.matching import Matches, match_dataset
from fracture_det.evaluation.perturbations import (
    PERTURBATIONS,
    STRENGTHS,
    PerturbedTruth,
    perturb_pixels,
    perturb_truth,
)
from fracture_det.evaluation.report import RobustnessRow
from fracture_det.inference.base import Detector
from fracture_det.inference.batch import predict_files, writer_for
from fracture_det.structures.radiograph import Pixels
from fracture_det.structures.wording import counted

# Perturbation of the reference row.
UNTOUCHED = "none"


@dataclass(frozen=True)
class Robustness:
    """The robustness of a detector.

    rows: the original images first (perturbation "none", strength 0), then by perturbation and strength.
    notes: limitations that a reader must know, in sentences.
    """

    rows: list[RobustnessRow]
    notes: list[str]


@dataclass(frozen=True)
class _Cell:
    """One row to be measured. `kind` and `strength` as in PERTURBATIONS; strength 0 of any kind is the original."""

    kind: str
    strength: int

    @property
    def name(self) -> str:
        return self.kind if self.strength else UNTOUCHED

    @property
    def setting(self) -> str:
        return PERTURBATIONS[self.kind].setting(self.strength) if self.strength else "untouched"

    def truth(self, record: ImageRecord) -> PerturbedTruth:
        return perturb_truth(record.boxes, record.size, self.kind, self.strength, file_name=record.file_name)

    def moved(self, record: ImageRecord, truth: PerturbedTruth) -> ImageRecord:
        """Return the record with its boxes where `truth` has them, and its crowd regions moved likewise."""
        crowd = perturb_truth(record.crowd_boxes, record.size, self.kind, self.strength, file_name=record.file_name)
        return replace(
            record,
            height=truth.size[0],
            width=truth.size[1],
            boxes=truth.boxes,
            classes=record.classes[truth.kept],
            types=tuple(compress(record.types, truth.kept)),
            crowd_boxes=crowd.boxes,
            crowd_classes=record.crowd_classes[crowd.kept],
        )


def measure_robustness(
    detector: Detector,
    dataset: Dataset,
    images_dir: str | Path,
    *,
    perturbations: Sequence[str] = tuple(PERTURBATIONS),
    strengths: Sequence[int] = STRENGTHS,
    max_images: int | None = None,
    cache: str | Path | None = None,
    batch_size: int = 1,
    n_bootstrap: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> Robustness:
    """Predict and evaluate the images of `dataset` under each perturbation at each strength, and unchanged.

    images_dir: what the file names start from. max_images: evaluate only so many, see `choose_images`.
    cache: folder that keeps the predictions of each row for this detector, these images and this setting; the same call
    again continues where the last one stopped, and retries failed images. Without it nothing is kept.
    n_bootstrap, seed: as in `bootstrap_intervals`; the seed draws the images, too.

    Raises ValueError for an unknown perturbation or strength, and for a `max_images` that is too small.
    """
    if not set(perturbations) <= set(PERTURBATIONS) or not set(strengths) <= set(STRENGTHS):
        raise ValueError(
            f"expected perturbations of {', '.join(PERTURBATIONS)} and strengths of {STRENGTHS}, "
            f"got {', '.join(perturbations)} and {tuple(strengths)}"
        )
    chosen = choose_images(dataset, max_images, seed=seed)
    cells = [_Cell("jpeg", 0), *(_Cell(kind, strength) for kind in perturbations for strength in strengths)]
    evaluated = []
    with TemporaryDirectory() as temporary:
        passes = _Passes(detector, chosen, Path(images_dir), Path(cache or temporary), batch_size)
        missing = sum(passes.n_missing(cell) for cell in cells)
        with tqdm(total=missing, desc="robustness", unit="image", disable=not progress) as bar:
            for cell in cells:
                bar.set_postfix_str(f"{cell.name} {cell.strength}")
                passes.predict(cell, bar)
                evaluated.append(_evaluate(cell, chosen, passes.path(cell), n_bootstrap, seed))
    notes = _sample_notes(dataset, chosen, seed) + [note for row in evaluated for note in row.notes]
    failures = _failure_notes([row.failures for row in evaluated])
    return Robustness([row.row for row in evaluated], notes + failures)


def choose_images(dataset: Dataset, max_images: int | None, *, seed: int) -> Dataset:
    """Return at most `max_images` images: whole groups drawn at random, fractured and healthy in the data's proportion.

    A group with at least one fractured image counts as fractured. A group that no longer fits is skipped, so that
    the last places go to small groups. Raises ValueError when the images are too few for one group of each kind.
    """
    if max_images is None or max_images >= len(dataset):
        return dataset
    groups: dict[str, list[ImageRecord]] = {}
    for record in dataset:
        groups.setdefault(record.group_id, []).append(record)
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for name in sorted(groups):
        kinds[any(record.fractured for record in groups[name])].append(name)
    n_fractured = sum(len(groups[name]) for name in kinds[True])
    share = round(max_images * n_fractured / len(dataset))
    random = np.random.default_rng(seed)
    taken: set[int] = set()
    for names, places in ((kinds[True], share), (kinds[False], max_images - share)):
        drawn = [names[index] for index in random.permutation(len(names))]
        fitting = _fill(drawn, groups, places)
        if names and not fitting:
            smallest = min(len(groups[name]) for name in names)
            raise ValueError(
                f"max_images: {max_images} leaves {places} for {'fractured' if names is kinds[True] else 'healthy'} "
                f"groups, of which the smallest has {smallest} images"
            )
        taken |= {record.image_id for name in fitting for record in groups[name]}
    return Dataset(tuple(record for record in dataset if record.image_id in taken), dataset.class_names)


def _fill(names: Iterable[str], groups: Mapping[str, Sequence[ImageRecord]], places: int) -> list[str]:
    """Return the groups that fit into so many places, in order."""
    fitting = []
    for name in names:
        if len(groups[name]) <= places:
            fitting.append(name)
            places -= len(groups[name])
    return fitting


@dataclass(frozen=True)
class _Passes:
    """The passes of a detector over the perturbed images, kept in a folder."""

    detector: Detector
    dataset: Dataset
    images_dir: Path
    folder: Path
    batch_size: int

    def path(self, cell: _Cell) -> Path:
        """Return where a cell's predictions lie: the name holds a hash of all that they depend on."""
        info = self.detector.info
        facts = [info.name, info.provenance, info.operating_score, self._images]
        facts += [cell.name, cell.setting, __version__]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{cell.name}_{cell.strength}_{digest[:16]}.jsonl"

    @cached_property
    def _images(self) -> list[tuple[str, int]]:
        """Name and bytes of each image; -1 where there is no file."""
        paths = [(record.file_name, self.images_dir / record.file_name) for record in self.dataset]
        return [(name, path.stat().st_size if path.is_file() else -1) for name, path in paths]

    def n_missing(self, cell: _Cell) -> int:
        """Return how many images are still to be predicted; those that failed are tried again."""
        return len(self.dataset) - len(_kept(self.path(cell)))

    def predict(self, cell: _Cell, bar: tqdm[NoReturn]) -> None:
        """Predict what is missing of a cell."""
        path = self.path(cell)
        kept = _kept(path)
        files = [(r.file_name, self.images_dir / r.file_name) for r in self.dataset if r.file_name not in kept]
        if not files and path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with writer_for(self.detector.info, path) as writer:
            for image in kept.values():
                writer.write(image)
            alter = partial(_altered, cell)
            for predicted in predict_files(self.detector, files, batch_size=self.batch_size, alter=alter):
                writer.write(predicted.prediction)
                bar.update()


def _altered(cell: _Cell, file_name: str, pixels: Pixels) -> Pixels:
    return perturb_pixels(pixels, cell.kind, cell.strength, file_name=file_name)


def _kept(path: Path) -> dict[str, ImagePrediction]:
    """Return what an earlier run predicted, by file name; a last line that was not finished is cut off the file."""
    if not path.is_file():
        return {}
    cut_torn_line(path)
    if not path.stat().st_size:
        return {}
    return {image.file_name: image for image in read_predictions(path).images if image.error is None}


@dataclass(frozen=True)
class _EvaluatedRow:
    row: RobustnessRow
    notes: list[str]
    failures: Mapping[str, str]


def _evaluate(cell: _Cell, dataset: Dataset, path: Path, n_bootstrap: int, seed: int) -> _EvaluatedRow:
    """Return a cell's row, its notes, and file name -> error of the images that failed."""
    truths = {record.image_id: cell.truth(record) for record in dataset}
    moved = Dataset(tuple(cell.moved(record, truths[record.image_id]) for record in dataset), dataset.class_names)
    aligned = align(read_predictions(path), moved)
    left = {record.image_id for record in moved if record.fractured}
    lost = [record for record in dataset if record.fractured and record.image_id not in left]
    left_out = {record.image_id for record in lost}
    detections = {image_id: boxes for image_id, boxes in aligned.detections.items() if image_id not in left_out}
    matches = match_dataset(moved, detections, rule="iou50")
    results = bootstrap_intervals(partial(_statistics, matches), matches.group, n_bootstrap=n_bootstrap, seed=seed)
    missing = "fractured" if not matches.fractured.any() else "healthy"
    figures = {
        "AP50": estimate(results["AP50"], Basis(matches.n_truth, NO_TRUTH)),
        "AUROC": estimate(results["AUROC"], Basis(matches.n_images, f"no {missing} image")),
    }
    failures = {
        record.file_name: aligned.failures[record.image_id] for record in dataset if record.image_id in aligned.failures
    }
    row = RobustnessRow(cell.name, cell.strength, cell.setting, figures)
    return _EvaluatedRow(row, _loss_notes(cell, truths, lost), failures)


def _statistics(matches: Matches, weights: Floats) -> dict[str, float]:
    return {
        "AP50": average_precision(matches, weights),
        "AUROC": auroc(matches.top_score, matches.fractured, weights),
    }


def _sample_notes(dataset: Dataset, chosen: Dataset, seed: int) -> list[str]:
    if len(chosen) == len(dataset):
        return []
    n_chosen, n_all = (sum(record.fractured for record in records) for records in (chosen, dataset))
    return [
        f"Robustness was measured on {len(chosen)} of {len(dataset)} images ({n_chosen} of {n_all} fractured): whole "
        f"groups drawn with seed {seed}, fractured and healthy in the proportion of the data."
    ]


def _loss_notes(cell: _Cell, truths: Mapping[int, PerturbedTruth], lost: Sequence[ImageRecord]) -> list[str]:
    n_boxes = sum(int((~truth.kept).sum()) for truth in truths.values())
    if not n_boxes:
        return []
    boxes = (
        "1 annotated box lost more than half of its area and no longer counts"
        if n_boxes == 1
        else f"{n_boxes} annotated boxes lost more than half of their area and no longer count"
    )
    images = counted(len(lost), "image lost all of its boxes and is", "images lost all of theirs and are")
    where = f"{cell.name} at strength {cell.strength} ({cell.setting})"
    return [f"Robustness, {where}: {boxes}; {images} excluded from this row."]


def _failure_notes(failures: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a sentence for each image that failed, in however many rows."""
    rows: dict[str, list[str]] = {}
    for row in failures:
        for name, error in row.items():
            rows.setdefault(name, []).append(error)
    return [
        f"Robustness: {name} failed in {len(errors)} of {len(failures)} rows and is excluded from them: {errors[0]}"
        for name, errors in sorted(rows.items())
    ]
