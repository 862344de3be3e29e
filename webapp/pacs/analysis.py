"""From a received object to what is said of it: through the same prediction service as every upload."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fracture_det.inference.service import PredictionService, UnreadableImage, UnsuitableImage

from ..context import thresholds_of
from ..presentation import finding_level, floor_score
from ..settings import Settings
from ..store import KeyTaken, ResultMetadata, Store
from ..store.audit import PACS
from ..store.pacs import QueuedObject
from .answers import IGNORED, NOT_ANALYSED, ImageResult, result_of
from .objects import inspect, text_of, unsuited
from .pixels import upload_of


@dataclass(frozen=True)
class Analyser:
    """Analyses objects of the queue; the results are stored beside those of the page, where readers judge them."""

    service: PredictionService
    store: Store
    settings: Settings
    exclude_body_parts: tuple[str, ...]

    def analyse(self, known: QueuedObject) -> tuple[ImageResult, str | None]:
        """Return what is said of an object, and the identifier of its stored result where it was analysed.

        Raises DetectorFailed, ServiceBusy, ServiceClosed or StoreUnavailable: nothing is known, and it is tried again.
        """
        _, header = inspect(known.path)
        if self.store.pacs.is_own(known.sop_instance_uid) or text_of(header, "Manufacturer") == "fracture_det":
            return ImageResult(IGNORED, reason="own_output", sentence="It is an output of this node."), None
        why = unsuited(header, self.exclude_body_parts)
        if why is not None:
            status = NOT_ANALYSED if why.is_image else IGNORED
            return self._without(status, why.reason, why.sentence), None
        try:
            data = upload_of(known.path)
            prediction = self.service.predict(data)
        except UnsuitableImage as error:
            return self._without(NOT_ANALYSED, error.suitability.reason or "", error.suitability.sentence), None
        except UnreadableImage:
            # Not its reason, which may quote the file.
            return self._without(NOT_ANALYSED, "unreadable", "Its pixels cannot be read."), None
        operating, possible = thresholds_of(self.settings, self.service.info)
        highest = float(prediction.detections.scores[0]) if len(prediction.detections) else None
        finding = finding_level(highest, operating, possible)
        metadata = ResultMetadata(
            owner=PACS,
            finding=finding,
            input_sha256=known.sha256,
            operating_score=operating,
            possible_score=possible,
            calibrated=self.service.info.calibrated,
            idempotency_key=known.id,
        )
        shown = replace(prediction, detections=prediction.detections.above(floor_score(possible)))
        try:
            stored = self.store.results.add(shown, metadata)
        except KeyTaken as taken:  # stored before the process was killed; the same pixels gave the same boxes
            stored = taken.stored
        return result_of(prediction, finding, operating, possible), stored.id

    def _without(self, status: str, reason: str, sentence: str) -> ImageResult:
        info = self.service.info
        return ImageResult(status, reason, sentence, model=info.name, model_sha256=info.sha256 or "")
