"""How fast a detector is on this machine, stage by stage, without keeping what it predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fracture_det.inference.base import Detector
from fracture_det.inference.batch import PredictedFile, predict_files, predict_to_file
from fracture_det.inference.timing import stage
from fracture_det.structures.image_files import NamedFile
from fracture_det.structures.timing import Timing
from fracture_det.visualization.overlay import draw_overlay


def time_stages(
    detector: Detector,
    files: Sequence[NamedFile],
    *,
    n_images: int = 50,
    warmup: int = 3,
    batch_size: int = 1,
    progress: bool = False,
) -> Timing:
    """Return how long reading, preprocessing, the model, postprocessing and drawing take.

    Timed are `n_images` files, or all where there are fewer, evenly spaced over `files`; before that `warmup` files
    are predicted untimed, because a first prediction also fills caches. Files that fail are left out.
    Raises ValueError where there is no file, or a number is too small.
    """
    if not files or n_images < 1 or warmup < 0:
        raise ValueError(
            f"expected files, n_images of at least 1 and warmup of at least 0, got {len(files)}, {n_images}, {warmup}"
        )
    chosen = [files[index] for index in np.linspace(0, len(files) - 1, min(n_images, len(files))).round().astype(int)]
    for _ in predict_files(detector, chosen[:warmup], batch_size=batch_size):
        pass
    with TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        run = predict_to_file(
            detector, chosen, path, batch_size=batch_size, each=overlay_timer(detector), progress=progress
        )
    return run.as_timing()


def overlay_timer(detector: Detector) -> Callable[[PredictedFile], None]:
    """Return an `each` for predict_to_file that draws overlays, for their time alone, where none are kept.

    Boxes are drawn from the detector's operating score on, else from the paper's .5.
    """
    info = detector.info

    def draw(one: PredictedFile) -> None:
        if one.pixels is not None and one.prediction.detections is not None:
            with stage("draw"):
                draw_overlay(
                    one.pixels, one.prediction.detections, info.class_names, minimum_score=info.score_threshold
                )

    return draw
