"""One run of tools/predict.py: which files, by which detector, into which folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fracture_det.inference.batch import Screening
from fracture_det.inference.prediction_folder import FolderRun, Overlays, Shard, predict_to_folder, shown_score
from fracture_det.inference.registry import open_detector
from fracture_det.structures.image_files import FoundImages, NamedFile, find_images
from fracture_det.suitability.assess import assess

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class PredictOptions:
    """What is predicted.

    detector, calibration: see `open_detector`. source: file, folder or glob. out: folder for the results.
    score: from which boxes are shown, or None for the detector's own. shard: a part of the files alone, whose results
    lie in a folder of their own in `out`. resume: continue what a killed run left. engine: one of ENGINES; workers:
    how many detectors Ray holds. force: predict also what does not look like a radiograph of a limb, and mark it.
    """

    detector: str
    source: str
    out: Path
    calibration: Path | None = None
    score: float | None = None
    batch_size: int = 1
    overlays: bool = True
    parquet: bool = False
    resume: bool = False
    shard: Shard | None = None
    engine: str = "local"
    workers: int = 1
    force: bool = False

    @property
    def folder(self) -> Path:
        """Where the results lie."""
        return self.out if self.shard is None else self.shard.folder(self.out)

    def find(self) -> FoundImages:
        """Return the files of the whole archive. Raises InputError when there is none."""
        return find_images(self.source, leave_out=self.out)


def run_predict(options: PredictOptions, files: Sequence[NamedFile]) -> FolderRun:
    """Predict those of the `files` of `options.find()` that are in its shard, and write everything.

    Raises DetectorError, PredictionsError (what is to be resumed does not fit) or ClusterError.
    """
    opener = partial(open_detector, options.detector, calibration=options.calibration)
    detector = opener()
    screening = Screening(assess, analysed=options.force)
    drawn = None
    if options.overlays:
        drawn = Overlays(options.folder, detector.info.class_names, shown_score(detector, options.score))

    def on_ray(files: Sequence[NamedFile]) -> Iterator[str]:
        from fracture_det.inference.ray import predict_on_cluster

        return predict_on_cluster(
            opener,
            files,
            workers=options.workers,
            batch_size=options.batch_size,
            overlays=drawn,
            screening=screening,
        )

    return predict_to_folder(
        detector,
        files,
        options.folder,
        score=options.score,
        batch_size=options.batch_size,
        overlays=options.overlays,
        parquet=options.parquet,
        resuming=options.resume,
        shard=options.shard,
        engine=on_ray if options.engine == "ray" else None,
        screening=screening,
    )
