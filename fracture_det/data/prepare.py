"""From a folder of radiographs and annotations to COCO splits, with a report of what was found."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fracture_det.data.checks import AnnotationRules
from fracture_det.data.coco import write_coco
from fracture_det.data.dataset_report import write_report
from fracture_det.data.duplicates import identical_files, near_duplicates
from fracture_det.data.formats import CheckedDataset, build_dataset
from fracture_det.data.grouping import group_files, roboflow_source
from fracture_det.data.image_info import ImageInfo, read_image_infos
from fracture_det.data.metadata import Metadata, read_metadata
from fracture_det.data.pairing import open_annotations
from fracture_det.data.records import EXCLUDED, Dataset, ImageRecord, Problem
from fracture_det.data.splits import (
    DEFAULT_FRACTIONS,
    FORMAT,
    LEFT_OUT,
    SPLITS,
    assign,
    check_leaks,
    count_split,
    drop_leaks,
    read_split,
    take,
)
from fracture_det.structures.image_files import list_image_names
from fracture_det.structures.processors import available_cpus

DEFAULT_NEIGHBOURS = 10
# Wraps a stream, given its length and a title: a progress bar.
Progress = Callable[[Iterable[ImageInfo], int, str], Iterable[ImageInfo]]


@dataclass(frozen=True)
class PrepareOptions:
    """The options of prepare_dataset.py, named as on its command line.

    images, annotations: where to read. rules: classes and repairs. fractions: of train, val and test; None means
    the default, restricted to the splits that `split_from` does not name. neighbours: consecutive numbers per group.
    """

    images: Path
    annotations: Path
    out: Path
    format: str = "voc"
    rules: AnnotationRules = field(default_factory=AnnotationRules)
    yolo_names: tuple[str, ...] | None = None
    metadata: Path | None = None
    anatomy_columns: tuple[str, ...] = ()
    group_column: str | None = None
    neighbours: int = DEFAULT_NEIGHBOURS
    fractions: tuple[float, float, float] | None = None
    split_from: Path | None = None
    drop_leaks: bool = False
    missing_xml_is_healthy: bool = False
    strict: bool = False
    seed: int = 0
    workers: int = field(default_factory=lambda: min(available_cpus(), 8))

    def __post_init__(self) -> None:
        if self.neighbours < 0:
            raise ValueError(f"neighbours: expected 0 or more, got {self.neighbours}")
        if self.group_column and not self.metadata:
            raise ValueError("group column: needs a metadata table")
        if self.anatomy_columns and not self.metadata:
            raise ValueError("anatomy columns: need a metadata table")


@dataclass(frozen=True)
class PreparedDataset:
    """The result: records with anatomy and group, their split, all problems, and how many image files were found."""

    dataset: Dataset
    assignment: Mapping[str, str]
    problems: tuple[Problem, ...]
    n_images: int

    @property
    def excluded(self) -> tuple[Problem, ...]:
        """The problems that cost an image or an annotation."""
        return tuple(problem for problem in self.problems if problem.action == EXCLUDED)


def prepare(options: PrepareOptions, *, progress: Progress | None = None) -> PreparedDataset:
    """Read, check, group and split a data set, and write everything to `options.out`.

    Writes problems.csv first, so that it is there when the split fails; then, unless `strict` and something is
    excluded, train.json, val.json, test.json, split.json and report.md with its figures. Raises AnnotationError,
    MetadataError or LeakError, all ValueErrors, when there is nothing to write.
    """
    show: Progress = progress or (lambda stream, _total, _title: stream)
    names = list_image_names(options.images)
    if not names:
        raise ValueError(f"{options.images}: no image file (.jpg, .png, .bmp, .tif) in this folder or below")
    source = open_annotations(options.annotations, options.format, names, yolo_names=options.yolo_names)
    metadata = _metadata(options, names)
    infos = read_image_infos(
        options.images, names, workers=options.workers, progress=lambda s, n: show(s, n, "reading images")
    )
    checked = build_dataset(
        infos,
        source,
        options.rules,
        missing_is_healthy=options.missing_xml_is_healthy,
        progress=lambda s, n: show(s, n, "reading annotations"),
    )
    copies, copy_problems = _copies(infos, checked.dataset)
    problems = [*checked.problems, *metadata.problems, *copy_problems]
    dataset = _with_groups(checked.dataset, metadata, copies, options)
    options.out.mkdir(parents=True, exist_ok=True)
    write_problems(problems, options.out / "problems.csv")
    assignment, split_problems = _split(dataset, infos, options)
    problems = sorted([*problems, *split_problems], key=lambda p: (p.kind, p.file, p.detail))
    write_problems(problems, options.out / "problems.csv")
    prepared = PreparedDataset(dataset, assignment, tuple(problems), len(names))
    if not (options.strict and prepared.excluded):
        _write(prepared, checked, infos, options)
    return prepared


def write_problems(problems: Sequence[Problem], path: str | Path) -> None:
    """Write one row per problem: file, kind, detail, action."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "kind", "detail", "action"])
        writer.writerows((p.file, p.kind, p.detail, p.action) for p in problems)


