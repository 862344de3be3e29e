"""Every figure of an evaluation with plausible and with poor inputs, and what a test asks of a drawn one."""

import math
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D, Bbox

from fracture_det.visualization import charts, curves
from fracture_det.visualization.charts import draw_errors, draw_forest, draw_reliability, draw_robustness
from fracture_det.visualization.curves import Mark, draw_froc, draw_overview, draw_pr_curve, draw_roc
from fracture_det.visualization.dataset import draw_anchor_fit, draw_box_sizes, draw_image_size
from fracture_det.visualization.speed_chart import draw_benchmark
from fracture_det.visualization.types import draw_confusion, draw_risk_coverage

SVG = "{http://www.w3.org/2000/svg}"
RULES = ("paper", "youden", "sensitivity", "specificity", "fp target", "detector")
NO_BIN, NO_STEP = (None, None, None, None), (None, None, None)

FROC = ([0, 0.05, 0.1, 0.4, 0.9, 2.5, 5], [0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85])
ROC = ([0, 0, 0.1, 0.3, 1], [0, 0.4, 0.7, 0.9, 1])
ESTIMATES = [
    (1 / 8, 0.4, 0.3, 0.5),
    (1 / 4, 0.4, 0.3, 0.5),
    (1 / 2, 0.6, 0.5, 0.7),
    (1, 0.7, 0.6, 0.8),
    (2, 0.7, 0.6, 0.8),
    (4, 0.8, 0.7, 0.9),
    (8, 0.85, 0.75, 0.95),
]
FROC_MARKS = {rule: Mark(0.08 * 2**i, 0.3 + i / 10, f"Rule {i}") for i, rule in enumerate(RULES)}
ROC_MARKS = {rule: Mark(0.1 * i, 0.3 + i / 10, f"Rule {i}") for i, rule in enumerate(RULES)}
RULE_CURVES = {"IoU ≥ .5": FROC, "IoU ≥ .3": FROC, "centre in box": (FROC[0], [min(1, 1.1 * y) for y in FROC[1]])}
BINS = [(i / 10, (i + 1) / 10, 4**i, i / 10 + 0.04, i / 12, max(0, i / 12 - 0.1), i / 12 + 0.1) for i in range(10)]
ROWS = [
    ("all images", 0.642, 0.571, 0.708, 330, False),
    ("Body part", None, None, None, None, False),
    ("hand", 0.701, 0.61, 0.78, 140, False),
    ("hip", 0.38, 0.12, 0.66, 22, True),
    ("mixed", None, None, None, 3, True),
]
ERRORS = {
    "classification": (0, 0.0),
    "localisation": (34, 0.084),
    "both": (0, 0.0),
    "duplicate": (1, 0.011),
    "background": (391, 0.062),
    "missed": (41, 0.213),
    "false positive": (426, 0.121),
    "false negative": (75, 0.264),
}
KINDS = ("JPEG quality", "noise", "gamma", "inversion", "blur", "resize", "rotation", "crop")
STEPS = {kind: [(s, 0.6 - s * i / 60, 0.5 - s * i / 60, 0.7) for s in range(6)] for i, kind in enumerate(KINDS)}

SPEEDS = [
    ("Detectron2 DefaultPredictor", "detectron2", 0.61, 0.58, 0.63),
    ("OpenVINO INT8 (shipped)", "ours", 4.02, 3.9, 4.2),
    ("ONNX Runtime", "ours", 1.55, 1.5, 1.6),
    ("torchvision Faster R-CNN R50-FPN, OpenVINO FP32", "torchvision", 0.52, 0.5, 0.55),
]

