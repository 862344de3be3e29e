"""Draw docs/architecture.svg: the packages, in the order of the import contract, and the three journeys through them.

    .venv/bin/python docs/draw_architecture.py

reads the layers and where torch is forbidden from pyproject.toml, so that drawing and contract cannot differ.
"""

from __future__ import annotations

import ast
import re
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "architecture.svg"
WIDTH, MARGIN = 1000, 20
ROW_PX, LANE_PX, STEP_PX, GAP_PX = 34, 128, 123, 16
INK, FAINT, PLAIN, TORCH, THING = "#1b2733", "#5b6b7a", "#e8f0f8", "#fdebd3", "#ffffff"

# What each package of fracture_det is for.
PACKAGES = {
    "cli": "the commands: fracture-det prepare, train, eval, compare, predict, export, benchmark, serve",
    "baselines": "YOLOv3, EfficientDet-D3, DETR, torchvision, DefaultPredictor; the speed benchmark",
    "export": "one graph from letterbox to boxes, INT8, pruning; each export is verified against its source",
    "reporting": "a Report as HTML, Markdown, figures, galleries, model card and checklists",
    "evaluation": "matching, COCO, FROC, image level, bootstrap, error types, robustness; no model",
    "training": "registration, mapper, augmentation, samplers, trainer, hooks",
    "registry": "signed versions of detectors: which is served, which is shadow, and why",
    "inference": "Detector, registry, runtimes, ensemble with test-time augmentation, service, batch, Ray",
    "monitoring": "does a served detector still see, and say, what its reference did: features, counts, drift",
    "suitability": "is it a radiograph of a limb: rules, features, a fitted head; numpy and OpenCV",
    "calibration": "score maps, their fitting, operating points",
    "modeling": "configuration, backbones, checkpoints",
    "data": "records, LabelImg, YOLO, COCO, checks, duplicates, groups, splits, anchors, predictions",
    "visualization": "overlays, curves, charts",
    "structures": "Detections and IoU, Radiograph, Letterbox, the eight orientations",
    "resources": "where configurations, weights and templates lie, installed or in a checkout",
}

# Of each journey its steps: a thing (file, page) has no module; a step names the module that does it.
JOURNEYS = {
    "CV engineer: from LabelImg XML to a detector": [
        ("radiographs and LabelImg XML", None),
        ("read, check, group, split", "fracture_det/data/prepare.py"),
        ("train.json, val.json, test.json (COCO)", None),
        ("train, keep the best", "fracture_det/training/trainer.py"),
        ("model_best.pth, config.yaml", None),
        ("trace, quantize, verify", "fracture_det/export/exporter.py"),
        ("model.xml for OpenVINO", None),
    ],
    "Evaluator: from data and a detector to a report": [
        ("test.json, val.json and a detector", None),
        ("predict every image", "fracture_det/inference/batch.py"),
        ("predictions.jsonl", None),
        ("fit on val, then freeze", "fracture_det/calibration/fitting.py"),
        ("calibration.json", None),
        ("match, count, bootstrap", "fracture_det/evaluation/evaluator.py"),
        ("report.html, report.json", "fracture_det/reporting/writer.py"),
    ],
    "Clinician: from a dropped X-ray to a finding": [
        ("JPEG or PNG, dropped on the page", None),
        ("check the upload", "webapp/uploads.py"),
        ("queue, micro-batches", "fracture_det/inference/service.py"),
        ("ensemble with test-time augmentation", "fracture_det/inference/ensemble.py"),
        ("level of the finding", "webapp/presentation.py"),
        ("keep result and picture", "webapp/store/results.py"),
        ("page with boxes and scores", "webapp/pages.py"),
    ],
}


def layers(toml: str) -> list[str]:
    """Return the packages of the layers contract in the text of pyproject.toml, top first."""
    return _list_after(toml, "layers")


