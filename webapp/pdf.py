"""The report as a PDF: finding, image with boxes, model, thresholds, time and notice on one page."""

from __future__ import annotations

import io
from pathlib import Path

from fpdf import FPDF
from fpdf.enums import XPos, YPos
from PIL import Image

from fracture_det.inference.service import overlay_png
from fracture_det.structures.wording import counted, percent

from .fracture_types import definition_of, leading
from .presentation import overlay_caption
from .schemas import FeedbackSchema, PredictionSchema
from .store import StoredPrediction

MARGIN_MM, MAX_IMAGE_HEIGHT_MM = 15, 130
BOX_COLUMNS = {"No.": 12, "Finding": 28, "Confidence": 28, "Box x0, y0, x1, y1 (px)": 70, "Reader": 30}


def report_pdf(result: PredictionSchema, image: Path, stored: StoredPrediction) -> bytes:
    """Return the report of a result on its `image` as a PDF; boxes below `result.score` are left out."""
    pdf = FPDF(format="A4")
    pdf.set_margins(MARGIN_MM, MARGIN_MM)
    pdf.set_auto_page_break(True, MARGIN_MM)
    pdf.set_title(f"Radiograph report {result.id[:8]}")
    pdf.set_creator("fracture_det")
    pdf.set_creation_date(result.created_at)
    pdf.add_page()
    write_line(pdf, "Radiograph report", size=18, bold=True)
    write_line(pdf, result.notice, size=10, bold=True)
    if result.suitability is not None and result.suitability.notice:
        write_line(pdf, result.suitability.notice, size=10, bold=True)
    write_line(pdf, headline(result), size=14, bold=True)
    write_line(pdf, result.finding.advice, size=10)
    _types(pdf, result)
    overlay = overlay_png(
        image, stored.detections, stored.class_names, minimum_score=result.score, caption=overlay_caption(stored)
    )
    _image(pdf, overlay)
    _boxes(pdf, result)
    for name, value in facts(result).items():
        write_line(pdf, f"{name}: {value}", size=8)
    return bytes(pdf.output())


def headline(result: PredictionSchema) -> str:
    """Return the finding with its confidence, where there is one."""
    confidence = result.finding.confidence
    return result.finding.title if confidence is None else f"{result.finding.title} ({percent(confidence)} probability)"


def facts(result: PredictionSchema) -> dict[str, str]:
    """Return the facts of a report beside its finding and boxes, by name."""
    facts_by_name = {
        "Result": result.id,
        "Analysed": f"{result.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "Model": result.model,
        **({} if result.model_version is None else {"Model version": result.model_version}),
        "Model SHA-256": result.model_sha256 or "unknown",
        "Scores": "calibrated probabilities" if result.calibrated else "raw scores of the model",
        "Thresholds": f"likely from {result.operating_score:.4g}, possible from {result.possible_score:.4g},"
        f" boxes shown from {result.score:.4g}",
        "Radiograph": radiograph_facts(result),
    }
    if result.settled is not None:
        facts_by_name |= _reading_facts("Settled", "Comment of the adjudicator", result.settled)
    for number, said in enumerate(filter(None, (result.feedback, *result.others)), start=1):
        rank = "" if number == 1 else f" {number}"
        facts_by_name |= _reading_facts(f"Reader{rank}", f"Comment{rank}", said)
    return facts_by_name


def verdicts_of(result: PredictionSchema) -> dict[int, str]:
    """Return what is said of boxes by number: what is settled, else one's own reading, else the first of others."""
    said = next(filter(None, (result.settled, result.feedback, *result.others)), None)
    return {
        box.number: ", ".join(filter(None, (box.verdict, "moved" if box.moved_to else None, box.type)))
        for box in (said.boxes if said is not None else ())
    }


def _reading_facts(name: str, of_comment: str, said: FeedbackSchema) -> dict[str, str]:
    time = f"{said.updated_at:%Y-%m-%d %H:%M} UTC"
    facts_by_name = {name: f"{said.author}, {time}: {_verdict(said)}"}
    return facts_by_name | ({of_comment: said.comment} if said.comment else {})


def _verdict(said: FeedbackSchema) -> str:
    if said.unreadable:
        return f"not readable ({said.reason})" if said.reason else "not readable"
    if said.no_fracture:
        return "no fracture"
    missed = counted(len(said.missed), "missed fracture")
    if any(said.missed_types):
        missed += f" ({', '.join(kind or 'type unknown' for kind in said.missed_types)})"
    moved = sum(box.moved_to is not None for box in said.boxes)
    return f"{missed}, {counted(moved, 'box', 'boxes')} moved" if moved else missed


def radiograph_facts(result: PredictionSchema) -> str:
    """Return the size of a radiograph in words, with its depth and the size of its pixels where they are known."""
    facts = [f"{result.image.width} x {result.image.height} px"]
    if result.image.bits > 8:
        facts.append(f"{result.image.bits} bits")
    if result.spacing_mm is not None:
        height, width = result.spacing_mm
        facts.append(f"{width:.3g} x {height:.3g} mm per pixel ({result.spacing_note})")
    return ", ".join(facts)


def write_line(pdf: FPDF, text: str, *, size: int, bold: bool = False) -> None:
    """Write one paragraph; size: of its letters, in points."""
    pdf.set_font("Helvetica", "B" if bold else "", size)
    # The built-in PDF fonts have Latin letters only; others become question marks (not on the HTML page).
    text = text.encode("latin-1", "replace").decode("latin-1")
    pdf.multi_cell(0, size * 0.5, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _image(pdf: FPDF, overlay: bytes) -> None:
    with Image.open(io.BytesIO(overlay)) as image:
        width, height = image.size
        scale = min(pdf.epw / width, MAX_IMAGE_HEIGHT_MM / height)
        pdf.ln(2)
        pdf.image(image, w=width * scale, h=height * scale, x=MARGIN_MM + (pdf.epw - width * scale) / 2)
    pdf.ln(3)


def _types(pdf: FPDF, result: PredictionSchema) -> None:
    if result.type is None:
        return
    write_line(pdf, f"{result.type.title}. {result.type.notice}", size=10)
    if not result.type.uncertain:
        for kind in leading(result.types or []):
            write_line(pdf, f"{kind.title}: {definition_of(kind.name)}", size=8)


def _boxes(pdf: FPDF, result: PredictionSchema) -> None:
    if not result.detections:
        write_line(pdf, f"No box at or above {result.score:.4g}.", size=10)
        return
    verdicts = verdicts_of(result)
    pdf.set_font("Helvetica", "", 9)
    with pdf.table(col_widths=tuple(BOX_COLUMNS.values()), line_height=5, width=sum(BOX_COLUMNS.values())) as table:
        table.row(tuple(BOX_COLUMNS))
        for box in result.detections:
            sides = ", ".join(f"{side:.0f}" for side in box.box_xyxy_px)
            row = (
                str(box.number),
                f"{box.label}, {box.level}",
                f"{box.score:.2f}",
                sides,
                verdicts.get(box.number, ""),
            )
            table.row(tuple(text.encode("latin-1", "replace").decode("latin-1") for text in row))
    pdf.ln(3)
