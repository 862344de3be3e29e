"""Reports made by hand, for the pages that are drawn from them; the figures are plausible, not measured."""

from __future__ import annotations

import math
from dataclasses import replace

from PIL import Image

from fracture_det.evaluation.coco_eval import STATS
from fracture_det.evaluation.report import (
    Errors,
    ErrorType,
    Estimate,
    Froc,
    GalleryItem,
    HealthyRow,
    OperatingPoint,
    PointCounts,
    PredictiveValues,
    Reliability,
    ReliabilityBin,
    Report,
    RobustnessRow,
    Stratum,
)
from fracture_det.reporting.gallery import crop_path, sheet_path
from fracture_det.structures.timing import Stage, Timing

HOSTILE = '<script>alert("x")</script> & |wrist| `a`_b_*c*.png'
FROC_TARGETS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
ANATOMIES = {"elbow": (61, 17, 19), "hand": (144, 43, 46), "leg": (131, 35, 39), "shoulder": (8, 0, 0)}


def share(count: int, n: int, reason: str = "nothing to count", *, undefined: int = 0) -> Estimate:
    """Return a proportion with intervals that look like a bootstrap's and Wilson's."""
    if not n:
        return Estimate(None, n=0, reason=reason)
    value, z = count / n, 1.96
    half = z * math.sqrt(max(value * (1 - value), 0.0) / n)
    middle = (value + z * z / (2 * n)) / (1 + z * z / n)
    spread = z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Estimate(
        round(value, 10),
        round(max(0.0, value - 1.1 * half), 10),
        round(min(1.0, value + 1.1 * half), 10),
        round(middle - spread, 10),
        round(middle + spread, 10),
        count,
        n,
        undefined,
    )


def figure(value: float, half: float = 0.06, n: int | None = None, *, undefined: int = 0) -> Estimate:
    """Return a figure that is no proportion."""
    return Estimate(
        round(value, 10), round(max(0.0, value - half), 10), round(value + half, 10), n=n, undefined=undefined
    )


def gone(reason: str, n: int | None = 0) -> Estimate:
    """Return a figure that is not defined."""
    return Estimate(None, n=n, reason=reason)


def point(
    rule: str,
    score: float,
    origin: str,
    boxes: tuple[int, int, int],
    images: tuple[int, int, int, int],
    groups: tuple[int, int, int, int],
) -> OperatingPoint:
    """Return an operating point. boxes: TP, FP, FN; images, groups: TP, FN, FP, TN."""
    tp, fp, fn = boxes
    n = sum(images)
    rate = Estimate(fp / n, 0.8 * fp / n, 1.2 * fp / n, count=fp, n=n)
    lesion = {
        "precision": share(tp, tp + fp, f"no box reaches the score {score:g}"),
        "recall": share(tp, tp + fn, "no annotated fracture"),
        "f1": figure(2 * tp / (2 * tp + fp + fn), n=tp + fp + fn) if tp + fp + fn else gone("no box at all"),
        "fp_per_image": rate,
    }
    predictive = [
        PredictiveValues(p, figure(min(0.94, 0.2 + p), 0.05), figure(0.99 - p / 3, 0.01)) for p in (0.05, 0.2, 0.5)
    ]
    counts = PointCounts(tp, fp, fn, *images, *groups)
    chosen_on = origin.removeprefix("chosen on ") if origin.startswith("chosen on ") else None
    return OperatingPoint(
        rule, score, origin, lesion, of_units("image", images), of_units("group", groups), predictive, counts, chosen_on
    )


def of_units(level: str, cells: tuple[int, int, int, int]) -> dict[str, Estimate]:
    """Return the figures of images or groups from TP, FN, FP, TN."""
    tp, fn, fp, tn = cells
    return {
        "sensitivity": share(tp, tp + fn, f"no fractured {level}"),
        "specificity": share(tn, fp + tn, f"no healthy {level}"),
        "accuracy": share(tp + tn, sum(cells)),
        "ppv": share(tp, tp + fp, f"no {level} is predicted fractured"),
        "npv": share(tn, fn + tn, f"every {level} is predicted fractured"),
        "f1": figure(2 * tp / (2 * tp + fp + fn), n=tp + fn + fp) if tp + fn + fp else gone(f"no fractured {level}"),
    }


