"""One contender in a process of its own: cold start, latency, throughput, memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from fracture_det.images import read_radiograph
from fracture_det.inference.clock import peak_memory_mb
from fracture_det.inference.detector import open_detector

ROOT = Path(__file__).parents[2]


class MeasurementError(RuntimeError):
    """A contender failed; the message is the end of what it said."""


@dataclass(frozen=True)
class Measurement:
    """What one process saw.

    cold_start_s: from its start to the first answer, imports included. latency_ms: of single radiographs, read before,
    from pixels to boxes. images_per_s: of all of them in one call. peak_mb: of main memory.
    """

    cold_start_s: float
    latency_ms: tuple[float, ...]
    images_per_s: float
    peak_mb: float


def measure(uri: str, images: Sequence[Path]) -> Measurement:
    """Open `uri` in this process and time it; one answer before is not counted."""
    detector = open_detector(uri)
    pixels = [read_radiograph(path).pixels for path in images]
    detector.predict(pixels[:1])
    cold_start_s = time.time() - psutil.Process().create_time()
    latency_ms = []
    for one in pixels:
        begun = time.perf_counter()
        detector.predict([one])
        latency_ms.append(1000 * (time.perf_counter() - begun))
    begun = time.perf_counter()
    detector.predict(pixels)
    images_per_s = len(pixels) / (time.perf_counter() - begun)
    return Measurement(cold_start_s, tuple(latency_ms), images_per_s, peak_memory_mb() or float("nan"))


def measure_apart(uri: str, images: Sequence[Path], *, timeout_s: float = 1800) -> Measurement:
    """As `measure`, in a new process. Raises MeasurementError when that fails."""
    code = f"from {__name__} import main; main()"
    task = json.dumps({"uri": uri, "images": [str(path) for path in images]})
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], input=task, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"{uri}: no answer within {timeout_s:g} s") from error
    if done.returncode:
        raise MeasurementError(f"{uri}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    return Measurement(**{**answer, "latency_ms": tuple(answer["latency_ms"])})


def main() -> None:
    """Read a task as JSON from standard input, write the Measurement to standard output."""
    task = json.load(sys.stdin)
    print(json.dumps(asdict(measure(task["uri"], [Path(path) for path in task["images"]]))))
