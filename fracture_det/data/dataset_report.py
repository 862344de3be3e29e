"""The readable report on a prepared data set: report.md, its numbers as report.json, and three figures."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from fracture_det.data.anchors import (
    FITTED_STRIDES,
    FPN_SIZES,
    FPN_STRIDES,
    PAPER_SIZES,
    PAPER_STRIDES,
    anchor_fit,
    best_ious,
    detectron2_yaml,
    fit_anchors,
)
from fracture_det.data.pairing import FileCounts
from fracture_det.data.records import Dataset, ImageRecord, Problem
from fracture_det.data.splits import SPLITS, count_split
from fracture_det.structures.boxes import box_area
from fracture_det.structures.letterbox import Letterbox
from fracture_det.structures.markdown_table import markdown_table
from fracture_det.structures.wording import counted
from fracture_det.visualization.dataset import draw_anchor_fit, draw_box_sizes, draw_image_size

LETTERBOX_PX = 800
_SIZE_EDGES_PX = (0, 256, 384, 512, 768, 1024, 1536, 2048, 3072, np.inf)
# name -> (sizes, stride of each size)
AnchorSets = dict[str, tuple[Sequence[float], Sequence[int]]]


def write_report(
    dataset: Dataset,
    assignment: Mapping[str, str],
    problems: Sequence[Problem],
    folder: str | Path,
    *,
    n_images: int,
    files: FileCounts | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write report.md, report.json, box_sizes.png, anchor_fit.png and image_size.png to `folder`.

    n_images: image files found. files: what became of every file. notes: further sentences about how the files were
    understood.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    boxes = letterboxed(dataset.records)
    in_train = [record for record in dataset if assignment.get(record.file_name) == "train"]
    train_boxes = letterboxed(in_train)
    sets = anchor_sets(train_boxes)
    numbers: dict[str, Any] = {
        "images_found": n_images,
        "files": None if files is None else {**asdict(files), "listed": files.listed},
        "letterbox_px": LETTERBOX_PX,
        "problems": _count_problems(problems),
        "splits": count_split(dataset, assignment),
        "box_side_px": _quantiles(box_sides(boxes)),
        "anchors": _fits(sets, boxes),
        "image_size": size_against_label(dataset.records),
    }
    text = json.dumps(numbers, indent=1, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    sizes = {name: anchor_sizes for name, (anchor_sizes, _) in sets.items()}
    ious = {name: best_ious(boxes, anchor_sizes, strides=strides) for name, (anchor_sizes, strides) in sets.items()}
    draw_box_sizes(box_sides(boxes), sizes, folder / "box_sizes.png", letterbox_px=LETTERBOX_PX)
    draw_anchor_fit(ious, sizes, folder / "anchor_fit.png")
    draw_image_size(numbers["image_size"]["bins"], numbers["image_size"]["auc"], folder / "image_size.png")
    sections = [
        _head(numbers, notes if files is None else [f"{files}.", *notes]),
        _problems_section(numbers["problems"]),
        _split_section(numbers["splits"]),
        *_types_section(numbers["splits"]),
        _boxes_section(numbers["box_side_px"], boxes),
        _anchor_section(numbers["anchors"], sets, len(train_boxes)),
        _size_section(numbers["image_size"]),
    ]
    (folder / "report.md").write_text("\n".join(sections), encoding="utf-8")


def letterboxed(records: Sequence[ImageRecord]) -> NDArray[np.float64]:
    """Return all boxes (M, 4) of the records in pixels of the letterboxed image."""
    letterbox = Letterbox(LETTERBOX_PX)
    parts = [letterbox.apply_boxes(record.boxes, record.size) for record in records if record.fractured]
    return np.concatenate(parts) if parts else np.zeros((0, 4))


def box_sides(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sides (M,) in px of the squares with the area of the boxes (M, 4)."""
    return np.sqrt(box_area(boxes))