TYPES = ("transverse", "oblique", "comminuted", "pathological")
CONFUSION = [[41, 5, 2, 0, 9], [7, 20, 3, 0, 1], [4, 0, 31, 0, 2], [0, 0, 0, 0, 1]]
# name -> function, arguments without the path, options
BOX_SIDES = np.geomspace(4, 900, 200)
BOX_IOUS = np.linspace(0.1, 0.9, 200)
ANCHORS = {
    "paper": (128, 256, 512),
    "FPN default": (32, 64, 128, 256, 512),
    "fitted": (29, 42, 54, 66, 74, 96, 113, 140),
}
_RANGES = ("0-255", "256-383", "384-511", "512-767", "768-1023", "1024-1535", "1536-2047", "2048-3071", "3072+")
SIZE_BINS = [
    {"long_side_px": text, "images": 11_000 * n, "fractured": 11_000 * n - 1} for n, text in enumerate(_RANGES, 1)
]
PLAUSIBLE = {
    "overview": (
        draw_overview,
        (FROC, ROC),
        {"froc_points": ESTIMATES, "froc_marks": FROC_MARKS, "roc_marks": ROC_MARKS, "auroc": ".785 (.721 to .841)"},
    ),
    "froc": (draw_froc, (RULE_CURVES,), {"points": ESTIMATES, "marks": FROC_MARKS}),
    "roc": (draw_roc, (ROC,), {"marks": ROC_MARKS, "auroc": ".785 (.721 to .841)"}),
    "pr": (draw_pr_curve, ([0, 0.5, 1], [1, 0.6, 0.2]), {"ap50": 0.612, "points": ROC_MARKS}),
    "reliability": (draw_reliability, ({"Images, raw scores": BINS, "Boxes, raw scores": BINS},), {}),
    "forest": (draw_forest, (ROWS,), {"title": "AP50 by subgroup", "xlabel": "AP50 with 95 % interval"}),
    "errors": (draw_errors, (ERRORS,), {"base_ap50": 0.642}),
    "robustness": (draw_robustness, ({"AP50": STEPS, "AUROC": STEPS},), {}),
    "benchmark": (draw_benchmark, (SPEEDS,), {}),
    "box sizes": (draw_box_sizes, (BOX_SIDES, ANCHORS), {"letterbox_px": 800}),
    "anchor fit": (draw_anchor_fit, (dict.fromkeys(ANCHORS, BOX_IOUS), ANCHORS), {}),
    "image size": (draw_image_size, (SIZE_BINS, 0.731), {}),
    "types": (draw_confusion, (CONFUSION, TYPES, (*TYPES, "no answer")), {}),
    "types by coverage": (
        draw_risk_coverage,
        (([0.02, 0.1, 0.4, 0.8], [1.0, 0.9, 0.8, 0.7]),),
        {
            "points": [(0.9, (0.02, 1.0, 1.0, 1.0)), (0.7, (0.4, 0.8, 0.7, 0.9)), (0.0, (0.8, 0.7, 0.6, 0.8))],
            "frozen": ("accuracy 0.8 on val.json: .561", (0.45, 0.78, 0.7, 0.85)),
            "chance": 0.3,
        },
    ),
}
_NO_CURVE = ([], [])
_NAN_CURVE = ([0.0, 1.0], [math.nan, math.nan])
_NO_MARKS = {"froc_marks": {}, "roc_marks": {}, "auroc": None}
_LONG = "a name that someone wrote into a table of metadata without an end & <b> $x$ % {"
POOR = {
    "box sizes of nothing": (draw_box_sizes, (np.zeros(0), {}), {"letterbox_px": 800}),
    "anchor fit of nothing": (draw_anchor_fit, ({"paper": np.zeros(0)}, ANCHORS), {}),
    "image size of nothing": (draw_image_size, ([], None), {}),
    "benchmark of nothing": (draw_benchmark, ([],), {}),
    "benchmark of one": (draw_benchmark, ([(_LONG, "x", 0.001, 0.001, 0.001)],), {}),
    "overview of nothing": (draw_overview, (_NO_CURVE, _NO_CURVE), {"froc_points": [], **_NO_MARKS}),
    "overview without healthy images": (
        draw_overview,
        (FROC, _NAN_CURVE),
        {"froc_points": ESTIMATES, **_NO_MARKS, "froc_marks": FROC_MARKS},
    ),
    "froc of no rule": (draw_froc, ({},), {"points": [], "marks": {}}),
    "froc without truth": (draw_froc, ({"IoU ≥ .5": _NAN_CURVE},), {"points": [], "marks": {}}),
    "froc without a box": (
        draw_froc,
        ({"IoU ≥ .5": ([0], [0])},),
        {"points": [(x, 0.0, None, None) for x, *_ in ESTIMATES], "marks": {"paper": Mark(0.0, 0.0, "Paper")}},
    ),
    "froc of a perfect detector": (
        draw_froc,
        ({"IoU ≥ .5": ([0, 0], [0, 1]), "IoU ≥ .3": ([0, 0], [0, 1])},),
        {
            "points": [(x, 1.0, 1.0, 1.0) for x, *_ in ESTIMATES],
            "marks": {"paper": Mark(0.0, 1.0, "Paper"), "youden": Mark(0.0, 1.0, "Youden")},
        },
    ),
    "froc of a talkative detector": (
        draw_froc,
        ({"IoU ≥ .5": ([0, 20, 99], [0, 0.5, 0.9])},),
        {"points": [], "marks": {"paper": Mark(99.0, 0.9, "Paper")}},
    ),
    "roc of one class": (draw_roc, (_NO_CURVE,), {"marks": {}, "auroc": None}),
    "roc of a perfect detector": (
        draw_roc,
        (([0, 0, 1], [0, 1, 1]),),
        {"marks": {"paper": Mark(0.0, 1.0, "Paper")}, "auroc": "1.000"},
    ),
    "pr without truth": (draw_pr_curve, _NO_CURVE, {"ap50": None, "points": {}}),
    "reliability of nothing": (draw_reliability, ({},), {}),
    "reliability of empty bins": (draw_reliability, ({"Boxes": [(0.0, 1.0, 0, *NO_BIN)]},), {}),
    "reliability of three": (draw_reliability, ({_LONG: BINS[:3], "a": BINS, "b": BINS[:1]},), {}),
    "forest of nothing": (draw_forest, ([],), {"title": "Strata", "xlabel": "AP50"}),
    "forest of long names": (
        draw_forest,
        ([(_LONG, 0.0, 0.0, 1.0, 123456, False), ("\n a\tb", 1.0, None, None, 0, True)],),
        {"title": _LONG * 3, "xlabel": "AP50"},
    ),
    "errors of nothing": (draw_errors, ({},), {"base_ap50": None}),
    "errors without truth": (draw_errors, (dict.fromkeys(ERRORS, (7, None)),), {"base_ap50": None}),
    "errors of a perfect detector": (draw_errors, (dict.fromkeys(ERRORS, (0, 0.0)),), {"base_ap50": 1.0}),
    "errors that help": (draw_errors, ({"missed": (1, -0.01), _LONG: (2, 0.2)},), {"base_ap50": 0.5}),
    "robustness of nothing": (draw_robustness, ({},), {}),
    "types of nothing": (draw_confusion, ([], [], ["no answer"]), {}),
    "types of many images": (draw_confusion, ([[123456]], [_LONG], [_LONG]), {}),
    "types by coverage of nothing": (
        draw_risk_coverage,
        (([], []),),
        {"points": [(0.5, (0.0, None, None, None))], "frozen": None, "chance": None},
    ),
    "types by coverage of one": (
        draw_risk_coverage,
        (([1.0], [0.0]),),
        {"points": [(x, (1.0, 0.0, 0.0, 0.0)) for x in (0.0, 0.3, 0.5)], "frozen": None, "chance": 1.0},
    ),
    "robustness not defined": (draw_robustness, ({"AP50": {"blur": [(1, None, None, None)]}},), {}),
    "robustness with gaps": (
        draw_robustness,
        (
            {
                "AP50": {
                    "none": [(0, 0.6, None, None)],
                    "blur": [(1, 0.5, 0.4, 0.6), (2, *NO_STEP), (3, 0.4, 0.3, 0.5)],
                },
                "AUROC": {kind: [(5, 0.7, 0.6, 0.8)] for kind in KINDS[:5]},
            },
        ),
        {},
    ),
}
EVERY = PLAUSIBLE | POOR


