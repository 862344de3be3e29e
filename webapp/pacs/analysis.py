"""From a received object to what is said of it: through the same prediction service as every upload."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fracture_det.inference.service import (
    REASONS,
    DamagedImage,
    ImageTooLarge,
    Prediction,
    PredictionService,
    UnreadableImage,
    UnsuitableImage,
    UnsupportedImage,
)

from ..context import thresholds_of
from ..presentation import finding_level, floor_score
from ..settings import Settings
from ..store import KeyTaken, ResultMetadata, Store
from ..store.audit import PACS
from ..store.pacs import QueuedObject
from .answers import IGNORED, NOT_ANALYSED, ImageResult, result_of
from .objects import inspect, is_image, text_of
from .outputs import MANUFACTURER

OTHER_BODY_PART = "other_body_part"


@dataclass(frozen=True)
class Analyser:
    """Analyses objects of the queue; the results are stored beside those of the page, where readers judge them."""

    service: PredictionService
    store: Store
    settings: Settings

    def analyse(self, known: QueuedObject) -> tuple[ImageResult, str | None]:
        """Return what is said of an object, and the identifier of its stored result where it was analysed.

        Raises DetectorFailed, ServiceBusy, ServiceClosed or StoreUnavailable: nothing is known, and it is tried again.
        """
        _, header = inspect(known.path)
        if self.store.pacs.is_own(known.sop_instance_uid) or text_of(header, "Manufacturer") == MANUFACTURER:
            return self._without(IGNORED, "own_output", "It is an output of this node."), None
        if not is_image(header):
            return self._without(IGNORED, "no_image", "It is not an image."), None
        try:
            with self.service.predicting(known.path) as prediction:
                # Also where the settings have switched off that pictures are looked at before.
                if prediction.dicom is not None and prediction.dicom.other_body_part is not None:
                    return self._without(NOT_ANALYSED, OTHER_BODY_PART, REASONS[OTHER_BODY_PART]), None
                return self._keep(prediction, known)
        except UnsuitableImage as error:
            return self._without(NOT_ANALYSED, error.suitability.reason or "", error.suitability.sentence), None
        except UnreadableImage as error:
            return self._without(NOT_ANALYSED, *_why(error)), None

    def _keep(self, prediction: Prediction, known: QueuedObject) -> tuple[ImageResult, str]:
        """Store a prediction as the page does, once for each object."""
        operating, possible = thresholds_of(self.settings, prediction.detector)
        highest = float(prediction.detections.scores[0]) if len(prediction.detections) else None
        finding = finding_level(highest, operating, possible)
        metadata = ResultMetadata(
            owner=PACS,
            finding=finding,
            input_sha256=known.sha256,
            operating_score=operating,
            possible_score=possible,
            calibrated=prediction.detector.calibrated,
            idempotency_key=known.id,
        )
        shown = replace(prediction, detections=prediction.detections.above(floor_score(possible)))
        try:
            stored = self.store.results.add(shown, metadata)
        except KeyTaken as taken:  # stored before the process was killed; the same pixels gave the same boxes
            stored = taken.stored
        return result_of(shown, finding, operating, possible), stored.id

    def _without(self, status: str, reason: str, sentence: str) -> ImageResult:
        info = self.service.info
        return ImageResult(status, reason, sentence, model=info.name, model_sha256=info.sha256 or "")


def _why(error: UnreadableImage) -> tuple[str, str]:
    """Return the reason and the sentence for an image that is not read."""
    if isinstance(error, UnsupportedImage):
        return "unsupported", f"It is {error.reason}."
    if isinstance(error, ImageTooLarge):
        return "too_large", f"It is too large ({error.reason})."
    return "damaged" if isinstance(error, DamagedImage) else "unreadable", f"It is damaged ({error.reason})."
