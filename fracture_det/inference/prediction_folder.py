"""What a run over an archive leaves: predictions.jsonl, overlays and tables; resumable, and in shards."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fracture_det.calibration.operating_points import PAPER_OPERATING_SCORE
from fracture_det.data.prediction_writer import PredictionWriter, ResumePoint, image_line, resume
from fracture_det.data.predictions import ImagePrediction, stream_predictions
from fracture_det.inference.base import Detector
from fracture_det.inference.batch import PredictedFile, Screening, predict_files, writer_for
from fracture_det.inference.prediction_tables import types_of, write_csv, write_parquet
from fracture_det.inference.stage_timer import stage
from fracture_det.structures.image_files import NamedFile, printable
from fracture_det.suitability.assess import BURNED_IN, BURNED_IN_CAPTION, CAPTION
from fracture_det.visualization.overlay import draw_overlay

JPEG_QUALITY = 92
PREDICTIONS, TABLE, PARQUET = "predictions.jsonl", "predictions.csv", "predictions.parquet"
SKIPPED = "skipped.csv"
# From files to the lines of predictions.jsonl, in any order.
Engine = Callable[[Sequence[NamedFile]], Iterator[str]]


class ShardError(ValueError):
    """A shard is not one of its number, or shards cannot be joined; the message says which and why."""


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `of` parts of an archive: every file is in one of them, whatever machine asks."""

    index: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise ShardError(f"--shard: expected I/N with I from 1 to N, got {self.index}/{self.of}")

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "2/5". Raises ShardError."""
        index, _, of = text.partition("/")
        if not (index.isdecimal() and of.isdecimal()):
            raise ShardError(f"--shard: expected I/N such as 2/5, got {text!r}")
        return cls(int(index), int(of))

    def take(self, files: Sequence[NamedFile]) -> list[NamedFile]:
        """Return its files of a sorted list."""
        return list(files[self.index - 1 :: self.of])

    def folder(self, out: Path) -> Path:
        """Return where its results lie."""
        return out / f"shard-{self.index}-of-{self.of}"


@dataclass(frozen=True)
class Overlays:
    """Draws boxes from `score` on onto what was predicted, into `folder`."""

    folder: Path
    class_names: tuple[str, ...]
    score: float

    def __call__(self, file: PredictedFile) -> None:
        """Write one file's overlay, where it could be read."""
        detections = file.prediction.detections
        if file.pixels is None or detections is None:
            return
        path = overlay_path(self.folder, file.prediction.file_name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with stage("draw"):
            shown, caption = detections.above(self.score), _caption(file.prediction)
            overlay = draw_overlay(file.pixels, shown, self.class_names, caption=caption)
        overlay.save(path, quality=JPEG_QUALITY, subsampling=0)  # colour at half size blurs thin lines


def _caption(prediction: ImagePrediction) -> str | None:
    """Return what must be seen wherever an overlay goes, or None."""
    captions = [CAPTION] if prediction.unsuitable is not None else []
    captions += [BURNED_IN_CAPTION] if BURNED_IN in prediction.notes else []
    return ". ".join(captions) or None


def overlay_timer(detector: Detector) -> Callable[[PredictedFile], None]:
    """Return an `on_file` for predict_to_file that draws overlays, for their time alone, where none are kept.

    Boxes are drawn from the detector's operating score on, else from the paper's .5.
    """
    info = detector.info

    def draw(file: PredictedFile) -> None:
        if file.pixels is not None and file.prediction.detections is not None:
            with stage("draw"):
                draw_overlay(
                    file.pixels, file.prediction.detections, info.class_names, minimum_score=info.score_threshold
                )

    return draw


def overlay_path(folder: Path, file_name: str) -> Path:
    """Return where the overlay of an image lies; names that differ, in folder, stem or suffix, never meet."""
    return folder / "overlays" / f"{file_name}.overlay.jpg"


def predict_lines(
    detector: Detector,
    files: Sequence[NamedFile],
    *,
    batch_size: int = 1,
    overlays: Overlays | None = None,
    screening: Screening | None = None,
) -> Iterator[str]:
    """Yield the line of predictions.jsonl of each file, in order, after its overlay was drawn.

    So a run that is killed has drawn whatever it has written.
    """
    for file in predict_files(detector, files, batch_size=batch_size, read_ahead=True, screening=screening):
        if overlays is not None:
            overlays(file)
        yield image_line(file.prediction, detector.info.class_names)


@dataclass(frozen=True)
class FolderRun:
    """What is in the folder: number of files predicted, failed, and with a box from `score` on.

    resumed: how many of them an earlier run had done. unsuitable: how many were not analysed because they do not look
    like radiographs of a limb; they are not among the failed. notes: how many files each note of docs/suitability.md
    is said of. types: of how many of those with a box each type of fracture is the most probable, most first.
    """

    predicted: int
    failed: int
    with_boxes: int
    score: float
    resumed: int = 0
    unsuitable: int = 0
    notes: Mapping[str, int] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """How many there are."""
        return self.predicted + self.failed + self.unsuitable


def shown_score(detector: Detector, score: float | None) -> float:
    """Return the score from which boxes are shown: the given one, the detector's own, else the paper's .5.

    Raises ValueError when it is outside 0..1.
    """
    return _first_score(score, detector.info.operating_score)


def _first_score(*scores: float | None) -> float:
    score = next((score for score in scores if score is not None), PAPER_OPERATING_SCORE)
    if not 0 <= score <= 1:
        raise ValueError(f"score: expected 0..1, got {score}")
    return score


def archive_facts(files: Sequence[NamedFile], shard: Shard | None = None) -> dict[str, Any]:
    """Return what distinguishes one archive from another: number, and SHA-256 of names and sizes in bytes.

    Reading what is in the files would take as long as predicting them.
    """
    digest = sha256()
    for name, path in sorted(files):
        size = path.stat().st_size if path.exists() else -1  # a link that leads nowhere fails later, as a file
        digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
    facts: dict[str, Any] = {"images": len(files), "sha256": digest.hexdigest()}
    return facts if shard is None else {**facts, "shard": str(shard)}


def predict_to_folder(
    detector: Detector,
    files: Sequence[NamedFile],
    folder: Path,
    *,
    score: float | None = None,
    batch_size: int = 1,
    overlays: bool = True,
    parquet: bool = False,
    resuming: bool = False,
    shard: Shard | None = None,
    engine: Engine | None = None,
    progress: bool = True,
    screening: Screening | None = None,
) -> FolderRun:
    """Predict files and write predictions.jsonl (all boxes), predictions.csv and overlays (boxes from `score` on).

    score: see `shown_score`. parquet: also predictions.parquet, with all boxes.
    resuming: continue what a killed run left. shard: predict only this part of `files`.
    engine: what predicts instead of `detector` in this process. screening: see `predict_files`.
    Raises PredictionsError when what is there was written by another detector or of other files.
    """
    score = shown_score(detector, score)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PREDICTIONS
    facts = archive_facts(files, shard)
    earlier = resume(writer_for(detector.info, path, archive=facts)) if resuming and path.is_file() else ResumePoint()
    if earlier.torn:
        print(f"{path}: the last line is incomplete; its image is predicted again", file=sys.stderr)
    files = files if shard is None else shard.take(files)
    left = [(name, file) for name, file in files if name not in earlier.done]
    if engine is None:
        drawn = Overlays(folder, detector.info.class_names, score) if overlays else None

        def engine(files: Sequence[NamedFile]) -> Iterator[str]:
            return predict_lines(detector, files, batch_size=batch_size, overlays=drawn, screening=screening)

    with (
        writer_for(detector.info, path, archive=facts, append=bool(earlier.done)) as writer,
        tqdm(total=len(files), initial=len(files) - len(left), unit="image", disable=not progress) as bar,
    ):
        for line in engine(left):
            writer.write_line(line)
            bar.update()
    return _write_tables(folder, score, parquet=parquet, resumed=len(files) - len(left))


def join_shards(folder: Path, *, score: float | None = None, parquet: bool = False) -> FolderRun:
    """Make one predictions.jsonl and its tables of the shards in `folder`.

    Raises ShardError when one of them is missing or not done, none is there, or they were written by different
    detectors or of different files; then nothing is written.
    """
    parts = _find_shards(folder)
    header = _common_header(parts)
    score = _first_score(score, header.get("operating_score"))
    detector = (
        header["detector"],
        tuple(header["class_names"]),
        header.get("operating_score"),
        header.get("about", {}),
    )
    unfinished = folder / f"{PREDICTIONS}.part"  # a join that is killed must not look like a whole result
    types = tuple(header.get("type_names", ()))
    with PredictionWriter(unfinished, *detector, archive=header["archive"], type_names=types) as joined:
        for path in parts.values():
            with path.open(encoding="utf-8") as lines:
                next(lines)
                for line in lines:
                    joined.write_line(line.rstrip("\n"))
    unfinished.replace(folder / PREDICTIONS)
    skipped = next(iter(parts.values())).with_name(SKIPPED)  # of the whole archive, in every shard
    if skipped.is_file():
        shutil.copyfile(skipped, folder / SKIPPED)
    return _write_tables(folder, score, parquet=parquet)


def _find_shards(folder: Path) -> dict[Shard, Path]:
    """Return the predictions files of all shards in order."""
    folders = sorted(folder.glob("shard-*-of-*"))
    parts = {Shard.parse(path.name.removeprefix("shard-").replace("-of-", "/")): path for path in folders}
    of = {part.of for part in parts}
    if len(of) != 1 or len(parts) != max(of):
        got = ", ".join(path.name for path in folders) or "no folder shard-I-of-N"
        raise ShardError(f"{folder}: expected all shards of one number, got {got}")
    return {part: parts[part] / PREDICTIONS for part in sorted(parts, key=lambda part: part.index)}


def _common_header(parts: Mapping[Shard, Path]) -> dict[str, Any]:
    """Return what the headers of all shards say, after comparing them and counting their lines."""
    first: dict[str, Any] = {}
    for shard, path in parts.items():
        header = dict(stream_predictions(path)[0])
        facts = header["archive"] = dict(header.get("archive", {}))
        if facts.pop("shard", None) != str(shard):
            raise ShardError(f"{path}, line 1, archive: expected shard {shard} of --shard")
        first = first or header
        for name in {**first, **header}:
            if header.get(name) != first.get(name):
                raise ShardError(
                    f"{path}, line 1, {name}: the shards are of different detectors or files; "
                    f"expected {first.get(name)!r}, got {header.get(name)!r}"
                )
        with path.open("rb") as lines:
            done = sum(line.endswith(b"\n") for line in lines) - 1
        if done != (expected := len(range(facts["images"])[shard.index - 1 :: shard.of])):
            raise ShardError(f"{path}: expected {expected} images, got {done}; finish it with --shard {shard} --resume")
    return first


def _write_tables(folder: Path, score: float, *, parquet: bool, resumed: int = 0) -> FolderRun:
    with_boxes = write_csv(folder / PREDICTIONS, folder / TABLE, score=score)
    if parquet:
        write_parquet(folder / PREDICTIONS, folder / PARQUET)
    predicted = failed = unsuitable = 0
    notes, types = Counter[str](), Counter[str]()
    header, images = stream_predictions(folder / PREDICTIONS)
    for image in images:
        types.update([name for name, _ in types_of(image, header.get("type_names", ()), score)[:1]])
        predicted += image.error is None
        notes.update(image.notes)
        refused = image.error is not None and image.unsuitable is not None
        unsuitable += refused
        failed += image.error is not None and not refused
        if image.error is not None:
            print(f"{printable(image.file_name)}: {image.error}", file=sys.stderr)
    return FolderRun(predicted, failed, with_boxes, score, resumed, unsuitable, notes, dict(types.most_common()))
