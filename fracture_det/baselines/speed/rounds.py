"""The whole benchmark: rounds of all contenders, one process at a time, and what is written of them."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fracture_det.baselines.speed.candidates import Candidate, Candidates
from fracture_det.baselines.speed.measurement import Measurement, MeasurementError, MissingPackage, measure_apart
from fracture_det.baselines.speed.profiling import Profile
from fracture_det.inference.processors import available_cpus
from fracture_det.inference.timing import machine_name
from fracture_det.structures.markdown import markdown_table
from fracture_det.visualization.speed_chart import draw_benchmark

VERSIONS = ("torch", "torchvision", "detectron2", "openvino", "onnxruntime", "ultralytics", "effdet", "transformers")
N_RESAMPLES = 1000
Measure = Callable[[str, Sequence[Path]], Measurement]


@dataclass(frozen=True)
class Result:
    """What was measured.

    rows: one for each contender that answered. skipped: name -> what is missing for another; failed: name -> how
    another failed. about: machine, versions, numbers. notes: what a reader must know besides.
    """

    rows: Sequence[Mapping[str, Any]]
    skipped: Mapping[str, str]
    failed: Mapping[str, str]
    about: Mapping[str, str]
    notes: Sequence[str] = ()
    profile: Profile | None = None


def benchmark(
    lineup: Candidates,
    images: Sequence[Path],
    *,
    repeats: int,
    progress: bool = True,
    measure: Measure = measure_apart,
) -> Result:
    """Measure every contender on `images` in `repeats` rounds, each time in a process of its own.

    Rounds go through all contenders, so that a machine that warms up or is disturbed does so to all. The first one is
    what the others are compared with, round by round. One that fails is left out from then on, and named.
    """
    contenders = lineup.contenders
    rounds: dict[str, list[Measurement]] = {contender.name: [] for contender in contenders}
    if len(rounds) < len(contenders):
        raise ValueError(f"--contender: names must differ, got {[contender.name for contender in contenders]}")
    skipped, failed = dict(lineup.skipped), dict(lineup.failed)
    with tqdm(total=repeats * len(contenders), unit="process", disable=not progress) as bar:
        for _ in range(repeats):
            for contender in contenders:
                bar.set_description(contender.name)
                if contender.name not in {*skipped, *failed}:
                    try:
                        rounds[contender.name].append(measure(contender.uri, images))
                    except MissingPackage as error:
                        skipped[contender.name] = str(error)
                    except MeasurementError as error:
                        failed[contender.name] = str(error)
                bar.update()
    done = [contender for contender in contenders if contender.name not in {*skipped, *failed}]
    rows = [_row(contender, rounds[contender.name], rounds[done[0].name]) for contender in done]
    return Result(rows, skipped, failed, _about(len(images), repeats))


def _row(contender: Candidate, measured: Sequence[Measurement], reference: Sequence[Measurement]) -> dict[str, Any]:
    latencies = np.concatenate([each.latency_ms for each in measured])
    speeds = [each.images_per_s for each in measured]
    ratios = [each.images_per_s / other.images_per_s for each, other in zip(measured, reference, strict=True)]
    draws = np.random.default_rng(0).choice(latencies, (N_RESAMPLES, len(latencies)))
    low, high = np.percentile(np.median(draws, axis=1), (2.5, 97.5))
    return {
        "name": contender.name,
        "kind": contender.kind,
        "shipped": contender.uri == "shipped",
        "accuracy": contender.accuracy,
        "median_ms": float(np.median(latencies)),
        "median_ms_interval": [float(low), float(high)],
        "p95_ms": float(np.percentile(latencies, 95)),
        "images_per_s": float(np.median(speeds)),
        "images_per_s_range": [min(speeds), max(speeds)],
        "times_reference": float(np.median(ratios)),
        "times_reference_range": [min(ratios), max(ratios)],
        "cold_start_s": float(np.median([each.cold_start_s for each in measured])),
        "peak_mb": max(each.peak_mb for each in measured),
        "size_mb": contender.size_mb,
    }


def _about(n_images: int, repeats: int) -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {
        "machine": machine_name(),
        "processors used": str(available_cpus()),
        "Python": platform.python_version(),
        **found,
        "radiographs": str(n_images),
        "rounds": str(repeats),
    }


def goals(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return, in words, how many times faster the shipped detector is than Detectron2 and each rival's best form.

    Where it is not among `rows`, the fastest of ours stands for it.
    """
    own = [row for row in rows if row["kind"] == "ours"]
    mine = max(own, key=lambda row: (row.get("shipped", False), row["images_per_s"]), default=None)
    if mine is None:
        return []
    said = [
        f"{mine['name']}: {mine['images_per_s'] / row['images_per_s']:.1f} times {row['name']}"
        for row in rows
        if row["kind"] == "detectron2"
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows if row["kind"] not in ("ours", "detectron2")):
        best = max((row for row in rows if row["kind"] == kind), key=lambda row: row["images_per_s"])
        said.append(f"{mine['name']}: {mine['images_per_s'] / best['images_per_s']:.1f} times {best['name']}")
    return said


def save(result: Result, out: Path) -> None:
    """Write benchmark.json, benchmark.md and benchmark.png into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    content = {"about": dict(result.about), "rows": list(result.rows), "skipped": dict(result.skipped)}
    content |= {"failed": dict(result.failed), "notes": list(result.notes)}
    content["goals"] = goals(result.rows)
    if result.profile is not None:
        content["profile"] = result.profile.as_dict()
    (out / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (out / "benchmark.md").write_text(as_markdown(result), encoding="utf-8")
    if result.rows:
        bars = [(row["name"], row["kind"], row["images_per_s"], *row["images_per_s_range"]) for row in result.rows]
        draw_benchmark(bars, out / "benchmark.png")


MARKDOWN_COLUMNS = (
    "",
    "median ms (95 % interval)",
    "95th percentile",
    "images per s (rounds)",
    "times the first",
    "cold start s",
    "peak MB",
    "files MB",
    "accuracy",
)


def as_markdown(result: Result) -> str:
    """Return tables for a document."""
    rows = []
    for row in result.rows:
        low, high = row["median_ms_interval"]
        (slowest, fastest), (least, most) = row["images_per_s_range"], row["times_reference_range"]
        rows.append(
            [
                row["name"],
                f"{row['median_ms']:.0f} ({low:.0f} to {high:.0f})",
                f"{row['p95_ms']:.0f}",
                f"{row['images_per_s']:.2f} ({slowest:.2f} to {fastest:.2f})",
                f"{row['times_reference']:.2f} ({least:.2f} to {most:.2f})",
                f"{row['cold_start_s']:.1f}",
                f"{row['peak_mb']:.0f}",
                "" if row["size_mb"] is None else f"{row['size_mb']:.1f}",
                row["accuracy"],
            ]
        )
    lines = [markdown_table(MARKDOWN_COLUMNS, rows)]
    lines += ["", *(f"- {goal}" for goal in goals(result.rows)), ""]
    lines += [f"- {note}" for note in result.notes]
    lines += [f"- skipped: {name}: {why}" for name, why in result.skipped.items()]
    lines += [f"- failed: {name}: {why}" for name, why in result.failed.items()]
    if result.profile is not None:
        lines += ["", *result.profile.as_markdown()]
    lines += ["", "; ".join(f"{name} {value}" for name, value in result.about.items()) + ".", ""]
    return "\n".join(lines)
