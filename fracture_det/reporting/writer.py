"""Write everything that a reader gets from a Report into a folder; the same report gives the same bytes."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fracture_det.data.coco import read_coco
from fracture_det.evaluation.report import ALL, ANATOMY, Estimate, Report, Stratum
from fracture_det.reporting import gallery
from fracture_det.reporting.checklists import claim, tripod
from fracture_det.reporting.figures import draw_figures
from fracture_det.reporting.html import html
from fracture_det.reporting.markdown import markdown
from fracture_det.reporting.model_card import model_card

CELL_COLUMNS = ("", "_low", "_high", "_wilson_low", "_wilson_high", "_count", "_n", "_undefined", "_reason")


def write_report(report: Report, folder: str | Path) -> None:
    """Write a report into a folder, or a loaded one again: `write_report(Report.load(folder), folder)`.

    report.json, report.html, report.md, per_anatomy.csv, strata.csv, figures/ (PNG and SVG), MODEL_CARD.md,
    CLAIM_2024.md and TRIPOD_AI.md. The pages include the pictures of a `gallery/` in the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    draw_figures(report, folder)
    anatomies = [row for row in report.strata if row.column in (ANATOMY, ALL)]
    texts = {
        "report.json": report.to_json(),
        "report.html": html(report, folder),
        "report.md": markdown(report, folder),
        "MODEL_CARD.md": model_card(report),
        "CLAIM_2024.md": claim(report),
        "TRIPOD_AI.md": tripod(report),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    _write_csv(folder / "per_anatomy.csv", (ANATOMY,), ((row.value,) for row in anatomies), anatomies)
    _write_csv(
        folder / "strata.csv", ("column", "value"), ((row.column, row.value) for row in report.strata), report.strata
    )


def write_report_with_gallery(report: Report, folder: Path, *, data: Path, images_dir: Path | None) -> Report:
    """Draw the gallery of a report from its radiographs, write the report, and return it.

    data: the truth as COCO JSON. images_dir: what its file names start from; without it there is no gallery.
    A radiograph that can no longer be read costs the gallery and no figure; the returned report then has a note of it.
    """
    try:
        if images_dir is not None:
            gallery.draw_gallery(report.errors.gallery, read_coco(data), images_dir, folder)
    except ValueError as error:
        shutil.rmtree(folder / gallery.FOLDER, ignore_errors=True)  # an earlier run's would show other boxes
        reason = str(error).replace(f"{images_dir}/", "")  # a published report must not name a folder of this machine
        report = replace(report, notes=[*report.notes, f"There are no galleries: {reason}."])
    write_report(report, folder)
    return report


def _write_csv(path: Path, keys: tuple[str, ...], names: Iterable[tuple[str, ...]], rows: list[Stratum]) -> None:
    """Write a row per subgroup: its names, its sizes, and every field of each figure."""
    figures = list(dict.fromkeys(name for row in rows for name in row.figures))
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        header = [f"{name}{column}" for name in figures for column in CELL_COLUMNS]
        lines.writerow([*keys, "n_images", "n_fractured", "n_boxes", *header])
        for its_names, row in zip(names, rows, strict=True):
            cells = [value for name in figures for value in _cells(row.figures.get(name))]
            lines.writerow([*its_names, row.n_images, row.n_fractured, row.n_boxes, *cells])


def _cells(figure: Estimate | None) -> list[str | float | None]:
    if figure is None:
        return [None] * len(CELL_COLUMNS)
    return [
        figure.value, figure.low, figure.high, figure.wilson_low, figure.wilson_high, figure.count, figure.n,
        figure.undefined, figure.reason,
    ]  # fmt: skip
