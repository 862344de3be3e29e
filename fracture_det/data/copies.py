"""Copies among the images of a data set: what they say of each other's labels, and which belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fracture_det.data.duplicates import identical_files, near_duplicates
from fracture_det.data.formats import CheckedDataset
from fracture_det.data.image_info import ImageInfo
from fracture_det.data.records import EXCLUDED, Dataset, Problem


def without_copies_of_others(checked: CheckedDataset, infos: Sequence[ImageInfo]) -> CheckedDataset:
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


def find_copies(infos: Sequence[ImageInfo], dataset: Dataset) -> tuple[list[tuple[str, ...]], list[Problem]]:
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
