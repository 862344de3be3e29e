"""From a folder of radiographs and annotations to COCO splits, with a report of what was found."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fracture_det.data.annotation_formats.detect import detect_format
from fracture_det.data.coco import write_coco
from fracture_det.data.copies import find_copies, without_copies_of_others
from fracture_det.data.dataset_report import write_report
from fracture_det.data.dicom_groups import read_dicom_groups
from fracture_det.data.formats import CheckedDataset, build_dataset
from fracture_det.data.grouping import group_files, roboflow_source
from fracture_det.data.image_info import ImageInfo, read_image_infos
from fracture_det.data.metadata import Metadata, read_metadata
from fracture_det.data.output_files import PROBLEM_COLUMNS, PROBLEMS_FILE, earlier_output
from fracture_det.data.pairing import AnnotationSource, FileCounts, open_annotations
from fracture_det.data.prepare_options import AUTO, DICOM, PrepareOptions, describe
from fracture_det.data.records import EXCLUDED, Dataset, ImageRecord, Problem
from fracture_det.data.splits import (
    DEFAULT_FRACTIONS,
    FORMAT,
    LEFT_OUT,
    SPLITS,
    EmptySplitError,
    assign,
    check_leaks,
    check_splits_filled,
    count_split,
    drop_leaks,
    read_split,
    take,
)
from fracture_det.data.stated_labels import fractured_by_name
from fracture_det.data.tables import MetadataError
from fracture_det.data.usable import check_usable, class_hint
from fracture_det.structures.image_files import IMAGE_SUFFIXES, list_image_names

# Wraps a stream, given its length and a title: a progress bar.
Progress = Callable[[Iterable[ImageInfo], int, str], Iterable[ImageInfo]]


@dataclass(frozen=True)
class PreparedDataset:
    """The result: records with anatomy and group, their split, and all problems.

    n_images: image files found. files: what became of every file. faults: annotations that cannot be read.
    refusal: with `strict`, why nothing could be written either way, or an empty text. notes: how the input was
    understood.
    """

    dataset: Dataset
    assignment: Mapping[str, str]
    problems: tuple[Problem, ...]
    n_images: int
    files: FileCounts
    faults: int = 0
    refusal: str = ""
    notes: tuple[str, ...] = ()

    @property
    def excluded(self) -> tuple[Problem, ...]:
        """The problems that cost an image or an annotation."""
        return tuple(problem for problem in self.problems if problem.action == EXCLUDED)


class RefusedError(ValueError):
    """The files were read, and no split can be written; the message says why, and the cause is its own error.

    problems: all that was found, as in problems.csv, which is written. files: what became of every file.
    """

    def __init__(self, reason: ValueError, problems: Sequence[Problem], files: FileCounts) -> None:
        super().__init__(str(reason))
        self.problems, self.files = tuple(problems), files


def prepare(options: PrepareOptions, *, progress: Progress | None = None) -> PreparedDataset:
    """Read, check, group and split a data set, and write everything to `options.out`.

    Writes problems.csv first, so that it is there when the rest fails; then, unless `strict` and something is
    excluded, train.json, val.json, test.json, split.json and report.md with its figures. Raises AnnotationError or
    MetadataError for what cannot be read at all, and RefusedError, with a NothingUsableError, EmptySplitError,
    LeakError or MetadataError as its cause, when the files were read and there is nothing to write.
    """
    show: Progress = progress or (lambda stream, _total, _title: stream)
    only_dicom = options.format == DICOM
    options, source = _open(options)
    metadata = _metadata(options, source.images)
    infos = read_image_infos(
        options.images, source.images, workers=options.workers, progress=lambda s, n: show(s, n, "reading images")
    )
    dicom = read_dicom_groups(options.images, infos, only_dicom=only_dicom)
    metadata = dicom.added_to(metadata)
    checked = build_dataset(
        infos,
        source,
        options.rules,
        missing_is_healthy=options.missing_xml_is_healthy,
        called_fractured=metadata.fractured | fractured_by_name(source.images, options.images.absolute().name),
        progress=lambda s, n: show(s, n, "reading annotations"),
    )
    checked = without_copies_of_others(checked, infos)
    copies, copy_problems = find_copies(infos, checked.dataset)
    problems = [*checked.problems, *metadata.problems, *copy_problems]
    regroup = functools.partial(_with_groups, checked.dataset, metadata, (*copies, *dicom.clusters))
    dataset = regroup(options)
    with _named_option("--out"):
        options.out.mkdir(parents=True, exist_ok=True)
        write_problems(_sorted(problems), options.out / PROBLEMS_FILE)
    split = _try_split(checked, source, dataset, infos, options)
    if isinstance(split.refusal, EmptySplitError):
        finest = regroup(replace(options, neighbours=0))
        split.refusal = EmptySplitError(f"{split.refusal}. {_advice(split.refusal, dataset, finest)}")
    problems = _sorted([*problems, *split.problems])
    write_problems(problems, options.out / PROBLEMS_FILE)
    return _finish(problems, split, checked, source, dataset, infos, options, dicom.notes)


def _finish(
    problems: Sequence[Problem],
    split: _Split,
    checked: CheckedDataset,
    source: AnnotationSource,
    dataset: Dataset,
    infos: Sequence[ImageInfo],
    options: PrepareOptions,
    notes: Sequence[str],
) -> PreparedDataset:
    """Write the splits, or with `strict` none; raises RefusedError where there are none."""
    names = [record.file_name for record in dataset]
    files = source.count_files(names if split.assignment is None else split.assignment, names)
    stopped = options.strict and any(problem.action == EXCLUDED for problem in problems)
    if split.refusal and not stopped:
        raise RefusedError(split.refusal, problems, files) from split.refusal
    assignment = split.assignment or {}
    prepared = PreparedDataset(
        dataset,
        assignment,
        tuple(problems),
        len(source.images),
        files,
        checked.faults,
        str(split.refusal or ""),
        (*notes, *_notes(checked, source, dataset, assignment, options)),
    )
    if not stopped:
        _write(prepared, checked, infos, options)
    return prepared


def _open(options: PrepareOptions) -> tuple[PrepareOptions, AnnotationSource]:
    """Find the files and match them; return the options with the format that the annotations have, and the source."""
    with _named_option("--images or --annotations"):
        leave_out = earlier_output(options.out, (options.images, options.annotations))
        if options.format in (AUTO, DICOM) and list_image_names(options.images):
            options = replace(options, format=detect_format(options.annotations, leave_out=leave_out))
        source = open_annotations(
            options.annotations,
            "voc" if options.format in (AUTO, DICOM) else options.format,
            images=options.images,
            yolo_names=options.yolo_names,
            class_names=(*options.rules.class_names, *options.rules.class_map),
            leave_out=leave_out,
            known_files=[path for path in (options.metadata, options.split_from) if path is not None],
        )
    if not source.images:
        unread = Counter(p.kind for p in source.problems if p.kind in ("name_not_utf8", "kind_not_read", "hidden_file"))
        found = "".join(f"; {n:,} {kind}" for kind, n in sorted(unread.items()))
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(f"{options.images}: no image file that is read ({kinds}) in this folder or below{found}")
    return options, source


def write_problems(problems: Sequence[Problem], path: str | Path) -> None:
    """Write one row per problem: file, kind, detail, action."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(PROBLEM_COLUMNS)
        writer.writerows((p.file, p.kind, p.detail, p.action) for p in problems)


