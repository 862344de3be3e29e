"""Several readers: how they agree, and the queue of what an adjudicator has to settle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from fracture_det.evaluation.bootstrap import BootstrapResult
from fracture_det.evaluation.reader_agreement import BOTH, FIRST, NEITHER, SECOND, PairAgreement, reader_agreement

from .presentation import feedback_schema, prediction_schema
from .reading_schemas import AdjudicationSchema, AgreementSchema, DisputedSchema, PairSchema, ReaderSchema, ShareSchema
from .store import StoredPrediction
from .store.accounts import Account


def adjudication_schema(several: Sequence[StoredPrediction], viewer: Account) -> AdjudicationSchema:
    """Return what readers have said of the results `several`, each of which has two readings or more."""
    disputed = [stored for stored in several if stored.settled is None and stored.read.disagreements]
    open_ = [stored for stored in several if stored.settled is None and not stored.read.disagreements]
    unfinished = [stored for stored in open_ if any(map(stored.read.unfinished, stored.readings))]
    names = sorted({reading.author for stored in several for reading in stored.readings})
    return AdjudicationSchema(
        images=len(several),
        agreed=len(open_) - len(unfinished),
        settled=sum(stored.settled is not None for stored in several),
        unfinished=len(unfinished),
        readers=[_reader(name, several) for name in names],
        agreement=_agreement(several),
        queue=[_disputed(stored, viewer) for stored in reversed(disputed)],
    )


def _disputed(stored: StoredPrediction, viewer: Account) -> DisputedSchema:
    result = prediction_schema(stored, stored.operating_score, viewer=viewer, feedback_days=0)
    return DisputedSchema(
        id=stored.id,
        created_at=result.created_at,
        disagreements=list(stored.read.disagreements),
        readings=[feedback_schema(reading) for reading in stored.readings],
        marks=[[mark.box for mark in stored.read.marks(reading)] for reading in stored.readings],
        image=result.image,
        links=result.links,
    )


def _reader(name: str, several: Sequence[StoredPrediction]) -> ReaderSchema:
    own = [(stored.read, reading) for stored in several if (reading := stored.reading_of(name)) is not None]
    finished = [(read, reading) for read, reading in own if not read.unfinished(reading)]
    seconds = [reading.seconds for _, reading in finished if reading.seconds is not None]
    return ReaderSchema(
        reader=name,
        readings=len(own),
        unfinished=len(own) - len(finished),
        unreadable=sum(reading.unreadable for _, reading in finished),
        fractured=sum(bool(read.marks(reading)) for read, reading in finished),
        median_seconds=median(seconds) if seconds else None,
    )


def _agreement(several: Sequence[StoredPrediction]) -> AgreementSchema:
    marked = [
        {said.author: [mark.box for mark in read.marks(said)] for said in read.finished if not said.unreadable}
        for read in (stored.read for stored in several)
    ]
    found = reader_agreement(marked)
    return AgreementSchema(
        images=found.n_images,
        fleiss=_share(found.fleiss),
        boxes=_share(found.boxes),
        pairs=[_pair(pair, several) for pair in found.pairs],
    )


def _pair(pair: PairAgreement, several: Sequence[StoredPrediction]) -> PairSchema:
    both = [[said for said in stored.read.finished if said.author in pair.readers] for stored in several]
    return PairSchema(
        readers=pair.readers,
        images=sum(pair.counts),
        both_fractured=pair.counts[BOTH],
        only_first=pair.counts[FIRST],
        only_second=pair.counts[SECOND],
        neither=pair.counts[NEITHER],
        unreadable=sum(len(said) == 2 and any(one.unreadable for one in said) for said in both),
        kappa=_share(pair.kappa),
        boxes=_share(pair.boxes),
        n_boxes=pair.n_boxes,
    )


def _share(found: BootstrapResult) -> ShareSchema:
    """Return a figure; where every resample gives the same, as it does of few images, there is no interval to state."""
    low, high = (None, None) if found.low == found.high else (_defined(found.low), _defined(found.high))
    return ShareSchema(value=_defined(found.value), low=low, high=high)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
