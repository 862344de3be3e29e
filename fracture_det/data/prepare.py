"""From a folder of radiographs and annotations to COCO splits, with a report of what was found."""

from __future__ import annotations

import contextlib
import csv
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fracture_det.data.annotation_formats.detect import detect_format
from fracture_det.data.checks import AnnotationRules
from fracture_det.data.coco import write_coco
from fracture_det.data.dataset_report import write_report
from fracture_det.data.duplicates import identical_files, near_duplicates
from fracture_det.data.formats import CheckedDataset, build_dataset
from fracture_det.data.grouping import group_files, roboflow_source
from fracture_det.data.image_info import ImageInfo, read_image_infos
from fracture_det.data.metadata import Metadata, read_metadata
from fracture_det.data.output_files import PROBLEM_COLUMNS, earlier_output
from fracture_det.data.pairing import AnnotationSource, FileCounts, open_annotations
from fracture_det.data.records import EXCLUDED, Dataset, ImageRecord, Problem
from fracture_det.data.splits import (
    DEFAULT_FRACTIONS,
    FORMAT,
    LEFT_OUT,
    SPLITS,
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
from fracture_det.structures.image_files import IMAGE_SUFFIXES, escaped, list_image_names
from fracture_det.structures.processors import available_cpus

DEFAULT_NEIGHBOURS = 10
# The format is known from what the annotations hold.
AUTO = "auto"
# Wraps a stream, given its length and a title: a progress bar.
Progress = Callable[[Iterable[ImageInfo], int, str], Iterable[ImageInfo]]


@dataclass(frozen=True)
class PrepareOptions:
    """The options of prepare_dataset.py, named as on its command line.

    images, annotations: where to read. rules: classes and repairs. fractions: of train, val and test; None means
    the default, restricted to the splits that `split_from` does not name. neighbours: consecutive numbers per group.
    allow_empty_split: a split may come out empty. strict: nothing is written when anything is left out.
    """

    images: Path
    annotations: Path
    out: Path
    format: str = AUTO
    rules: AnnotationRules = field(default_factory=AnnotationRules)
    yolo_names: tuple[str, ...] | None = None
    metadata: Path | None = None
    anatomy_columns: tuple[str, ...] = ()
    group_column: str | None = None
    neighbours: int = DEFAULT_NEIGHBOURS
    fractions: tuple[float, float, float] | None = None
    split_from: Path | None = None
    drop_leaks: bool = False
    allow_empty_split: bool = False
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


class NothingUsableError(ValueError):
    """No image can be used, or none of the images with boxes; the message says what was found and what helps."""


@dataclass(frozen=True)
class PreparedDataset:
    """The result: records with anatomy and group, their split, and all problems.

    n_images: image files found. files: what became of every file. faults: annotations that cannot be read.
    refusal: with `strict`, why nothing is usable, or an empty text. notes: how the input was understood.
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


def prepare(options: PrepareOptions, *, progress: Progress | None = None) -> PreparedDataset:
    """Read, check, group and split a data set, and write everything to `options.out`.

    Writes problems.csv first, so that it is there when the rest fails; then, unless `strict` and something is
    excluded, train.json, val.json, test.json, split.json and report.md with its figures. Raises AnnotationError,
    MetadataError, NothingUsableError, EmptySplitError or LeakError, all ValueErrors, when there is nothing to write.
    """
    show: Progress = progress or (lambda stream, _total, _title: stream)
    with _named_option("--images or --annotations"):
        leave_out = earlier_output(options.out, (options.images, options.annotations))
        if options.format == AUTO and list_image_names(options.images):
            options = replace(options, format=detect_format(options.annotations, leave_out=leave_out))
        source = open_annotations(
            options.annotations,
            "voc" if options.format == AUTO else options.format,
            images=options.images,
            yolo_names=options.yolo_names,
            class_names=(*options.rules.class_names, *options.rules.class_map),
            leave_out=leave_out,
            known_files=[path for path in (options.metadata, options.split_from) if path is not None],
        )
    names = source.images
    if not names:
        raise ValueError(f"{options.images}: no image file ({', '.join(IMAGE_SUFFIXES)}) in this folder or below")
    metadata = _metadata(options, names)
    infos = read_image_infos(
        options.images, names, workers=options.workers, progress=lambda s, n: show(s, n, "reading images")
    )
    checked = build_dataset(
        infos,
        source,
        options.rules,
        missing_is_healthy=options.missing_xml_is_healthy,
        called_fractured=metadata.fractured | fractured_by_name(names, options.images.absolute().name),
        progress=lambda s, n: show(s, n, "reading annotations"),
    )
    checked = _without_copies_of_others(checked, infos)
    copies, copy_problems = _copies(infos, checked.dataset)
    problems = [*checked.problems, *metadata.problems, *copy_problems]
    dataset = _with_groups(checked.dataset, metadata, copies, options)
    with _named_option("--out"):
        options.out.mkdir(parents=True, exist_ok=True)
        write_problems(_sorted(problems), options.out / "problems.csv")
    strict = options.strict and any(problem.action == EXCLUDED for problem in problems)
    try:
        _check_usable(checked, source, options)
    except NothingUsableError as error:
        if not strict:
            raise
        refusal = str(error)
    else:
        refusal = ""
    assignment, split_problems = _split(dataset, infos, options, may_be_empty=strict)
    problems = _sorted([*problems, *split_problems])
    write_problems(problems, options.out / "problems.csv")
    used = [record.file_name for record in dataset]
    prepared = PreparedDataset(
        dataset,
        assignment,
        tuple(problems),
        len(names),
        source.count_files(assignment, used),
        checked.faults,
        refusal,
        tuple(_notes(checked, source, dataset, assignment, options)),
    )
    if not (options.strict and prepared.excluded):
        _write(prepared, checked, infos, options)
    return prepared


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


def _check_usable(checked: CheckedDataset, source: AnnotationSource, options: PrepareOptions) -> None:
    """Raise NothingUsableError when no image, or no image with a box, is left of those that there were."""
    excluded = Counter(problem.kind for problem in checked.problems if problem.action == EXCLUDED)
    see = f"see {options.out / 'problems.csv'}"
    some_matched = any(source.has(name) for name in source.images)
    if not source.n_items and not options.missing_xml_is_healthy:
        raise NothingUsableError(f"{source.nothing_found()}; {see}")
    if source.n_items and not some_matched:
        raise NothingUsableError(f"no annotation belongs to an image: {source.examples()}; {see}")
    if any(record.fractured for record in checked.dataset):
        return
    boxes = sum(checked.class_counts.values())
    if checked.faults and not boxes:
        faults = f"{checked.faults:,} annotations cannot be used: {_kinds(excluded)}"
        raise NothingUsableError(f"no image with a box is left, and {faults}; {see}")
    if boxes:
        reason = _class_hint(checked, options) or _kinds(excluded)
        raise NothingUsableError(f"no image with a box can be used, of {boxes:,} boxes: {reason}; {see}")
    if not len(checked.dataset):
        hint = "; --missing-xml-is-healthy takes images without annotation as healthy" * bool(excluded["unlabelled"])
        raise NothingUsableError(f"no image can be used: {_kinds(excluded)}{hint}; {see}")


def _kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{n:,} {kind}" for kind, n in counts.most_common(5)) or "nothing was found"


def _class_hint(checked: CheckedDataset, options: PrepareOptions) -> str:
    """Return the classes of the files that are not known, with a ready --class-map, or an empty text."""
    rules = options.rules
    unknown = {name: n for name, n in checked.class_counts.items() if rules.class_index(name) is None}
    if not unknown:
        return ""
    target = rules.class_names[0] if len(rules.class_names) == 1 else "CLASS"
    ordered = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
    found = ", ".join(f"{name} ({n:,} boxes)" for name, n in ordered)
    mapped = " ".join(shlex.quote(f"{name}={target}") for name in sorted(unknown))
    return (
        f"the annotations have the class{'es' * (len(unknown) > 1)} {found}, expected {', '.join(rules.class_names)}; "
        f"where they mean the same, give --class-map {mapped}"
    )


def _notes(
    checked: CheckedDataset,
    source: AnnotationSource,
    dataset: Dataset,
    assignment: Mapping[str, str],
    options: PrepareOptions,
) -> Iterator[str]:
    yield from source.notes
    if any(problem.kind == "unknown_class" for problem in checked.problems):
        yield f"Some boxes have an unknown class: {_class_hint(checked, options)}."
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


def _without_copies_of_others(checked: CheckedDataset, infos: Sequence[ImageInfo]) -> CheckedDataset:
    """Leave out the images that are only assumed healthy and whose copy has a box, or is itself left out."""
    assumed = {problem.file for problem in checked.problems if problem.kind == "assumed_healthy"}
    if not assumed:
        return checked
    is_fractured = {record.file_name: record.fractured for record in checked.dataset}
    left_out = {p.file: p.kind for p in checked.problems if p.action == EXCLUDED}
    digest_of = {info.file_name: info.sha256 for info in infos}
    pairs = [(first, second) for first, second, _ in near_duplicates(infos)]
    pairs += [(first, second) for names in identical_files(infos) for first in names for second in names]
    copy_of: dict[str, str] = {}
    for pair in pairs:
        for name, other in (pair, pair[::-1]):
            if name in assumed and (is_fractured.get(other) or (other not in is_fractured and name not in copy_of)):
                copy_of[name] = other
    if not copy_of:
        return checked
    problems = [p for p in checked.problems if not (p.kind == "assumed_healthy" and p.file in copy_of)]
    for name, other in sorted(copy_of.items()):
        alike = "has the same bytes as" if digest_of[name] == digest_of[other] else "looks like"
        what = "is fractured" if is_fractured.get(other) else f"is left out ({left_out.get(other, 'unreadable_image')})"
        detail = f"not taken as healthy: {alike} {other}, which {what}"
        problems.append(Problem(name, "possibly_annotated", detail, EXCLUDED))
    records = tuple(record for record in checked.dataset if record.file_name not in copy_of)
    return replace(checked, dataset=Dataset(records, checked.dataset.class_names), problems=tuple(problems))


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
    dataset: Dataset, infos: Sequence[ImageInfo], options: PrepareOptions, *, may_be_empty: bool = False
) -> tuple[dict[str, str], list[Problem]]:
    fixed: dict[str, str] = {}
    problems: list[Problem] = []
    records: Sequence[ImageRecord] = dataset.records
    if options.split_from is not None:
        with _named_option("--split-from"):
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
    fractions = _fractions(options, fixed)
    assignment = assign(records, fractions, seed=options.seed, fixed=fixed)
    if options.drop_leaks:
        assignment, dropped = drop_leaks(records, assignment)
        problems += dropped
    check_leaks(records, assignment)
    if not (may_be_empty or options.allow_empty_split):
        named = set(fixed.values())
        divided = any(record.file_name not in fixed for record in records)
        wanted = [s for s, share in zip(SPLITS, fractions, strict=True) if s in named or (divided and share > 0)]
        if options.fractions is None and "train" not in wanted:  # not what anybody wants without saying so
            wanted.insert(0, "train")
        check_splits_filled(assignment, wanted)
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


def describe(options: PrepareOptions) -> dict[str, Any]:
    """Return the options that decide the result, in the form in which split.json keeps them."""
    content = asdict(options)
    for key in ("out", "workers"):
        del content[key]
    content["rules"]["repairs"] = sorted(options.rules.repairs)
    return {key: escaped(str(value)) if isinstance(value, Path) else value for key, value in content.items()}