def read_problems(path: str | Path) -> list[Problem]:
    """Read what `write_problems` wrote."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [Problem(**row) for row in csv.DictReader(file)]


def _metadata(options: PrepareOptions, names: Sequence[str]) -> Metadata:
    if options.metadata is None:
        return Metadata()
    with _named_option("--metadata"):
        return read_metadata(
            options.metadata, names, anatomy_columns=options.anatomy_columns, group_column=options.group_column
        )


@contextlib.contextmanager
def _named_option(option: str) -> Iterator[None]:
    """Say of which option a file is that cannot be read."""
    try:
        yield
    except MetadataError as error:
        raise MetadataError(f"{option} {error}") from error
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        raise ValueError(f"{option}{name}: {error.strerror or error}") from error


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.kind, problem.file, problem.detail))


def _notes(
    checked: CheckedDataset,
    source: AnnotationSource,
    dataset: Dataset,
    assignment: Mapping[str, str],
    options: PrepareOptions,
) -> Iterator[str]:
    yield from source.notes
    if any(problem.kind == "unknown_class" for problem in checked.problems):
        yield f"Some boxes have an unknown class: {class_hint(checked, options)}."
    if options.fractions is not None and abs(sum(options.fractions) - 1) > 1e-6:
        shares = ", ".join(
            f"{share / sum(options.fractions):.3g} {split}"
            for split, share in zip(SPLITS, options.fractions, strict=True)
        )
        yield f"The fractions {' '.join(f'{share:g}' for share in options.fractions)} are the shares {shares}."
    sizes = Counter(assignment.values())
    for split in SPLITS:
        if not sizes[split]:
            yield f"The split {split} is empty."
    fractured = Counter(assignment.get(record.file_name) for record in dataset if record.fractured)
    for split in SPLITS:
        if sizes[split] and not fractured[split]:
            yield f"No image of {split} is fractured."


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
            attributes={**record.attributes, **metadata.attributes.get(record.file_name, {})},
        )
        for record in dataset
    )
    return Dataset(tuple(records), dataset.class_names)


@dataclass
class _Split:
    """A split while it is made. assignment: None until every usable image has its split, or is listed."""

    assignment: dict[str, str] | None = None
    problems: list[Problem] = field(default_factory=list)
    refusal: ValueError | None = None


def _try_split(
    checked: CheckedDataset,
    source: AnnotationSource,
    dataset: Dataset,
    infos: Sequence[ImageInfo],
    options: PrepareOptions,
) -> _Split:
    """Return the split as far as it can be made, with the reason where it cannot be used."""
    split = _Split()
    try:
        check_usable(checked, source, options)
        _split(dataset, infos, options, split)
    except ValueError as error:
        split.refusal = error
    return split


def _split(dataset: Dataset, infos: Sequence[ImageInfo], options: PrepareOptions, split: _Split) -> None:
    """Fill `split`, as far as it can be made. Raises MetadataError, LeakError or EmptySplitError."""
    fixed: dict[str, str] = {}
    records: Sequence[ImageRecord] = dataset.records
    if options.split_from is not None:
        with _named_option("--split-from"):
            fixed, digests, problems = read_split(
                options.split_from, [info.file_name for info in infos], image_root=options.images
            )
        split.problems += problems
        for info in infos:
            if digests.get(info.file_name, info.sha256) != info.sha256:
                detail = f"not the bytes of {options.split_from.name}"
                split.problems.append(Problem(info.file_name, "changed_file", detail))
        for record in records:
            if fixed.get(record.file_name) == LEFT_OUT:
                detail = f"left out as in {options.split_from.name}"
                split.problems.append(Problem(record.file_name, "left_out", detail, EXCLUDED))
        records = [record for record in records if fixed.get(record.file_name) != LEFT_OUT]
    fractions = _fractions(options, fixed)
    split.assignment = assign(records, fractions, seed=options.seed, fixed=fixed)
    if options.drop_leaks:
        split.assignment, dropped = drop_leaks(records, split.assignment)
        split.problems += dropped
    check_leaks(records, split.assignment)
    if not options.allow_empty_split:
        named = set(fixed.values())
        divided = any(record.file_name not in fixed for record in records)
        wanted = [s for s, share in zip(SPLITS, fractions, strict=True) if s in named or (divided and share > 0)]
        if options.fractions is None and "train" not in wanted:  # not what anybody wants without saying so
            wanted.insert(0, "train")
        check_splits_filled(split.assignment, wanted, named)


def _advice(error: EmptySplitError, dataset: Dataset, finest: Dataset) -> str:
    """Return what could fill, or allow, the empty splits. finest: with the groups of `--neighbours 0`."""
    ways = ["more images"]
    if not error.named:
        ways.append("--fractions (0 for a split that is to be empty)")
    if len({record.group_id for record in finest}) > len({record.group_id for record in dataset}):
        ways.append("smaller groups (--neighbours 0)")
    return f"Give {', '.join(ways)}{',' * (len(ways) > 1)} or --allow-empty-split"


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
    notes = [*prepared.notes]
    sources = sum(roboflow_source(name) is not None for name in files)
    if sources:
        notes.append(f"{sources:,} names have Roboflow's form `<name>.rf.<hash>`; copies of one name share a group.")
    write_report(
        prepared.dataset,
        prepared.assignment,
        prepared.problems,
        options.out,
        n_images=prepared.n_images,
        files=prepared.files,
        notes=notes,
    )