def draw(name, path, **changed):
    """Draw a figure of the tables above, with some options changed."""
    function, arguments, options = EVERY[name]
    function(*arguments, path, **options | changed)
    return path


@dataclass(frozen=True)
class Drawn:
    """A figure as SVG."""

    svg: str
    root: ElementTree.Element

    @property
    def texts(self):
        """What is written, in order."""
        return [element.text for element in self.root.iter(f"{SVG}text")]

    @property
    def size_pt(self):
        """Width and height."""
        return [float(self.root.attrib[side].removesuffix("pt")) for side in ("width", "height")]

    @cached_property
    def words(self):
        """(text, (left, top, right, bottom) in points) of all that is written, with y downwards."""
        return [(element.text, _extent(element)) for element in self.root.iter(f"{SVG}text")]


def _extent(element):
    style = dict(part.split(": ") for part in element.attrib["style"].split("; "))
    size, weight = float(style["font-size"].removesuffix("px")), int(style.get("font-weight", 400))
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    width, height, below = text_to_path.get_text_width_height_descent(element.text, font, ismath=False)
    start = -width * {"start": 0, "middle": 0.5, "end": 1}[style.get("text-anchor", "start")]
    # Either a place, perhaps turned around itself, or the two as one transform.
    turned = re.search(r"rotate\(([-\d.]+)", element.get("transform", ""))
    moved = re.search(r"translate\(([-\d.]+) ([-\d.]+)", element.get("transform", ""))
    x, y = (moved[1], moved[2]) if moved else (element.attrib["x"], element.attrib["y"])
    place = Affine2D().rotate_deg(float(turned[1]) if turned else 0).translate(float(x), float(y))
    return place.transform_bbox(Bbox([(start, below - height), (start + width, below)])).extents


@cache
def drawn(name):
    """Return a figure of the tables above as SVG, drawn once for all tests."""
    svg = as_bytes(name, ".svg").decode()
    return Drawn(svg, ElementTree.fromstring(svg))


@cache
def as_bytes(name, suffix):
    """Return the file of a figure of the tables above, drawn once for all tests."""
    with TemporaryDirectory() as folder:
        return draw(name, Path(folder) / f"figure{suffix}").read_bytes()


def figure_of(draw_it, *arguments, **options):
    """Return a figure as matplotlib has it when it is saved."""
    seen = []
    save = {"save": lambda figure, path: seen.append(figure)}
    with patch.multiple(curves, **save), patch.multiple(charts, **save):
        draw_it(*arguments, "unused.svg", **options)
    return seen[0]