def anchor_sets(train_boxes: NDArray[np.float64]) -> AnchorSets:
    """Return the anchors to compare: the paper's, Detectron2's FPN default and, given enough boxes, fitted ones."""
    sets: AnchorSets = {"paper": (PAPER_SIZES, PAPER_STRIDES), "FPN default": (FPN_SIZES, FPN_STRIDES)}
    with contextlib.suppress(ValueError):  # too few boxes: the report says so
        sets["fitted"] = (fit_anchors(train_boxes, len(FITTED_STRIDES), strides=FITTED_STRIDES), FITTED_STRIDES)
    return sets


def size_against_label(records: Sequence[ImageRecord]) -> dict[str, Any]:
    """Return, per range of the long side in px, how many images are fractured and healthy, and the AUC of the size.

    AUC (Mann-Whitney): how well the long side alone tells fractured from healthy; .5 is not at all. None when one of
    the two is absent.
    """
    long_sides = np.array([max(record.size) for record in records], dtype=np.float64)
    fractured = np.array([record.fractured for record in records], dtype=bool)
    bins = []
    for low, high in pairwise(_SIZE_EDGES_PX):
        inside = (long_sides >= low) & (long_sides < high)
        if inside.any():
            label = f"{low:g}-{high - 1:g}" if np.isfinite(high) else f"{low:g}+"
            bins.append({"long_side_px": label, "images": int(inside.sum()), "fractured": int(fractured[inside].sum())})
    both = fractured.any() and not fractured.all()
    return {"bins": bins, "auc": float(roc_auc_score(fractured, long_sides)) if both else None}


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    points = {"min": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "max": 1.0}
    return {name: round(float(np.quantile(values, q)), 1) for name, q in points.items()}


