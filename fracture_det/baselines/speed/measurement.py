"""One candidate in a process of its own: cold start, latency, throughput, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from fracture_det.inference.registry import open_detector
from fracture_det.inference.stage_timer import peak_memory_mb
from fracture_det.resources import PACKAGE
from fracture_det.structures.radiograph import read_radiograph

MISSING = "missing"


class MeasurementError(RuntimeError):
    """A candidate failed; the message is the end of its output."""


class MissingPackage(MeasurementError):
    """A candidate needs a package that is not installed."""


@dataclass(frozen=True)
class Measurement:
    """What one process measured.

    cold_start_s: from its start to the first prediction, imports included. latency_ms: of single radiographs, from
    pixels to boxes, reading excluded. images_per_s: of all of them in one call. peak_mb: of main memory.
    """

    cold_start_s: float
    latency_ms: tuple[float, ...]
    images_per_s: float
    peak_mb: float


def measure(uri: str, images: Sequence[Path]) -> Measurement:
    """Open `uri` in this process and time it, after one prediction that is not counted."""
    detector = open_detector(uri)
    detector.predict([read_radiograph(images[0]).pixels])
    cold_start_s = time.time() - psutil.Process().create_time()
    pixels = [read_radiograph(path).pixels for path in images]
    # Runtimes compile a graph per size, for single images and batches; the first single one is done.
    for image in {image.shape: image for image in pixels if image.shape != pixels[0].shape}.values():
        detector.predict([image])
    detector.predict(pixels)
    latency_ms = []
    for image in pixels:
        begun = time.perf_counter()
        detector.predict([image])
        latency_ms.append(1000 * (time.perf_counter() - begun))
    begun = time.perf_counter()
    detector.predict(pixels)
    images_per_s = len(pixels) / (time.perf_counter() - begun)
    return Measurement(cold_start_s, tuple(latency_ms), images_per_s, own_peak_mb())


def own_peak_mb() -> float:
    """Return this process's peak memory (1 MB = 10^6 bytes); NaN if the system does not report it.

    On Linux not from getrusage(2), where a process inherits the peak of its parent, even across execve; VmHWM of
    proc(5) starts at zero.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return peak_memory_mb() or float("nan")


def measure_apart(uri: str, images: Sequence[Path], *, timeout_s: float = 1800) -> Measurement:
    """Run `measure` in a new process. Raises MissingPackage, or MeasurementError when it fails otherwise."""
    code = f"from {__name__} import main; main()"
    task = json.dumps({"uri": uri, "images": [str(path) for path in images]})
    # Not by changing the working folder, to which the paths may be relative.
    known = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH")))),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], input=task, capture_output=True, text=True, timeout=timeout_s, env=known
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"{uri}: no result within {timeout_s:g} s") from error
    if done.returncode:
        raise MeasurementError(f"{uri}: {(done.stderr.strip().splitlines() or [_ending(done.returncode)])[-1]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if MISSING in result:
        raise MissingPackage(result[MISSING])
    return Measurement(**{**result, "latency_ms": tuple(result["latency_ms"])})


def _ending(code: int) -> str:
    return f"ended by signal {-code}, perhaps for lack of memory" if code < 0 else f"exit code {code} without a message"


def missing_package(error: Exception) -> str | None:
    """Return the message of `error` if its cause is a package that is not installed, else None."""
    for cause in (error, error.__cause__):
        if isinstance(cause, ModuleNotFoundError) and not (cause.name or "fracture_det").startswith("fracture_det"):
            return str(error)
    return None


def main() -> None:
    """Read a task as JSON from standard input, write the Measurement, or what is missing, to standard output."""
    task = json.load(sys.stdin)
    try:
        result = asdict(measure(task["uri"], [Path(path) for path in task["images"]]))
    except Exception as error:
        missing = missing_package(error)
        if missing is None:
            raise
        result = {MISSING: missing}
    print(json.dumps(result))