def realistic() -> Report:
    """Return a report that has something in every section: undefined values, small cells, failures, all of it."""
    origin = "chosen on val.json"
    points = [
        point("youden", 0.4312, origin, (61, 74, 43), (75, 20, 49, 200), (58, 15, 40, 150)),
        point("sensitivity", 0.0811, origin, (88, 402, 16), (91, 4, 171, 78), (70, 3, 140, 50)),
        point("specificity", 0.803, origin, (30, 12, 74), (41, 54, 11, 238), (33, 40, 9, 181)),
        point("fp target", 0.1523, origin, (79, 331, 25), (88, 7, 130, 119), (69, 4, 101, 89)),
        point("paper", 0.5, "fixed by the paper", (55, 60, 49), (70, 25, 41, 208), (54, 19, 33, 157)),
    ]
    return Report(
        about={
            "detector": "Faster R-CNN R50-FPN, half width",
            "data": "test.json",
            "data SHA-256": "9f2c" * 16,
            "split": "split.json",
            "split SHA-256": "07ab" * 16,
            "weights SHA-256": "c0de" * 16,
            "config": "faster_rcnn_R_50_FPN.yaml",
            "calibration": "calibration.json",
            "fracture_det": "0.3.0",
            "commit": "5038bf316f51005ba9583db4ea34c8daa4084fbb",
            "python": "3.11.9",
            "numpy": "2.4.6",
            "pycocotools": "2.0.11",
        },
        settings={"match_rule": "iou50", "level": 0.95, "n_bootstrap": 2000, "seed": 0},
        counts={
            "images_asked": 347,
            "images_predicted": 344,
            "images_failed": 3,
            "images_failed_fractured": 1,
            "images_fractured": 95,
            "images_healthy": 249,
            "groups": 263,
            "groups_fractured": 73,
            "boxes_truth": 104,
            "boxes_predicted": 2914,
        },
        coco={name: _coco(name, index) for index, name in enumerate(STATS)},
        froc={rule: _froc(lift) for rule, lift in (("iou50", 0.0), ("iou30", 0.08), ("centre", 0.12))},
        image={"AUROC": figure(0.8683, 0.041, 95), "AUPRC": figure(0.7512, 0.07, 95)},
        group={"AUROC": figure(0.8571, 0.05, 73), "AUPRC": figure(0.7402, 0.08, 73)},
        operating_points=points,
        not_reached={"detector": "the detector states no score of its own"},
        calibration=[
            _reliability("image", "raw", 0.11),
            _reliability("box", "raw", 0.19),
            _reliability("image", "platt", 0.03),
            _reliability("box", "platt", 0.02),
        ],
        strata=_strata(),
        errors=_errors(),
        curves=_curves(),
        failures={HOSTILE: "image file is truncated <b>here</b>", "leg/0007.jpg": "broken PNG file | no pixels"},
        notes=[
            "3 of 347 images could not be predicted, 1 of them fractured. They are excluded from every figure and "
            "are not counted as healthy.",
            "AP small is not defined: no small fracture.",
            "The metadata column 'film <i>no.</i>' is not a subgroup: it has 344 different values, more than 12.",
        ],
        robustness=_robustness(),
        timing=Timing(
            machine="Intel Xeon, 2 cores, no GPU",
            images=50,
            batch_size=1,
            images_per_second=1.8412,
            peak_memory_mb=1843.2,
            stages={
                "read": Stage(11.2, 30.9),
                "preprocess": Stage(6.43, 8.01),
                "model": Stage(501.7, 640.22),
                "postprocess": Stage(2.1, 4.4),
                "draw": Stage(7.9, 12.6),
            },
        ),
    )


def without_intervals(one: OperatingPoint) -> OperatingPoint:
    """Return an operating point as it is without a bootstrap."""
    levels = {
        level: {name: replace(cell, low=None, high=None) for name, cell in getattr(one, level).items()}
        for level in ("lesion", "image", "group")
    }
    return replace(one, **levels)


def _coco(name: str, index: int) -> Estimate:
    if name.endswith("small"):
        return gone("no small fracture", n=None)
    return figure(0.12 + 0.037 * index, 0.05, None if " " in name else 104, undefined=12 if "large" in name else 0)


