"""The same work on a Ray cluster: actors hold the detector, files go to whichever is free."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from fracture_det.inference.base import Detector
from fracture_det.inference.batch import Screening
from fracture_det.inference.prediction_folder import Overlays, predict_lines
from fracture_det.resources import how_to_install
from fracture_det.structures.image_files import NamedFile

# What is predicted again when a worker dies; small enough for a progress bar that moves.
FILES_PER_TASK = 8


class ClusterError(ValueError):
    """Ray is not installed or no cluster can be reached; the message says what to do."""


class Predictor:
    """What runs in an actor: opens the detector once, then turns files into lines."""

    def __init__(
        self,
        opener: Callable[[], Detector],
        overlays: Overlays | None,
        screening: Screening | None = None,
        *,
        batch_size: int = 1,
    ) -> None:
        self._detector, self._overlays, self._batch_size = opener(), overlays, batch_size
        self._screening = screening

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Return the `line` of each file of the columns `name` and `path`."""
        files = [(str(name), Path(str(path))) for name, path in zip(batch["name"], batch["path"], strict=True)]
        lines = predict_lines(
            self._detector, files, batch_size=self._batch_size, overlays=self._overlays, screening=self._screening
        )
        return {"line": list(lines)}


def predict_on_cluster(
    opener: Callable[[], Detector],
    files: Sequence[NamedFile],
    *,
    workers: int,
    batch_size: int = 1,
    overlays: Overlays | None = None,
    screening: Screening | None = None,
) -> Iterator[str]:
    """Yield the line of predictions.jsonl of each file, in the order in which workers finish.

    opener: opens the detector in a worker. workers: actors, each with a detector of its own. The cluster is the one of
    RAY_ADDRESS, or one on this machine for the time of this run; files and overlays must have the same paths on all
    machines. screening: see `predict_files`. Work of an actor that dies is done again by another.

    Raises ClusterError when Ray is not installed, cannot start, `workers` is below 1, or a worker cannot work (it does
    not find the weights on its machine).
    """
    if workers < 1:
        raise ClusterError(f"--workers: expected at least 1, got {workers}")
    ray = _start()
    try:
        yield from _lines(ray, opener, files, workers, batch_size, (overlays, screening))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]  # above it stands the worker's traceback
        raise ClusterError(f"a Ray worker failed: {reason}") from error
    finally:
        ray.shutdown()


def _start() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to a server
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS") or "local"  # without it Ray would join any cluster it finds here
    if address == "local" and "ray" not in sys.modules:  # which reads this when it is imported
        # Ray listens on all addresses of a machine, and whoever may talk to it may run programs here.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ClusterError(f"--engine ray: {how_to_install('ray')}") from error
    path = os.pathsep.join(part for part in sys.path if part)  # workers find what this process finds
    try:
        ray.init(
            address,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
    except (ConnectionError, RuntimeError, OSError) as error:
        raise ClusterError(f"no Ray cluster at {os.environ.get('RAY_ADDRESS', 'this machine')}: {error}") from error
    return ray


def _lines(
    ray: Any,
    opener: Callable[[], Detector],
    files: Sequence[NamedFile],
    workers: int,
    batch_size: int,
    on_files: tuple[Overlays | None, Screening | None],
) -> Iterator[str]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # there is a progress bar already
    rows = [{"name": name, "path": str(path.resolve())} for name, path in files]
    if not rows:
        return
    n_blocks = -(-len(rows) // FILES_PER_TASK)
    workers = min(workers, n_blocks)
    processors = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    lines = ray.data.from_items(rows, override_num_blocks=n_blocks).map_batches(
        Predictor,
        fn_constructor_args=(opener, *on_files),
        fn_constructor_kwargs={"batch_size": batch_size},
        batch_size=None,  # a whole block
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=processors_each(processors, workers),
    )
    for row in lines.iter_rows():
        yield row["line"]


def processors_each(processors: Sequence[float], workers: int) -> float:
    """Return how many processors each worker takes of machines that have so many: the most that fit.

    One stays free: workers that took them all would leave none to Ray Data's own tasks, and nothing would ever begin.
    A worker must also fit on one machine, or it would wait forever. Raises ClusterError when there is no processor.
    """
    if not sum(processors) > 0:
        raise ClusterError(f"the Ray cluster has no processors; its machines have {list(processors)}")
    free = min(1.0, sum(processors) / 2)
    whole, parts = range(int(max(processors)), 0, -1), (1 / part for part in count(2))
    return next(
        share
        for share in chain(whole, parts)
        if sum(int(machine / share) for machine in processors) >= workers and sum(processors) - workers * share >= free
    )
