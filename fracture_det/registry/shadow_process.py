"""A version in a process of its own, at the lowest priority: what it does, and how it ends, touches nobody.

    python -m fracture_det.registry.shadow_process FD FOLDER KEYS VERSION

It first says what its detector is, then answers one image after the other over the socket FD, until that is closed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fracture_det.inference.base import Detector
from fracture_det.inference.calls import call_detector
from fracture_det.inference.memory import return_freed_memory
from fracture_det.registry.opening import open_version
from fracture_det.registry.registry import Registry
from fracture_det.structures.radiograph import Pixels

# Its opening may have to wait for a processor that others use.
START_S = 300.0
LOWEST_PRIORITY = 19
# Should memory run out, the system is to end this process first.
OOM_SCORE = 1000


class ShadowFailed(RuntimeError):
    """The detector of the shadow could not be opened, or failed on an image; the process may be asked again."""


class ShadowEnded(ShadowFailed):
    """The process of the shadow ended, or did not answer in time: nothing more can be asked of it."""


class ShadowInfo(msgspec.Struct, frozen=True):
    """What the detector of a shadow states about itself; see `DetectorInfo`."""

    name: str
    sha256: str | None
    class_names: tuple[str, ...]
    operating_score: float | None
    possible_score: float | None
    calibrated: bool


class ShadowBoxes(msgspec.Struct, frozen=True):
    """What it found on an image: boxes (N, 4) px, scores (N,) descending, labels; confidence as of a `Prediction`."""

    boxes: list[tuple[float, float, float, float]]
    scores: list[float]
    labels: list[str]
    confidence: float | None = None


@dataclass(frozen=True)
class Options:
    """Where the version lies, and what its detector is opened with."""

    registry: Registry
    version: str
    settings: Mapping[str, Any]


class ShadowProcess:
    """A running process with the detector of a version. One caller at a time. Raises ShadowFailed."""

    def __init__(self, options: Options) -> None:
        ours, theirs = socket.socketpair()
        registry = options.registry
        places = [str(registry.folder), str(registry.keys), options.version, json.dumps(dict(options.settings))]
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", __spec__.name, str(number), *places]
            # In a session of its own, Ctrl-C in the terminal of the page does not reach it: it ends with the line.
            apart: dict[str, Any] = {"stdin": subprocess.DEVNULL, "start_new_session": True}
            self._process = subprocess.Popen(command, pass_fds=[number], env=_environment(), **apart)
        self._line = Connection(ours.detach())
        try:
            self.info = msgspec.convert(self._answer(START_S), ShadowInfo)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def predict(self, pixels: Pixels, timeout_s: float) -> ShadowBoxes:
        """Return what the detector finds on an image (H, W, 3) uint8 RGB."""
        try:
            self._line.send_bytes(json.dumps(pixels.shape).encode())
            self._line.send_bytes(np.ascontiguousarray(pixels).reshape(-1).data)
        except OSError as error:
            raise ShadowEnded(f"the process has ended (code {self._process.poll()})") from error
        return msgspec.convert(self._answer(timeout_s), ShadowBoxes)

    def kill(self) -> None:
        """End the process; whoever waits for its answer gets ShadowEnded."""
        self._process.kill()

    def close(self) -> None:
        """End the process, and wait for its end."""
        self.kill()
        self._line.close()
        self._process.wait()

    def _answer(self, timeout_s: float) -> Any:
        try:
            if not self._line.poll(timeout_s):
                raise ShadowEnded(f"it did not answer within {timeout_s:g} s")
            answer = json.loads(self._line.recv_bytes())
        except (EOFError, OSError) as error:
            raise ShadowEnded(f"the process ended without an answer (code {self._process.poll()})") from error
        if "error" in answer:
            raise ShadowFailed(answer["error"])
        return answer


def main(arguments: list[str]) -> int:
    """Answer until the other side closes the line."""
    number, folder, keys, version, settings = arguments
    os.nice(LOWEST_PRIORITY)
    with suppress(OSError):  # no such file but on Linux
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    return_freed_memory()
    line = Connection(int(number))
    registry = Registry.at(folder, keys)
    try:
        detector = open_version(registry, version, **json.loads(settings))
    except Exception as error:
        line.send_bytes(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        return 1
    line.send_bytes(msgspec.json.encode(_info_of(detector)))
    with suppress(EOFError, OSError):
        while True:
            shape = json.loads(line.recv_bytes())
            pixels = np.frombuffer(line.recv_bytes(), np.uint8).reshape(shape)
            line.send_bytes(_reply(detector, pixels))
    return 0


def _info_of(detector: Detector) -> ShadowInfo:
    info = detector.info
    scores = (info.operating_score, info.possible_score)
    return ShadowInfo(info.name, info.sha256, info.class_names, *scores, info.calibrated)


def _reply(detector: Detector, pixels: Pixels) -> bytes:
    try:
        [found] = call_detector(detector, [pixels])
    except Exception as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
    info = detector.info
    confidence = None if info.calibration is None else info.calibration.image_probability(found)
    labels = [info.class_names[index] for index in found.classes]
    return json.dumps(
        {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "labels": labels, "confidence": confidence}
    ).encode()


def _environment() -> dict[str, str]:
    """Return this process's environment, with the place from which it imported this package."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