def _froc(lift: float) -> Froc:
    found = [share(round(min(0.98, 0.28 + lift + 0.095 * step) * 104), 104) for step in range(7)]
    mean = sum(one.value or 0.0 for one in found) / 7
    return Froc(list(FROC_TARGETS), found, figure(mean, 0.05, 104))


def _reliability(of: str, scores: str, ece: float) -> Reliability:
    n = 344 if of == "image" else 2914
    figures = {"ECE": figure(ece, 0.02, n), "ECE by chance": figure(0.021, 0.004, n)}
    if of == "image":
        figures |= {"Brier": figure(0.131, 0.02, n), "Brier of the base rate": figure(0.2, 0.02, n)}
    else:
        figures["recall"] = share(97, 104)
    empty = "no image has a score in this bin" if of == "image" else "no box has a score in this bin"
    bins = []
    for index in range(10):
        low, high, size = round(index / 10, 1), round((index + 1) / 10, 1), (0 if index == 8 else 46 - 4 * index)
        rate = share(round(size * (index + 0.5) / 10 * (1 - ece)), size, empty)
        bins.append(ReliabilityBin(low, high, size, None if not size else low + 0.05, rate))
    return Reliability(of, scores, figures, bins)


def _strata() -> list[Stratum]:
    rows = [_stratum("all", "all", 344, 95, 104)]
    rows += [_stratum("anatomy", anatomy, *sizes) for anatomy, sizes in ANATOMIES.items()]
    for name, boxes in (("small", 0), ("medium", 37), ("large", 67)):
        cells = _stratum("box size", f"{name} fractures", 344, 95, boxes).figures
        kept = {key: cells[key] for key in ("AP50", "precision", "recall")}
        rows.append(Stratum("box size", f"{name} fractures", 344, 95, boxes, kept))
    rows += [_stratum("image size", "513 to 1024 px", 210, 60, 66), _stratum("image size", "over 2048 px", 134, 35, 38)]
    return [*rows, _stratum("view", "frontal", 190, 55, 60), _stratum("view", "<b>oblique</b>", 154, 40, 44)]


def _stratum(column: str, value: str, n: int, fractured: int, boxes: int) -> Stratum:
    healthy, few = n - fractured, min(fractured, n - fractured)
    figures = {
        "AP50": figure(0.41 + boxes / 1000, 0.11, boxes) if boxes else gone("no annotated fracture"),
        "precision": share(round(0.55 * boxes), boxes + round(boxes / 4), "no box reaches the score 0.4312"),
        "recall": share(round(0.58 * boxes), boxes, "no annotated fracture"),
        "sensitivity": share(round(0.79 * fractured), fractured, "no fractured image", undefined=4 if n < 70 else 0),
        "specificity": share(round(0.81 * healthy), healthy, "no healthy image"),
        "AUROC": figure(0.86, 0.07, few) if few else gone("no fractured image"),
    }
    return Stratum(column, value, n, fractured, boxes, figures)


def _errors() -> Errors:
    types = {
        "classification": ErrorType(0, 0.0),
        "localisation": ErrorType(31, 0.0712),
        "both": ErrorType(0, 0.0),
        "duplicate": ErrorType(4, 0.0031),
        "background": ErrorType(39, 0.1214),
        "missed": ErrorType(22, 0.1803),
        "false positive": ErrorType(74, 0.1611),
        "false negative": ErrorType(43, 0.2504),
    }
    healthy = [
        HealthyRow(
            anatomy,
            n - sick,
            round((n - sick) / 6),
            share(round((n - sick) / 5), n - sick),
            figure(0.17, 0.05, n - sick),
        )
        for anatomy, (n, sick, _) in ANATOMIES.items()
    ]
    healthy.append(HealthyRow("all", 249, 43, share(49, 249), figure(43 / 249, 0.04, 249)))
    return Errors(0.4127, types, healthy, _gallery())


def _gallery() -> list[GalleryItem]:
    items = []
    for kind in ("false positive", "miss", "hit"):
        for rank in range(1, 6):
            name = HOSTILE if rank == 2 else f"{kind.replace(' ', '_')}/IMG000{rank}.jpg"
            score = None if kind == "miss" else round(0.97 - 0.031 * rank, 6)
            anatomy = None if rank == 3 else "hand"
            items.append(GalleryItem(kind, rank, name, [10.5, 20.0, 60.25, 90.0], score, anatomy))
    return items


