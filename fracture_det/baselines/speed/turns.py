"""Two detectors timed in turns on the same radiographs, with the size of their files, as one JSON file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from fracture_det.baselines.speed.candidates import model_files
from fracture_det.inference.base import Detector
from fracture_det.inference.registry import open_detector
from fracture_det.inference.stage_timer import machine_name
from fracture_det.structures.radiograph import read_radiograph
from fracture_det.structures.strict_json import convert_json, parse_json

FORMAT, VERSION = "fracture_det turns", 1


class TurnsError(ValueError):
    """Two detectors cannot be timed, or the file of a timing is wrong; the message says which and why."""


@dataclass(frozen=True)
class TimedDetector:
    """One detector. ms: median per image, from pixels to boxes. size_bytes: all files of weights and graphs."""

    name: str
    sha256: str
    ms: float
    size_bytes: int

    def __post_init__(self) -> None:
        if not (self.ms > 0 and self.size_bytes > 0):
            raise TurnsError(f"{self.name}: expected ms and size_bytes above 0, got {self.ms} and {self.size_bytes}")


@dataclass(frozen=True)
class MeasuredTurns:
    """Both detectors on the same machine. images, rounds: how many were timed, and how often each."""

    machine: str
    images: int
    rounds: int
    served: TimedDetector
    candidate: TimedDetector

    def save(self, path: Path) -> str:
        """Write the file, and return its SHA-256."""
        text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return hashlib.sha256(text.encode()).hexdigest()


def read_turns(path: Path) -> tuple[MeasuredTurns, str]:
    """Read a file, and return it with its SHA-256. Raises TurnsError naming file, field and value."""
    try:
        data = path.read_bytes()
        content = parse_json(data)
        header = (content.pop("format", None), content.pop("version", None)) if isinstance(content, dict) else ()
        if header != (FORMAT, VERSION):
            raise TurnsError(f"expected format {FORMAT!r}, version {VERSION}, got {header}")
        return convert_json(content, MeasuredTurns), hashlib.sha256(data).hexdigest()
    except OSError as error:
        raise TurnsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TurnsError(f"{path}: {error}") from error


def measure_turns(served: str, candidate: str, images: Sequence[Path], *, rounds: int) -> MeasuredTurns:
    """Time two detectors, by their URIs, in turns: image by image, the order changing from one to the next.

    Changes in the machine's speed affect both alike. Each sees all images once before anything is counted.
    Raises TurnsError for a detector without files or without a hash, DetectorError and UnreadableImage.
    """
    detectors = {uri: open_detector(uri) for uri in (served, candidate)}
    pixels = [read_radiograph(path).pixels for path in images]
    times: dict[str, list[float]] = {uri: [] for uri in detectors}
    for round_number in range(rounds + 1):
        for number, image in enumerate(pixels):
            order = list(detectors) if (round_number + number) % 2 else list(detectors)[::-1]
            for uri in order:
                begun = time.perf_counter()
                detectors[uri].predict([image])
                if round_number:
                    times[uri].append(1000 * (time.perf_counter() - begun))
    return MeasuredTurns(
        machine_name(),
        len(pixels),
        rounds,
        *(_timed(uri, detectors[uri], times[uri]) for uri in (served, candidate)),
    )


def _timed(uri: str, detector: Detector, times: Sequence[float]) -> TimedDetector:
    files = model_files(uri)
    if not files or detector.info.sha256 is None:
        raise TurnsError(f"detector {uri!r}: it has no files whose size and hash could be told")
    size = sum(path.stat().st_size for path in files)
    return TimedDetector(detector.info.name, detector.info.sha256, round(median(times), 3), size)