def _count_problems(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    counts = Counter((problem.kind, problem.action) for problem in problems)
    examples = {(problem.kind, problem.action): problem for problem in reversed(problems)}
    return [
        {"kind": kind, "action": action, "findings": n, "file": example.file, "detail": example.detail}
        for (kind, action), n in sorted(counts.items())
        for example in [examples[kind, action]]
    ]


def _fits(sets: AnchorSets, boxes: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return one row per anchor set and placing; without boxes the shares are null."""
    rows = []
    for name, (sizes, strides) in sets.items():
        for placing, grid in (("centred on the box", None), ("on the feature grid", strides)):
            fit = asdict(anchor_fit(boxes, sizes, strides=grid))
            rows.append(
                {
                    "anchors": name,
                    "placing": placing,
                    "strides": list(strides),
                    **{key: None if value != value else value for key, value in fit.items()},
                }
            )
    return rows


def _head(numbers: Mapping[str, Any], notes: Sequence[str]) -> str:
    used = sum(counts["images"] for counts in numbers["splits"].values())
    fractured = sum(counts["fractured"] for counts in numbers["splits"].values())
    boxes = sum(counts["boxes"] for counts in numbers["splits"].values())
    lines = [
        "# Data set report",
        "",
        f"{counted(numbers['images_found'], 'image')} found, {used:,} used: {fractured:,} fractured with "
        f"{counted(boxes, 'box', 'boxes')} and "
        f"{used - fractured:,} healthy. The rest is listed in [problems.csv](problems.csv).",
    ]
    return "\n".join([*lines, *(f"\n{note}" for note in notes), ""])


def _problems_section(problems: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [entry["kind"], entry["action"], f"{entry['findings']:,}", f"`{entry['file']}`: {entry['detail']}"]
        for entry in problems
    ]
    table = markdown_table(["kind", "action", "findings", "for example"], rows) if rows else "None."
    return f"## Problems by kind\n\n{table}\n"


def _split_section(splits: Mapping[str, Any]) -> str:
    columns = ("images", "fractured", "healthy", "boxes", "groups")
    rows = [[split, *(f"{splits[split][column]:,}" for column in columns)] for split in SPLITS]
    anatomies = sorted({anatomy for split in SPLITS for anatomy in splits[split]["anatomies"]})
    none = {"images": 0, "fractured": 0}
    anatomy_rows = [
        [anatomy]
        + [
            f"{entry['images']:,} ({entry['fractured']:,})"
            for split in SPLITS
            for entry in [splits[split]["anatomies"].get(anatomy, none)]
        ]
        for anatomy in anatomies
    ]
    return (
        f"## Splits\n\n{markdown_table(['split', *columns], rows)}\n\nImages (of them fractured) by body part; "
        f"no group lies in two splits.\n\n{markdown_table(['anatomy', *SPLITS], anatomy_rows)}\n"
    )


def _types_section(splits: Mapping[str, Any]) -> list[str]:
    """Return the section on types of fracture; none where no type is known."""
    kinds = list(dict.fromkeys(kind for split in SPLITS for kind in splits[split]["types"]))
    if not kinds:
        return []
    none = {"boxes": 0, "images": 0}
    rows = []
    for kind in kinds:
        counts = [splits[split]["types"].get(kind, none) for split in SPLITS]
        rows.append([kind, *(f"{count['boxes']:,} ({count['images']:,})" for count in counts)])
    of_known = [sum(count["boxes"] for count in splits[split]["types"].values()) for split in SPLITS]
    unknown = [splits[split]["boxes"] - known for split, known in zip(SPLITS, of_known, strict=True)]
    rows.append(["unknown", *(f"{count:,}" for count in unknown)])
    table = markdown_table(["type", *SPLITS], rows)
    return [f"## Types of fracture\n\nBoxes of each type (images of which it is said as a whole).\n\n{table}\n"]


def _boxes_section(quantiles: Mapping[str, float], boxes: NDArray[np.float64]) -> str:
    head = f"## Box sizes at {LETTERBOX_PX} px\n\n"
    if not quantiles:
        return head + "No boxes.\n"
    small = float((box_sides(boxes) < 128).mean())
    table = markdown_table(list(quantiles), [[f"{value:g}" for value in quantiles.values()]])
    return f"{head}![box sizes](box_sizes.png)\n\nSide in px; {small:.0%} of the boxes are under 128 px.\n\n{table}\n"


def _anchor_section(fits: Sequence[Mapping[str, Any]], sets: AnchorSets, n_train: int) -> str:
    keys = ("mean_best_iou", "above_70", "above_50", "under_30")
    rows = [
        [fit["anchors"], ", ".join(f"{size:g}" for size in fit["sizes"]), fit["placing"]]
        + ["-" if fit[key] is None else f"{fit[key]:.3f}" for key in keys]
        for fit in fits
    ]
    head = ["anchors", "sizes, px", "placing", "mean best IoU", ">= .7", ">= .5", "< .3"]
    if "fitted" in sets:
        yaml = detectron2_yaml(sets["fitted"][0])
        fitted = (
            f"Fitted to the {n_train:,} boxes of the training split, two sizes on each of p3 to p6 of a feature "
            f"pyramid. For a Detectron2 config:\n\n```yaml\n{yaml}```\n"
        )
    else:
        fitted = f"The training split has {counted(n_train, 'box', 'boxes')}: too few to fit anchors to.\n"
    return (
        "## Anchor fit\n\n![anchor fit](anchor_fit.png)\n\nAll boxes against anchors with ratios 1:2, 1:1 and 2:1. "
        "`centred on the box` compares shapes alone; `on the feature grid` puts each anchor on the nearest point of "
        f"its stride, as in training.\n\n{markdown_table(head, rows)}\n\n{fitted}"
    )


def _size_section(numbers: Mapping[str, Any]) -> str:
    auc = numbers["auc"]
    says = (
        "One of the two labels is absent."
        if auc is None
        else f"The long side alone tells fractured from healthy with an AUC of {auc:.2f} (.5: not at all). Where this, "
        "or a share in the table, is far off, a detector can score on image size instead of bone."
    )
    rows = [
        [
            entry["long_side_px"],
            f"{entry['images']:,}",
            f"{entry['fractured']:,}",
            f"{entry['fractured'] / entry['images']:.1%}",
        ]
        for entry in numbers["bins"]
    ]
    table = markdown_table(["long side, px", "images", "fractured", "share"], rows)
    return f"## Image size against label\n\n![image size](image_size.png)\n\n{says}\n\n{table}\n"
