"""Opening a version as a detector, once every byte of it is as it was signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.score_maps import CalibrationError
from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.calibrated import CalibratedDetector
from fracture_det.inference.registry import open_detector
from fracture_det.registry.errors import RegistryError
from fracture_det.registry.registry import Registry
from fracture_det.registry.versions import VERSION_NAME, Version
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels

SCHEME = "registry"


class VersionedDetector:
    """The detector of a version. info: its own, with the name of the version and its model card."""

    def __init__(self, detector: Detector, version: Version) -> None:
        self._detector = detector
        about = {**detector.info.about, "version": version.name}
        self.info = replace(detector.info, version=version.name, card=version.card, about=about)

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB."""
        return self._detector.predict(images)


def parse_target(target: str) -> tuple[Registry, str | None]:
    """Return the registry and the version that FOLDER@VERSION names, None for the one that is served.

    Without a folder it is the one of FRACTURE_MODELS.
    """
    folder, _, name = target.rpartition("@")
    if VERSION_NAME.fullmatch(name):
        return Registry.at(folder), name
    return Registry.at(target), None


def uri_in(target: str) -> str:
    """Return the URI of the detector in the version that FOLDER@VERSION names, unverified. Raises RegistryError."""
    registry, name = parse_target(target)
    return registry.read(name or registry.served_name()).uri


def open_registered(target: str, **options: Any) -> Detector:
    """Open the version FOLDER@VERSION, or without a name the one that is served, with raw scores.

    Its calibration is not applied: as for every detector, the caller says which; see `open_version`.
    Raises DetectorError where it is not as it was signed, or is another detector than it says.
    """
    try:
        registry, name = parse_target(target)
        version = registry.verify(name or registry.served_name())
    except RegistryError as error:
        raise DetectorError(f"detector {SCHEME}:{target}: {error}") from error
    return _opened(version, **options)


def open_version(registry: Registry, name: str, **options: Any) -> Detector:
    """Verify a version and open it, with its calibration if it has one. Raises RegistryError and DetectorError."""
    version = registry.verify(name)
    raw = _opened(version, **options)
    if version.calibration is None:
        return raw
    try:
        return CalibratedDetector(raw, Calibration.load(version.calibration))
    except CalibrationError as error:
        raise DetectorError(f"version {name}: its calibration does not fit it: {error}") from error


def _opened(version: Version, **options: Any) -> Detector:
    detector = open_detector(version.uri, **options)
    said = version.manifest.detector.sha256
    if detector.info.sha256 != said:
        raise DetectorError(
            f"version {version.name}: its detector has the SHA-256 {detector.info.sha256}, it says {said}"
        )
    return VersionedDetector(detector, version)


def identity_of(uri: str, calibration: Path | None) -> tuple[str, str]:
    """Return name and SHA-256 of a detector, after opening it with its calibration, where there is one.

    Raises DetectorError where it cannot be opened, the calibration is of another, or it has no hash.
    """
    info = open_detector(uri, calibration=calibration).info
    if info.sha256 is None:
        raise DetectorError(f"detector {uri!r}: it has no files whose hash could be told")
    return info.name, info.sha256
