"""The way of one upload through the service into the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from flask import current_app
from werkzeug.datastructures import FileStorage

from fracture_det.inference.service import (
    DetectorFailed,
    ImageTooLarge,
    PredictionService,
    ServiceBusy,
    ServiceClosed,
    UnreadableImage,
    UnsupportedImage,
)
from webapp.findings import floor_score
from webapp.refusals import Refusal
from webapp.settings import Settings
from webapp.store import Store, StoredPrediction

RETRY_AFTER_S = 3
NOT_ANALYSED = "This file was not analysed."


@dataclass(frozen=True)
class Rooms:
    """What the views of one app share."""

    settings: Settings
    service: PredictionService
    store: Store

    @property
    def operating_score(self) -> float:
        """The score (0..1) from which a box counts: the setting, else the detector's own."""
        return self.service.model.operating_score if self.settings.score is None else self.settings.score

    @property
    def possible_score(self) -> float:
        """The score (0..1) from which a box is worth a look: the setting, else the detector's own, else half the point.

        "The point" is the operating point, which a setting may have moved below the detector's own possible score.
        """
        if self.settings.possible_score is not None:
            return self.settings.possible_score
        own = self.service.model.possible_score
        return self.operating_score / 2 if own is None or own > self.operating_score else own


def rooms() -> Rooms:
    """Return the rooms of the current app."""
    found: Rooms = current_app.extensions["fracture"]
    return found


def take_in(upload: FileStorage) -> StoredPrediction:
    """Analyse one uploaded image and keep the result; its file name is never looked at.

    Raises Refusal.
    """
    house = rooms()
    data = upload.stream.read(house.settings.max_upload_bytes + 1)
    if len(data) > house.settings.max_upload_bytes:
        limit = house.settings.max_upload_mb
        raise Refusal(413, f"{NOT_ANALYSED} It is larger than {limit:g} MB; please export a smaller image.")
    if not data:
        raise Refusal(422, f"{NOT_ANALYSED} It is empty; please export the radiograph again.")
    try:
        prediction = house.service.predict(data)
    except (UnreadableImage, ServiceBusy, ServiceClosed, DetectorFailed) as error:
        raise _refusal_for(error, house.settings) from error
    floor = floor_score(house.possible_score)
    return house.store.add(
        replace(prediction, detections=prediction.detections.above(floor)),
        operating_score=house.operating_score,
        possible_score=house.possible_score,
    )


def find(identifier: str) -> StoredPrediction:
    """Return the stored result with this identifier.

    Raises Refusal.
    """
    house = rooms()
    stored = house.store.get(identifier)
    if stored is None:
        hours = house.settings.retention_hours
        raise Refusal(404, f"There is no such result. Results are deleted after {hours:g} hours.")
    return stored


# The narrower kinds first.
REFUSALS: tuple[tuple[type[Exception], int, Callable[[Settings], str]], ...] = (
    (UnsupportedImage, 415, lambda _: "It is not a JPEG or PNG image; please export the radiograph as one of these."),
    (
        ImageTooLarge,
        413,
        lambda settings: f"It has more than {settings.max_megapixels:g} megapixels; please export a smaller image.",
    ),
    (UnreadableImage, 422, lambda _: "It is damaged or incomplete; please export the radiograph again."),
    (ServiceBusy, 503, lambda _: "Too many radiographs are waiting; please try again in a few seconds."),
    (ServiceClosed, 503, lambda _: "The server is stopping; please try again in a minute."),
    (DetectorFailed, 500, lambda _: "The analysis failed on the server, which says nothing about a fracture."),
)


def _refusal_for(error: Exception, settings: Settings) -> Refusal:
    status, sentence = next((code, text(settings)) for kind, code, text in REFUSALS if isinstance(error, kind))
    return Refusal(status, f"{NOT_ANALYSED} {sentence}", retry_after_s=RETRY_AFTER_S if status == 503 else None)
