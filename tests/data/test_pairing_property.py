"""Over random trees: no image with a box is ever healthy, no box lands on another image, and every file is counted."""

from __future__ import annotations

import json
import posixpath
import tempfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fracture_det.data.annotation_formats.voc import voc_xml
from fracture_det.data.annotations import RawBox
from fracture_det.data.checks import AnnotationRules
from fracture_det.data.formats import build_dataset
from fracture_det.data.image_info import ImageInfo
from fracture_det.data.pairing import open_annotations

SIDE_PX = 1000
READ, UNREAD = (".png", ".jpg", ".PNG", ".Jpeg"), (".heic", ".gif", "")
STEMS = ("0", "1", "a.b", "hüfte", "x y", "x%20y", "0.png")
SUFFIX = {"voc": ".xml", "yolo": ".txt"}


@dataclass(frozen=True)
class Picture:
    """A radiograph; `present` where its file is still there."""

    folder: str
    stem: str
    suffix: str
    present: bool = True

    @property
    def name(self) -> str:
        return posixpath.join(self.folder, self.stem + self.suffix)


@dataclass(frozen=True)
class Label:
    """What somebody said of `picture`: box number `number`, no box (None), or a file that is broken."""

    picture: Picture
    number: int | None
    broken: bool = False


@dataclass
class Tree:
    """Files to be written: images, and annotation files with what each says."""

    same_root: bool
    pictures: list[Picture] = field(default_factory=list)
    labels: dict[str, Label] = field(default_factory=dict)
    entries: list[tuple[str, Label]] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    others: dict[str, Picture] = field(default_factory=dict)

    @property
    def has_top(self) -> bool:
        """Whether images lie in the root itself, so that a name without folder says where its image is."""
        return any(not picture.folder for picture in self.pictures)


def same_name(path: str) -> str:
    """Return a form in which names that a careful reader may take for each other are equal."""
    return unicodedata.normalize("NFC", path).replace("%20", " ").casefold()


@st.composite
def trees(draw, fmt):
    """Draw a tree in which every annotation says nothing false, though often too little."""
    tree = Tree(same_root=fmt == "yolo" and draw(st.booleans()))
    folders = (
        ("train/images", "valid/images")
        if tree.same_root
        else draw(st.sampled_from([("",), ("a", "b"), ("a", "a/b", "")]))
    )
    taken: dict[tuple[str, str], list[bool]] = {}
    for folder in folders:  # a folder without any image is no evidence
        tree.pictures.append(Picture(folder, f"first of {folder.replace('/', ' ')}", ".png"))
    for _ in range(draw(st.integers(1, 6))):
        stem = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), draw(st.sampled_from(STEMS)))
        suffix = draw(st.sampled_from(READ + READ + UNREAD))
        folder = draw(st.sampled_from(folders))
        # Without a folder, nothing tells the annotation of a lost image from one that lost its folder.
        picture = Picture(folder, stem, suffix, present=not folder or draw(st.integers(0, 4)) > 0)
        key = (picture.folder, same_name(picture.stem.removesuffix(".png")))
        # Whether a/0.txt means a/0.png or a lost a/0.jpg, nobody can tell.
        clash = [present for present in taken.get(key, []) if not (present and picture.present)]
        if not clash and picture.name not in [other.name for other in tree.pictures]:
            taken.setdefault(key, []).append(picture.present)
            tree.pictures.append(picture)
    for number, picture in enumerate(tree.pictures):
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
            what = draw(st.sampled_from(["box", "box", "none", "broken"]))
            label = Label(picture, number if what == "box" else None, what == "broken")
            if fmt == "coco":
                name = draw(entry_names(tree, picture))
                if not label.broken and name not in dict(tree.entries):
                    tree.entries.append((name, label))
            else:
                draw(label_files(tree, fmt, label))
        if draw(st.integers(0, 9)) == 0 and fmt != "coco":
            tree.others[posixpath.join(label_folder(tree, picture), picture.stem + ".json")] = picture
    return tree


def label_folder(tree: Tree, picture: Picture) -> str:
    return picture.folder.replace("images", "labels") if tree.same_root else picture.folder


@st.composite
def label_files(draw, tree, fmt, label):
    """Add the file of a label: where it should be, in one folder with all others, or moved to a new folder."""
    picture = label.picture
    stem = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), picture.stem)
    suffix = draw(st.sampled_from([SUFFIX[fmt], SUFFIX[fmt].upper()]))
    double = picture.suffix if draw(st.integers(0, 5)) == 0 else ""
    places = [label_folder(tree, picture)] * 3
    # Without its folder, the label of a lost image says nothing; that of a present one is to be found or left out.
    if picture.present:
        places += ["moved/labels", picture.folder] if tree.same_root else ["moved", *([] if tree.has_top else [""])]
    file = posixpath.join(draw(st.sampled_from(places)), stem + double + suffix)
    if file not in tree.labels:
        tree.labels[file] = label
        tree.fields[file] = draw(st.sampled_from(["none", "filename", "all"]))