def packages_without_torch(toml: str) -> set[str]:
    """Return the packages that a contract forbids to import torch, but for the files that it names."""
    contract = next(
        part for part in toml.split("[[tool.importlinter.contracts]]") if 'forbidden_modules = ["torch"' in part
    )
    return {name.removeprefix("fracture_det.") for name in _list_after(contract, "source_modules")}


def _list_after(toml: str, key: str) -> list[str]:
    match = re.search(rf"^{key} = (\[.*?^\])", toml, re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"pyproject.toml: no list {key!r}")
    return list(ast.literal_eval(match[1]))


def drawing(toml: str) -> str:
    """Return the SVG for the contracts in the text of pyproject.toml."""
    packages, free = layers(toml), packages_without_torch(toml)
    y, parts = (
        MARGIN + 18,
        [_text(MARGIN, MARGIN + 14, "A package imports only from packages below it", size=17, bold=True)],
    )
    y += 14
    top = [("webapp/", "the page and its API; knows only inference, registry and structures", False)]
    below = [(_shown(name), PACKAGES[name], name not in free) for name in packages]
    for name, words, has_torch in top + below:
        parts += [_box(MARGIN, y, WIDTH - 2 * MARGIN, ROW_PX - 4, TORCH if has_torch else PLAIN)]
        parts += [_text(MARGIN + 12, y + 20, name, bold=True), _text(MARGIN + 235, y + 20, words)]
        y += ROW_PX
    y += 8
    parts += [_box(MARGIN, y, 14, 14, TORCH), _text(MARGIN + 22, y + 12, "may import torch and Detectron2", fill=FAINT)]
    parts += [_box(300, y, 14, 14, PLAIN)]
    parts += [_text(322, y + 12, "may not (in inference only the files detectron2 and torchscript do)", fill=FAINT)]
    y += 54
    for title, steps in JOURNEYS.items():
        parts += [_text(MARGIN, y, title, size=17, bold=True), *_lane(y + 14, steps)]
        y += LANE_PX
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img"'
    style = 'font-family="Helvetica, Arial, sans-serif" font-size="14"'
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>'
    )
    title = "<title>The packages of fracture_det and three journeys through them</title>"
    ground = f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>'
    return "\n".join([f"{head} {style}>", title, arrow, ground, *parts, "</svg>", ""])


def _lane(y: int, steps: list[tuple[str, str | None]]) -> list[str]:
    parts = []
    for index, (words, module) in enumerate(steps):
        x = MARGIN + index * (STEP_PX + GAP_PX)
        parts.append(_box(x, y, STEP_PX, 74, PLAIN if module else THING, dashed=module is None))
        lines = _wrapped(words)
        first = y + (22 if module else 42 - 8 * len(lines) + 4)
        parts += [
            _text(x + STEP_PX // 2, first + 16 * row, line, size=13, middle=True) for row, line in enumerate(lines)
        ]
        if module:
            place = module.removeprefix("fracture_det/")
            size = 10 if len(place) < 22 else 9
            parts.append(_text(x + STEP_PX // 2, y + 66, place, size=size, fill=FAINT, middle=True))
        if index:
            parts.append(f'<path d="M{x - GAP_PX + 1} {y + 37}H{x - 2}" stroke="{INK}" marker-end="url(#arrow)"/>')
    return parts


def _wrapped(words: str, width: int = 17) -> list[str]:
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _shown(name: str) -> str:
    """Return a layer as the folder or the file that it is."""
    return f"fracture_det/{name}/" if (ROOT / "fracture_det" / name).is_dir() else f"fracture_det/{name}.py"


def _box(x: int, y: int, width: int, height: int, fill: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{fill}" stroke="{FAINT}"{dash}/>'


def _text(
    x: int, y: int, words: str, *, size: int = 14, fill: str = INK, bold: bool = False, middle: bool = False
) -> str:
    extra = (' font-weight="bold"' if bold else "") + (' text-anchor="middle"' if middle else "")
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}"{extra}>{escape(words)}</text>'


def main() -> int:
    """Write the drawing."""
    TARGET.write_text(drawing((ROOT / "pyproject.toml").read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
