"""What a run over an archive leaves: predictions.jsonl, overlays and tables; resumable, and in shards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from fracture_det.evaluation.operating import PAPER_SCORE
from fracture_det.figures import draw_overlay
from fracture_det.inference.batch import NamedFile, PredictedFile, about, operating_score_of, predict_files
from fracture_det.inference.detector import Detector
from fracture_det.inference.tables import write_csv, write_parquet
from fracture_det.predictions import ImagePrediction, PredictionWriter, image_line, resume, stream_predictions

JPEG_QUALITY = 92
PREDICTIONS, TABLE, PARQUET = "predictions.jsonl", "predictions.csv", "predictions.parquet"

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

    def __call__(self, one: PredictedFile) -> None:
        """Write one file's overlay, where it could be read."""
        found = one.prediction.detections
        if one.pixels is None or found is None:
            return
        path = overlay_path(self.folder, one.prediction.file_name)
        path.parent.mkdir(parents=True, exist_ok=True)
        overlay = draw_overlay(one.pixels, found.above(self.score), self.class_names)
        overlay.save(path, quality=JPEG_QUALITY, subsampling=0)  # colour at half size blurs thin lines


def overlay_path(folder: Path, file_name: str) -> Path:
    """Return where the overlay of an image lies; names that differ, in folder, stem or suffix, never meet."""
    return folder / "overlays" / f"{file_name}.overlay.jpg"


def predict_lines(
    detector: Detector, files: Sequence[NamedFile], *, batch_size: int = 1, overlays: Overlays | None = None
) -> Iterator[str]:
    """Yield the line of predictions.jsonl of each file, in order, after its overlay was drawn.

    So a run that is killed has drawn whatever it has written.
    """
    for one in predict_files(detector, files, batch_size=batch_size, read_ahead=True):
        if overlays is not None:
            overlays(one)
        yield image_line(one.prediction, tuple(detector.class_names))


@dataclass(frozen=True)
class FolderRun:
    """What is in the folder: number of files predicted, failed, and with a box from `score` on.

    resumed: how many of them an earlier run had done.
    """

    predicted: int
    failed: int
    with_boxes: int
    score: float
    resumed: int = 0


def shown_score(detector: Detector, score: float | None) -> float:
    """Return the score from which boxes are shown: the given one, the detector's own, else the paper's .5.

    Raises ValueError when it is outside 0..1.
    """
    stated = operating_score_of(detector)
    score = score if score is not None else PAPER_SCORE if stated is None else stated
    if not 0 <= score <= 1:
        raise ValueError(f"score: expected 0..1, got {score}")
    return score


def predict_to_folder(
    detector: Detector,
    files: Sequence[NamedFile],
    folder: Path,
    *,
    score: float | None = None,
    batch_size: int = 1,
    overlays: bool = True,
    parquet: bool = False,
    go_on: bool = False,
    engine: Engine | None = None,
    progress: bool = True,
) -> FolderRun:
    """Predict files and write predictions.jsonl (all boxes), predictions.csv and overlays (boxes from `score` on).

    score: see `shown_score`. parquet: also predictions.parquet, with all boxes. go_on: with what a killed run left.
    engine: who predicts instead of `detector` in this process.
    Raises PredictionsError when what is to go on was written by another detector.
    """
    score = shown_score(detector, score)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PREDICTIONS
    header = (detector.name, tuple(detector.class_names), operating_score_of(detector), about(detector))
    done = resume(PredictionWriter(path, *header)) if go_on and path.is_file() else frozenset()
    left = [(name, file) for name, file in files if name not in done]
    if engine is None:
        drawn = Overlays(folder, tuple(detector.class_names), score) if overlays else None

        def engine(files: Sequence[NamedFile]) -> Iterator[str]:
            return predict_lines(detector, files, batch_size=batch_size, overlays=drawn)

    with (
        PredictionWriter(path, *header, append=bool(done)) as writer,
        tqdm(total=len(files), initial=len(files) - len(left), unit="image", disable=not progress) as bar,
    ):
        for line in engine(left):
            writer.write_line(line)
            bar.update()
    return _write_tables(folder, score, parquet=parquet, resumed=len(files) - len(left))


def join_shards(folder: Path, *, score: float | None = None, parquet: bool = False) -> FolderRun:
    """Make one predictions.jsonl and its tables of the shards in `folder`.

    Raises ShardError when one of them is missing, none is there, or they were written by different detectors.
    """
    found = sorted(folder.glob("shard-*-of-*"))
    parts = [Shard.parse(path.name.removeprefix("shard-").replace("-of-", "/")) for path in found]
    of = {part.of for part in parts}
    missing = sorted(set(range(1, max(of, default=1) + 1)) - {part.index for part in parts})
    if len(of) != 1 or missing:
        raise ShardError(f"{folder}: expected all shards of one number, got {[path.name for path in found]}")
    headers = [stream_predictions(path / PREDICTIONS)[0] for path in found]
    if any(header != headers[0] for header in headers):
        raise ShardError(f"{folder}: {found[0].name} and others were written by different detectors")
    with (folder / PREDICTIONS).open("w", encoding="utf-8", newline="\n") as joined:
        for number, path in enumerate(found):
            with (path / PREDICTIONS).open(encoding="utf-8") as part:
                first = next(part)
                joined.writelines([first] if number == 0 else [])
                joined.writelines(part)
    stated = headers[0].get("operating_score", PAPER_SCORE)
    return _write_tables(folder, stated if score is None else score, parquet=parquet)


def _write_tables(folder: Path, score: float, *, parquet: bool, resumed: int = 0) -> FolderRun:
    with_boxes = write_csv(folder / PREDICTIONS, folder / TABLE, score=score)
    if parquet:
        write_parquet(folder / PREDICTIONS, folder / PARQUET)
    predicted = failed = 0
    for image in stream_predictions(folder / PREDICTIONS)[1]:
        predicted += image.error is None
        failed += image.error is not None
        _say(image)
    return FolderRun(predicted, failed, with_boxes, score, resumed)


def _say(image: ImagePrediction) -> None:
    if image.error is not None:
        print(f"{image.file_name}: {image.error}", file=sys.stderr)
