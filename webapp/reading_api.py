"""The part of the API about readings: one's own, those of others, what is settled, and how readers agree."""

from __future__ import annotations

from apiflask import APIBlueprint

from fracture_det.structures.readings import Reading

from .adjudication import adjudication_schema
from .api import errors, require_json_object
from .auth import current_account
from .context import app_context
from .errors import RequestError
from .fracture_types import listed_types
from .presentation import feedback_schema, visible_readings
from .reading_schemas import AdjudicationSchema, ReadingsSchema
from .schemas import FeedbackIn, FeedbackSchema
from .store import StoredPrediction
from .uploads import find_result

# Of a box that a reader draws or moves: less cannot be written as whole pixels.
MIN_SIDE_PX = 2

blueprint = APIBlueprint("readings", __name__, url_prefix="/api/v1", tag="API")
blueprint.before_request(require_json_object)

DELETED = "This result was deleted in the meantime."


@blueprint.put("/predictions/<identifier>/feedback")
@blueprint.input(FeedbackIn, location="json", arg_name="feedback")
@blueprint.output(FeedbackSchema, description="the stored reading")
@blueprint.doc(responses=errors(403, 404, 409, 415, 422))
def give_feedback(identifier: str, feedback: FeedbackIn) -> FeedbackSchema:
    """Replace your reading of a result: a verdict per box, missed fractures, no fracture, or not readable."""
    stored, name = find_result(identifier), current_account().name
    said = checked_reading(feedback, stored, former=stored.reading_of(name))
    updated = app_context().store.results.save_reading(stored.id, said, author=name)
    kept = None if updated is None else updated.reading_of(name)
    if kept is None:
        raise RequestError(404, DELETED, reason="not_found")
    return feedback_schema(kept)


@blueprint.get("/predictions/<identifier>/readings")
@blueprint.output(ReadingsSchema, description="the readings that you may see")
@blueprint.doc(responses=errors(404))
def readings(identifier: str) -> ReadingsSchema:
    """Return the readings of a result: those of others only after your own, unless you adjudicate."""
    stored = find_result(identifier)
    seen = visible_readings(stored, current_account())
    # What was settled says as much as what another reader said.
    withheld = bool(seen.hidden) or seen.settled != stored.settled
    return ReadingsSchema(
        own=None if seen.own is None else feedback_schema(seen.own),
        others=[feedback_schema(reading) for reading in seen.others],
        hidden=seen.hidden,
        settled=None if seen.settled is None else feedback_schema(seen.settled),
        disagreements=[] if withheld else list(stored.read.disagreements),
        problem="" if withheld else stored.read.problem,
    )


@blueprint.put("/predictions/<identifier>/settlement")
@blueprint.input(FeedbackIn, location="json", arg_name="settlement")
@blueprint.output(FeedbackSchema, description="what is settled now")
@blueprint.doc(responses=errors(403, 404, 409, 415, 422))
def settle(identifier: str, settlement: FeedbackIn) -> FeedbackSchema:
    """Settle a result, as an adjudicator: this is the truth, whatever its readers say; replaces what was settled."""
    require_adjudicator()
    stored = find_result(identifier)
    said = checked_reading(settlement, stored, former=stored.settled)
    if lack := stored.read.unfinished(said):
        raise RequestError(422, f"Not settled: {lack}.", reason="feedback")
    updated = app_context().store.results.settle(stored.id, said, by=current_account().name)
    if updated is None or updated.settled is None:
        raise RequestError(404, DELETED, reason="not_found")
    return feedback_schema(updated.settled)


@blueprint.get("/readings")
@blueprint.output(AdjudicationSchema, description="what readers have said, and what is to be settled")
@blueprint.doc(responses=errors(403))
def adjudication() -> AdjudicationSchema:
    """Return how readers agree, and the queue of what they disagree on; for adjudicators."""
    require_adjudicator()
    return adjudication_schema(app_context().store.results.read_by_several(), current_account())


def require_adjudicator() -> None:
    """Raise RequestError with 403 unless the current account may settle."""
    if not current_account().can_settle:
        raise RequestError(403, "Only adjudicators and administrators may see this.", reason="role")


def checked_reading(given: FeedbackIn, stored: StoredPrediction, *, former: Reading | None) -> Reading:
    """Return a reading for the store. Raises RequestError for an unknown box or type, or a box outside the image.

    former: what it replaces, whose types may be stated again though they have left the list.
    """
    for box in given.boxes:
        if box.number > len(stored.detections):
            message = f"There is no box {box.number}; this result has {len(stored.detections)}."
            raise RequestError(422, message, reason="feedback")
    moved = {box.number: box.moved_to for box in given.boxes if box.moved_to is not None}
    for name, drawn in (("A missed fracture", given.missed), ("A moved box", moved.values())):
        for x0, y0, x1, y1 in drawn:
            if not (0 <= x0 < x1 <= stored.width and 0 <= y0 < y1 <= stored.height):
                message = f"{name} must lie inside the {stored.width} x {stored.height} px of the radiograph."
                raise RequestError(422, message, reason="feedback")
            if min(x1 - x0, y1 - y0) < MIN_SIDE_PX:
                message = f"{name} must have sides of at least {MIN_SIDE_PX} px."
                raise RequestError(422, message, reason="feedback")
    _check_types(given, stored, former)
    return Reading(
        verdicts={box.number: box.verdict for box in given.boxes},
        missed=tuple(given.missed),
        no_fracture=given.no_fracture,
        comment=given.comment,
        types={box.number: box.type for box in given.boxes if box.type is not None},
        missed_types=tuple(given.missed_types),
        moved=moved,
        unreadable=given.unreadable,
        reason=given.reason,
        seconds=given.seconds,
    )


def _check_types(given: FeedbackIn, stored: StoredPrediction, former: Reading | None) -> None:
    """Raise RequestError for a type that is neither in the list nor in what was stored while the list had it."""
    said = stored.readings if former is None else (former, *stored.readings)
    before = {name for reading in said for name in (*reading.types.values(), *reading.missed_types)}
    known = [kind.name for kind in listed_types()]
    fields = {f"boxes.{index}.type": box.type for index, box in enumerate(given.boxes)}
    fields |= {f"missed_types.{index}": name for index, name in enumerate(given.missed_types)}
    for field, name in fields.items():
        if name is not None and name not in (*known, *stored.type_names, *before):
            message = f"{field}: there is no type {name!r}; expected one of {', '.join(known)}."
            raise RequestError(422, message, reason="feedback")