def read_problems(path: str | Path) -> list[Problem]:
    """Read what `write_problems` wrote."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [Problem(**row) for row in csv.DictReader(file)]


def _metadata(options: PrepareOptions, names: Sequence[str]) -> Metadata:
    if options.metadata is None:
        return Metadata()
    return read_metadata(
        options.metadata, names, anatomy_columns=options.anatomy_columns, group_column=options.group_column
    )


def _copies(infos: Sequence[ImageInfo], dataset: Dataset) -> tuple[list[tuple[str, ...]], list[Problem]]:
    """Return clusters of files that show one picture, and the problems to report about them."""
    fractured = {record.file_name: record.fractured for record in dataset}
    problems = []
    identical = identical_files(infos)
    for names in identical:
        problems.append(Problem(names[0], "identical_files", f"same bytes as {', '.join(names[1:])}"))
    digest = {info.file_name: info.sha256 for info in infos}
    pairs = near_duplicates(infos)
    for first, second, correlation in pairs:
        if digest[first] != digest[second]:
            problems.append(Problem(first, "near_duplicate", f"looks like {second} (correlation {correlation:.3f})"))
    links = sorted(
        {(first, second) for first, second, _ in pairs} | {(g[0], name) for g in identical for name in g[1:]}
    )
    for first, second in links:
        if fractured.get(first, False) != fractured.get(second, fractured.get(first, False)) and first in fractured:
            broken, healthy = (first, second) if fractured[first] else (second, first)
            problems.append(Problem(broken, "opposite_labels", f"fractured here, healthy in its copy {healthy}"))
    return list(links), problems


def _with_groups(
    dataset: Dataset, metadata: Metadata, copies: Sequence[Sequence[str]], options: PrepareOptions
) -> Dataset:
    """Return the data set with the group, anatomy and attributes of each record filled in."""
    groups = group_files(
        (record.file_name for record in dataset),
        patients=metadata.patients,
        copies=copies,
        neighbours=options.neighbours,
    )
    records = (
        replace(
            record,
            group_id=groups[record.file_name],
            anatomy=metadata.anatomies.get(record.file_name),
            attributes=metadata.attributes.get(record.file_name, {}),
        )
        for record in dataset
    )
    return Dataset(tuple(records), dataset.class_names)


def _split(
    dataset: Dataset, infos: Sequence[ImageInfo], options: PrepareOptions
) -> tuple[dict[str, str], list[Problem]]:
    fixed: dict[str, str] = {}
    problems: list[Problem] = []
    records: Sequence[ImageRecord] = dataset.records
    if options.split_from is not None:
        fixed, digests, problems = read_split(
            options.split_from, [info.file_name for info in infos], image_root=options.images
        )
        for info in infos:
            if digests.get(info.file_name, info.sha256) != info.sha256:
                problems.append(Problem(info.file_name, "changed_file", f"not the bytes of {options.split_from.name}"))
        for record in records:
            if fixed.get(record.file_name) == LEFT_OUT:
                detail = f"left out as in {options.split_from.name}"
                problems.append(Problem(record.file_name, "left_out", detail, EXCLUDED))
        records = [record for record in records if fixed.get(record.file_name) != LEFT_OUT]
    assignment = assign(records, _fractions(options, fixed), seed=options.seed, fixed=fixed)
    if options.drop_leaks:
        assignment, dropped = drop_leaks(records, assignment)
        problems += dropped
    check_leaks(records, assignment)
    return assignment, problems


def _fractions(options: PrepareOptions, fixed: Mapping[str, str]) -> Sequence[float]:
    if options.fractions is not None:
        return options.fractions
    named = set(fixed.values())
    rest = [0.0 if split in named else share for split, share in zip(SPLITS, DEFAULT_FRACTIONS, strict=True)]
    return rest if sum(rest) > 0 else DEFAULT_FRACTIONS


def _write(
    prepared: PreparedDataset, checked: CheckedDataset, infos: Sequence[ImageInfo], options: PrepareOptions
) -> None:
    for split in SPLITS:
        part = take(prepared.dataset, prepared.assignment, split)
        write_coco(part, options.out / f"{split}.json", description=f"{split} split, seed {options.seed}")
    digests = {info.file_name: info.sha256 for info in infos}
    files: dict[str, Any] = {}
    for record in prepared.dataset:
        files[record.file_name] = {
            "split": prepared.assignment.get(record.file_name, LEFT_OUT),
            "group": record.group_id,
            "sha256": digests[record.file_name],
            "annotation_sha256": checked.annotation_sha256.get(record.file_name),
        }
    content = {
        "format": FORMAT,
        "seed": options.seed,
        "class_names": list(prepared.dataset.class_names),
        "options": describe(options),
        "counts": count_split(prepared.dataset, prepared.assignment),
        "files": files,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (options.out / "split.json").write_text(text + "\n", encoding="utf-8")
    notes = []
    sources = sum(roboflow_source(name) is not None for name in files)
    if sources:
        notes.append(f"{sources:,} names have Roboflow's form `<name>.rf.<hash>`; copies of one name share a group.")
    write_report(
        prepared.dataset, prepared.assignment, prepared.problems, options.out, n_images=prepared.n_images, notes=notes
    )


def describe(options: PrepareOptions) -> dict[str, Any]:
    """Return the options that decide the result, in the form in which split.json keeps them."""
    content = asdict(options)
    for key in ("out", "workers"):
        del content[key]
    content["rules"]["repairs"] = sorted(options.rules.repairs)
    return {key: str(value) if isinstance(value, Path) else value for key, value in content.items()}