@st.composite
def entry_names(draw, tree, picture):
    """Draw how an export calls an image: by its path, without suffix, from a root, encoded, or by its name alone."""
    name = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), picture.name)
    ways = [name, name, f"/data/of/somebody/{name}", name]
    if not any("%20" in other.stem for other in tree.pictures):
        ways.append(name.replace(" ", "%20"))
    if picture.suffix:
        ways.append(name.removesuffix(picture.suffix) + picture.suffix.swapcase())
    if picture.present and not picture.stem.endswith(".png"):  # 0.png says 0.png, not 0.png.png
        ways.append(name.removesuffix(picture.suffix) or name)
    if picture.present and not tree.has_top:
        ways.append(posixpath.basename(name))
    return draw(st.sampled_from(ways))


def write(tree: Tree, fmt: str, folder: Path) -> tuple[Path, Path]:
    """Write the tree; return the roots of images and annotations."""
    images = folder if tree.same_root else folder / "images"
    labels = folder if tree.same_root else folder / "annotations"
    images.mkdir(exist_ok=True)
    labels.mkdir(exist_ok=True)
    for picture in tree.pictures:
        if picture.present:
            put(images / picture.name, "")
    for file, label in tree.labels.items():
        put(labels / file, text_of(fmt, label, tree.fields[file]))
    for file in tree.others:
        put(labels / file, "{}")
    if fmt != "coco":
        return images, labels
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "fracture"}]}
    for k, (name, label) in enumerate(tree.entries):
        content["images"].append({"id": k, "file_name": name, "width": SIDE_PX, "height": SIDE_PX})
        if label.number is not None:
            content["annotations"].append(
                {"id": k, "image_id": k, "category_id": 1, "bbox": [5, 5, 10 + label.number, 20], "iscrowd": 0}
            )
    put(labels / "export.json", json.dumps(content))
    return images, labels / "export.json"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def text_of(fmt: str, label: Label, fields: str) -> str:
    if label.broken:
        return "<annotation><object>" if fmt == "voc" else "0 .5 .5\n"
    width = None if label.number is None else 10 + label.number
    if fmt == "yolo":
        return "" if width is None else f"0 .5 .5 {width / SIDE_PX} .02\n"
    boxes = () if width is None else (RawBox("fracture", (5, 5, 5 + width, 25)),)
    path = Path("/data") / (label.picture.folder or "images") / (label.picture.stem + label.picture.suffix)
    lines = voc_xml(path, (SIDE_PX, SIDE_PX), boxes).splitlines()
    drop = {"none": ("<folder>", "<filename>", "<path>"), "filename": ("<folder>", "<path>"), "all": ()}[fields]
    return "\n".join(line for line in lines if not any(tag in line for tag in drop))


def check_tree(tree: Tree, fmt: str, folder: Path, *, missing_is_healthy: bool) -> None:
    """Read a written tree and compare it with what was meant."""
    images, annotations = write(tree, fmt, folder)
    source = open_annotations(annotations, fmt, images=images, yolo_names=["fracture"])
    infos = [ImageInfo(name, (SIDE_PX, SIDE_PX), 1, name, None) for name in source.images]
    checked = build_dataset(infos, source, AnnotationRules(), missing_is_healthy=missing_is_healthy)
    labels = [*tree.labels.values(), *(label for _, label in tree.entries)]
    boxes_of = {p.name: {b.number for b in labels if b.picture == p and b.number is not None} for p in tree.pictures}
    doubted = {label.picture.name for label in labels if label.broken or label.number is not None}
    doubted |= {picture.name for picture in tree.others.values()} - {label.picture.name for label in labels}
    for record in checked.dataset:
        found = {round(x1 - x0) - 10 for x0, _, x1, _ in record.boxes.tolist()}
        assert found <= boxes_of[record.file_name], f"{record.file_name} has another's box in {tree}"
        if not record.fractured:
            assert record.file_name not in doubted, f"{record.file_name} is healthy in {tree}"
    count_files(tree, source, checked, images, annotations, folder)


def count_files(tree, source, checked, images: Path, annotations: Path, folder: Path) -> None:
    """Every file is a used image, a used annotation, or named in a problem, and the counts say so."""
    used = {record.file_name for record in checked.dataset}
    counts = source.count_files(used, used)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert counts.found == len(files)
    assert counts.images + counts.annotations + counts.listed == counts.found
    assert min(counts.images, counts.annotations, counts.excluded_images, counts.other) >= 0
    used_annotations = {source.annotation_name(name) for name in used if source.has(name)}
    listed = [p for p in checked.problems if p.action == "excluded" or p.kind.startswith("other_")]
    for path in files:
        if path == annotations:
            continue
        name = path.relative_to(images if path.is_relative_to(images) else annotations).as_posix()
        is_used = name in used or name in used_annotations
        assert is_used or any(name == p.file or name in p.detail for p in listed), f"{name} is lost"


@pytest.mark.parametrize("fmt", ["voc", "yolo", "coco"])
@pytest.mark.parametrize("missing_is_healthy", [False, True])
def test_no_image_with_a_box_is_healthy_and_no_box_is_of_another_image(fmt, missing_is_healthy):
    @settings(derandomize=True, max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tree=trees(fmt))
    def property_holds(tree):
        with tempfile.TemporaryDirectory() as folder:
            check_tree(tree, fmt, Path(folder), missing_is_healthy=missing_is_healthy)

    property_holds()