def _curves() -> dict[str, dict[str, list[float]]]:
    fp = [round(8.4 * (step / 60) ** 3, 6) for step in range(61)]
    curves = {
        f"froc {rule}": {
            "fp_per_image": fp,
            "sensitivity": [round(min(0.97, (0.9 + lift) * (1 - math.exp(-1.1 * math.sqrt(x) - lift))), 6) for x in fp],
        }
        for rule, lift in (("iou50", 0.0), ("iou30", 0.04), ("centre", 0.06))
    }
    fpr = [round(step / 60, 6) for step in range(61)]
    curves["roc"] = {"fpr": fpr, "tpr": [round(x**0.16, 6) for x in fpr]}
    recall = [round(step / 100, 2) for step in range(101)]
    curves["pr"] = {"recall": recall, "precision": [round(max(0.0, 0.95 - x**2), 6) for x in recall]}
    curves["image_pr"] = {"recall": recall, "precision": [round(max(0.276, 1 - 0.6 * x), 6) for x in recall]}
    return curves


def _robustness() -> list[RobustnessRow]:
    def row(kind: str, strength: int, setting: str) -> RobustnessRow:
        drop = 0.03 * strength
        return RobustnessRow(
            kind,
            strength,
            setting,
            {"AP50": figure(0.4127 - drop, 0.07, 104), "AUROC": figure(0.8683 - drop, 0.04, 95)},
        )

    rows = [row("none", 0, "untouched")]
    kinds = {
        "jpeg": "quality {}",
        "noise": "sigma {} of 255",
        "gamma": "{0} or 1/{0}",
        "inversion": "{} % of images",
        "blur": "sigma {} px at 800 px",
        "resize": "at most {} px",
        "rotation": "{} degrees either way",
        "crop": "{} % of each side",
    }
    return rows + [row(kind, n, setting.format(7 * n)) for kind, setting in kinds.items() for n in range(1, 6)]


# --- degenerate studies ----------------------------------------------------------------------------------------------


def bare() -> Report:
    """Return the report of one healthy image without a box: nearly nothing is defined, nothing else was run."""
    no_fracture, no_truth = "no fractured image", "no annotated fracture"
    one = point("paper", 0.5, "fixed by the paper", (0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 1))
    one = replace(
        without_intervals(one),
        predictive=[PredictiveValues(0.2, gone("sensitivity is not defined"), gone("sensitivity is not defined"))],
    )
    froc = Froc(list(FROC_TARGETS), [gone(no_truth) for _ in FROC_TARGETS], gone(no_truth))
    return Report(
        about={},
        settings={"match_rule": "iou50", "level": 0.95, "n_bootstrap": 0, "seed": 0},
        counts={
            "images_asked": 1,
            "images_predicted": 1,
            "images_failed": 0,
            "images_failed_fractured": 0,
            "images_fractured": 0,
            "images_healthy": 1,
            "groups": 1,
            "groups_fractured": 0,
            "boxes_truth": 0,
            "boxes_predicted": 0,
        },
        coco={name: gone(no_truth) for name in STATS},
        froc=dict.fromkeys(("iou50", "iou30", "centre"), froc),
        image={"AUROC": gone(no_fracture), "AUPRC": gone(no_fracture)},
        group={"AUROC": gone(no_fracture), "AUPRC": gone(no_fracture)},
        operating_points=[one],
        not_reached={},
        calibration=[],
        strata=[_stratum("all", "all", 1, 0, 0)],
        errors=Errors(None, {"background": ErrorType(0, None)}, [], []),
        curves={},
    )


def draw_crops(report: Report, folder) -> None:
    """Lay grey pictures where the gallery's crops and sheets would lie."""
    (folder / "gallery").mkdir(parents=True, exist_ok=True)
    for item in report.errors.gallery:
        Image.new("RGB", (360, 300), (40 + 12 * item.rank,) * 3).save(folder / crop_path(item))
        Image.new("RGB", (900, 400), (90, 90, 90)).save(folder / sheet_path(item.kind))
