"""Everything that a report writes into a folder, drawn from the Report alone: the same report, the same bytes."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from fracture_det.evaluation.report import Estimate, Report, Stratum
from fracture_det.reporting.checklists import claim, tripod
from fracture_det.reporting.figures import draw_figures
from fracture_det.reporting.html import html
from fracture_det.reporting.markdown import markdown
from fracture_det.reporting.model_card import model_card

CELL_COLUMNS = ("", "_low", "_high", "_wilson_low", "_wilson_high", "_count", "_n", "_undefined", "_reason")


def publish(report: Report, folder: str | Path) -> None:
    """Write the report into a folder, or draw a loaded one again: `publish(Report.load(folder), folder)`.

    report.json, report.html, report.md, per_anatomy.csv, strata.csv, figures/ (PNG and SVG), MODEL_CARD.md,
    CLAIM_2024.md and TRIPOD_AI.md. The pictures of a `gallery/` in the folder are shown.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    draw_figures(report, folder)
    anatomies = [row for row in report.strata if row.column in ("anatomy", "all")]
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
    _write_csv(folder / "per_anatomy.csv", ("anatomy",), ((row.value,) for row in anatomies), anatomies)
    _write_csv(
        folder / "strata.csv", ("column", "value"), ((row.column, row.value) for row in report.strata), report.strata
    )


def _write_csv(path: Path, keys: tuple[str, ...], names: Iterable[tuple[str, ...]], rows: list[Stratum]) -> None:
    """Write a row per stratum: what it is called, its sizes, and of each figure all that the report has."""
    figures = list(dict.fromkeys(name for row in rows for name in row.figures))
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        header = [f"{name}{column}" for name in figures for column in CELL_COLUMNS]
        lines.writerow([*keys, "n_images", "n_fractured", "n_boxes", *header])
        for called, row in zip(names, rows, strict=True):
            cells = [value for name in figures for value in _cells(row.figures.get(name))]
            lines.writerow([*called, row.n_images, row.n_fractured, row.n_boxes, *cells])


def _cells(figure: Estimate | None) -> list[str | float | None]:
    if figure is None:
        return [None] * len(CELL_COLUMNS)
    return [
        figure.value, figure.low, figure.high, figure.wilson_low, figure.wilson_high, figure.count, figure.n,
        figure.undefined, figure.reason,
    ]  # fmt: skip
