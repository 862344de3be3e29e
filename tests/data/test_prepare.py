"""tools/prepare_dataset.py from end to end on drawn radiographs."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import matplotlib.image
import pytest
from pycocotools.coco import COCO

from fracture_det.data.coco import read_coco
from fracture_det.data.formats import write_annotations
from fracture_det.data.output_files import OUTPUT_FILES
from fracture_det.data.prepare import read_problems
from tests.builders import build_dataset
from tools.prepare_dataset import build_parser, main

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    return folder, build_dataset(folder, n_fractured=30, n_healthy=30, seed=2, size=(96, 80))


def run(folder, out, *more, annotations=None):
    folders = {"--images": folder / "images", "--annotations": annotations or folder / "annotations", "--out": out}
    return main([str(word) for pair in folders.items() for word in pair] + ["--workers", "1", *map(str, more)])


def with_metadata(folder):
    return ["--metadata", folder / "metadata.csv", "--anatomy-columns", "anatomy", "--group-column", "patient"]


def splits_in(out):
    return {split: read_coco(out / f"{split}.json") for split in SPLITS}


@pytest.fixture(scope="module")
def prepared(drawn, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    assert run(drawn[0], out, *with_metadata(drawn[0]), "--seed", 3) == 0
    return out


def test_what_is_written_is_what_was_drawn(drawn, prepared):
    truth = {record.file_name: record for record in drawn[1]}
    found = [record for part in splits_in(prepared).values() for record in part]
    assert len(found) == len(truth)
    for record in found:
        expected = truth[record.file_name]
        assert record.boxes.tolist() == expected.boxes.tolist()
        assert (record.anatomy, record.group_id, record.size) == (expected.anatomy, expected.group_id, expected.size)
        assert record.image_id == expected.image_id
    assert read_problems(prepared / "problems.csv") == []


def test_pycocotools_reads_anatomy_and_group(prepared):
    coco = COCO(str(prepared / "train.json"))
    image = coco.loadImgs(coco.getImgIds()[:1])[0]
    assert image["anatomy"] in ("wrist", "hand", "elbow", "shoulder", "lower limb")
    assert image["group"].startswith("patient_2_")


def test_no_patient_is_in_two_splits(prepared):
    groups = [{record.group_id for record in part} for part in splits_in(prepared).values()]
    assert len(set.union(*groups)) == sum(len(found) for found in groups)
    assert all(groups)


def test_split_json_holds_seed_counts_and_the_hash_of_every_file(drawn, prepared):
    content = json.loads((prepared / "split.json").read_text(encoding="utf-8"))
    assert (content["format"], content["seed"]) == ("fracture_det split 1", 3)
    assert content["options"]["group_column"] == "patient"
    assert sum(content["counts"][split]["images"] for split in SPLITS) == 60
    assert len(content["files"]) == 60
    for name, entry in content["files"].items():
        image = drawn[0] / "images" / name
        xml = (drawn[0] / "annotations" / name).with_suffix(".xml")
        assert entry["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
        assert entry["annotation_sha256"] == hashlib.sha256(xml.read_bytes()).hexdigest()


def test_a_split_is_made_again_from_its_split_json(drawn, prepared, tmp_path):
    assert run(drawn[0], tmp_path, *with_metadata(drawn[0]), "--split-from", prepared / "split.json") == 0
    for split in SPLITS:
        again = json.loads((tmp_path / f"{split}.json").read_text())
        first = json.loads((prepared / f"{split}.json").read_text())
        assert (again["images"], again["annotations"]) == (first["images"], first["annotations"])


def test_the_same_seed_writes_the_same_bytes(drawn, prepared, tmp_path):
    assert run(drawn[0], tmp_path, *with_metadata(drawn[0]), "--seed", 3, "--workers", 2) == 0
    for name in ("train.json", "val.json", "test.json", "split.json", "problems.csv", "report.md", "report.json"):
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes(), name


def test_the_report_shows_counts_fit_and_figures(prepared):
    text = (prepared / "report.md").read_text(encoding="utf-8")
    assert "60 images found, 60 used: 30 fractured" in text
    for figure in ("box_sizes.png", "anchor_fit.png", "image_size.png"):
        assert f"({figure})" in text
        assert matplotlib.image.imread(prepared / figure).std() > 0.01
    numbers = json.loads((prepared / "report.json").read_text())
    fitted = next(fit for fit in numbers["anchors"] if fit["anchors"] == "fitted")
    pairs = zip(fitted["sizes"][::2], fitted["sizes"][1::2], strict=True)
    assert f"    SIZES: [{', '.join(f'[{one:g}, {other:g}]' for one, other in pairs)}]" in text


def test_files_that_the_split_does_not_name_go_to_the_splits_it_does_not_name(drawn, tmp_path):
    names = [record.file_name for record in drawn[1]][:10]
    (tmp_path / "test.csv").write_text("file_name,split\n" + "".join(f"{name},test\n" for name in names))
    assert run(drawn[0], tmp_path, "--split-from", tmp_path / "test.csv", "--neighbours", 0) == 0
    parts = splits_in(tmp_path)
    assert sorted(record.file_name for record in parts["test"]) == sorted(names)
    assert len(parts["train"]) > len(parts["val"]) > 0
    assert (
        run(drawn[0], tmp_path, "--split-from", tmp_path / "test.csv", "--neighbours", 0, "--fractions", 1, 0, 0) == 0
    )
    assert len(splits_in(tmp_path)["val"]) == 0


def test_a_leak_fails_loudly_and_drop_leaks_mends_and_records_it(drawn, tmp_path, capsys):
    leaking = tmp_path / "leaking.csv"
    leaking.write_text("file_name,split\nlimb_2_0000.jpg,test\nlimb_2_0001.png,train\n")
    more = [*with_metadata(drawn[0]), "--split-from", leaking]
    assert run(drawn[0], tmp_path / "out", *more) == 2
    assert "patient_2_0000 in train and test" in capsys.readouterr().err
    assert not (tmp_path / "out" / "train.json").exists()
    assert (tmp_path / "out" / "problems.csv").exists()

    assert run(drawn[0], tmp_path / "out", *more, "--drop-leaks") == 2
    assert "train would be empty: 59 images can be used (0 train, 58 val, 1 test)" in capsys.readouterr().err
    more.append("--allow-empty-split")
    assert run(drawn[0], tmp_path / "out", *more, "--drop-leaks") == 0

    problems = read_problems(tmp_path / "out" / "problems.csv")
    assert [(p.file, p.kind, p.action) for p in problems] == [("limb_2_0001.png", "leak", "excluded")]
    content = json.loads((tmp_path / "out" / "split.json").read_text())
    assert content["files"]["limb_2_0001.png"]["split"] == "none"
    # Made again from split.json, the image stays out.
    again = [*with_metadata(drawn[0]), "--split-from", tmp_path / "out" / "split.json", "--allow-empty-split"]
    assert run(drawn[0], tmp_path / "again", *again) == 0
    assert (tmp_path / "again" / "train.json").read_bytes() == (tmp_path / "out" / "train.json").read_bytes()
    assert [p.kind for p in read_problems(tmp_path / "again" / "problems.csv")] == ["left_out"]


@pytest.fixture
def damaged(drawn, tmp_path):
    """A copy of the drawn set in which one image is cut, one copied with the opposite label, and one box reversed."""
    folder = tmp_path / "damaged"
    shutil.copytree(drawn[0], folder)
    images, xmls = folder / "images", folder / "annotations"
    broken, healthy = (next(r for r in drawn[1] if r.fractured is state) for state in (True, False))
    shutil.copy(images / broken.file_name, images / f"copy{broken.file_name[-4:]}")
    shutil.copy((xmls / healthy.file_name).with_suffix(".xml"), xmls / "copy.xml")
    cut = drawn[1].records[-1].file_name
    (images / cut).write_bytes((images / cut).read_bytes()[:-50])
    other = next(r for r in drawn[1] if r.fractured and r.file_name not in (broken.file_name, cut))
    path = (xmls / other.file_name).with_suffix(".xml")
    path.write_text(path.read_text().replace("xmin", "swap").replace("xmax", "xmin").replace("swap", "xmax"))
    return folder, broken.file_name, cut, other.file_name


def test_damage_is_listed_and_the_rest_goes_on(damaged, tmp_path):
    folder, broken, cut, reversed_box = damaged
    assert run(folder, tmp_path / "out") == 0
    problems = {(p.kind, p.action): p for p in read_problems(tmp_path / "out" / "problems.csv")}
    assert problems["truncated_image", "excluded"].file == cut
    assert problems["box_reversed", "excluded"].file == reversed_box
    assert broken in problems["identical_files", "kept"].file + problems["identical_files", "kept"].detail
    assert problems["opposite_labels", "kept"].file == broken
    groups = {r.file_name: r.group_id for part in splits_in(tmp_path / "out").values() for r in part}
    assert groups[broken] == groups[f"copy{broken[-4:]}"]
    assert cut not in groups
    assert reversed_box not in groups


def test_a_changed_file_is_noticed_against_its_split_json(damaged, prepared, tmp_path):
    folder, _, cut, _ = damaged
    assert run(folder, tmp_path / "out", "--split-from", prepared / "split.json", "--drop-leaks") == 0
    found = [p.file for p in read_problems(tmp_path / "out" / "problems.csv") if p.kind == "changed_file"]
    assert found == [cut]


def test_strict_lists_what_is_left_out_and_writes_no_split(damaged, tmp_path, capsys):
    folder, _, cut, reversed_box = damaged
    assert run(folder, tmp_path / "out", "--strict") == 1
    said = capsys.readouterr().err
    assert f"{cut}: truncated_image" in said
    assert f"{reversed_box}: box_reversed" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["problems.csv"]


def test_repairs_are_made_on_request_and_counted(damaged, tmp_path, capsys):
    folder, _, _, reversed_box = damaged
    assert run(folder, tmp_path / "out", "--repair", "swap", "clip") == 0
    assert "box_reversed (repaired)" in capsys.readouterr().out
    used = {r.file_name for part in splits_in(tmp_path / "out").values() for r in part}
    assert reversed_box in used


@pytest.mark.parametrize("fmt", ["yolo", "coco"])
def test_the_other_formats_give_the_same_split(drawn, prepared, tmp_path, fmt):
    target = tmp_path / ("labels.json" if fmt == "coco" else "labels")
    write_annotations(drawn[1], target, fmt)
    more = [*with_metadata(drawn[0]), "--seed", 3, "--format", fmt]
    assert run(drawn[0], tmp_path / "out", *more, annotations=target) == 0
    for split, part in splits_in(tmp_path / "out").items():
        expected = read_coco(prepared / f"{split}.json")
        assert [r.file_name for r in part] == [r.file_name for r in expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class-map", "angle"], "class map angle=: expected one of the classes fracture"),
        (["--class-map", "a=fracture:spiral", "a=fracture"], "class map a=fracture: a is fracture:spiral already"),
        (["--group-column", "patient"], "group column: needs a metadata table"),
        (["--fractions", "0", "0", "0"], "fractions: expected three numbers"),
        (["--format", "coco"], "annotations: no .json file in this folder or below; there are 60 .xml files"),
        (["--format", "yolo", "--yolo-names", "fracture"], "60 .xml files (--format voc"),
        (["--split-from", "/nowhere.csv"], "--split-from /nowhere.csv: cannot be read: No such file"),
        (["--metadata", "/nowhere.csv"], "--metadata /nowhere.csv: cannot be read: No such file"),
        (["--neighbours", "-1"], "neighbours: expected 0 or more"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(drawn, tmp_path, capsys, arguments, message):
    assert run(drawn[0], tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_an_empty_folder_says_so(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    assert run(tmp_path, tmp_path / "out") == 2
    assert "no image file" in capsys.readouterr().err


def test_a_set_without_fractures_has_a_report_too(tmp_path):
    build_dataset(tmp_path, n_fractured=0, n_healthy=4, seed=1, size=(64, 64))
    assert run(tmp_path, tmp_path / "out", "--neighbours", 0, "--fractions", 1, 1, 1) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "0 boxes: too few to fit anchors to" in text
    assert "One of the two labels is absent" in text


def test_help_teaches_every_repair(capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in ("clip", "swap", "rescale", "turn", "--drop-leaks", "problems.csv"):
        assert word in text


def test_problems_csv_has_one_row_per_finding(damaged, tmp_path):
    run(damaged[0], tmp_path / "out")
    with (tmp_path / "out" / "problems.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"file", "kind", "detail", "action"}
    assert Counter(row["kind"] for row in rows)["truncated_image"] == 1


@pytest.mark.parametrize("split", ["test", "val", "none"])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(drawn, tmp_path, capsys, split):
    names = [record.file_name for record in drawn[1]]
    (tmp_path / "s.csv").write_text("\n".join(["file_name,split", *(f"{name},{split}" for name in names)]))
    out = tmp_path / "out"
    assert run(drawn[0], out, "--split-from", tmp_path / "s.csv", "--neighbours", 0) == 2
    assert "train would be empty" in capsys.readouterr().err
    assert not (out / "train.json").exists()
    assert run(drawn[0], out, "--split-from", tmp_path / "s.csv", "--neighbours", 0, "--allow-empty-split") == 0


def test_a_split_of_other_images_is_refused(drawn, tmp_path, capsys):
    (tmp_path / "s.csv").write_text("file_name,split\nother.png,train\n")
    assert run(drawn[0], tmp_path / "out", "--split-from", tmp_path / "s.csv") == 2
    assert "it names none of the 60 images" in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("--missing-xml-is-healthy",), ("--strict",)])
def test_names_that_are_not_utf8_are_listed(drawn, tmp_path, capsys, more):
    folder = tmp_path / "data"
    shutil.copytree(drawn[0], folder)
    images, annotations = folder / "images", folder / "annotations"
    first, second = (record.file_name for record in list(drawn[1])[:2])
    (images / first).rename(images / os.fsdecode(b"hand_\xff.jpg"))
    (annotations / first).with_suffix(".xml").rename(annotations / os.fsdecode(b"hand_\xff.xml"))
    (images / os.fsdecode(b"\xe9")).mkdir()
    (images / second).rename(images / os.fsdecode(b"\xe9") / second)
    for name in (b"n\xf6te.txt", b".h\xefdden"):
        (annotations / os.fsdecode(name)).write_text("nothing")
    assert run(folder, tmp_path / "out", *more) == (1 if "--strict" in more else 0)
    kinds = {problem.file: (problem.kind, problem.action) for problem in read_problems(tmp_path / "out/problems.csv")}
    assert kinds == {
        r"hand_\xff.jpg": ("name_not_utf8", "excluded"),
        rf"\xe9/{second}": ("name_not_utf8", "excluded"),
        r"hand_\xff.xml": ("image_not_read", "excluded"),
        str(Path(second).with_suffix(".xml")): ("image_not_read", "excluded"),
        r"n\xf6te.txt": ("other_file", "kept"),
        r".h\xefdden": ("hidden_file", "kept"),
    }
    printed = "".join(capsys.readouterr())
    assert "122 files found = 58 images used + 58 annotation files used + 6 listed" in printed


FRACTURED, HEALTHY = ("Fractured", "study1_positive", "ABNORMAL"), ("Non_fractured", "negative", "unfractured", "wrist")


def without_annotation(drawn, folder, places):
    """Move images to other folders, without their annotations; return their new names."""
    shutil.copytree(drawn[0], folder)
    moved = []
    for place, record in zip(places, drawn[1], strict=False):
        (folder / "images" / place).mkdir(parents=True, exist_ok=True)
        (folder / "images" / record.file_name).rename(folder / "images" / place / record.file_name)
        (folder / "annotations" / record.file_name).with_suffix(".xml").unlink()
        moved.append(f"{place}/{record.file_name}")
    return moved


def test_an_image_in_a_folder_of_fractured_ones_is_not_healthy(drawn, tmp_path):
    moved = without_annotation(drawn, tmp_path / "data", (*FRACTURED, *HEALTHY))
    assert run(tmp_path / "data", tmp_path / "out", "--missing-xml-is-healthy", "--neighbours", 0) == 0
    found = {p.file: p for p in read_problems(tmp_path / "out/problems.csv") if p.file in moved}
    kinds = {name.split("/")[0]: problem.kind for name, problem in found.items()}
    assert kinds == dict.fromkeys(FRACTURED, "called_fractured") | dict.fromkeys(HEALTHY, "assumed_healthy")
    assert found[moved[1]].detail == "not taken as healthy: it lies in study1_positive"
    used = {record.file_name for part in splits_in(tmp_path / "out").values() for record in part}
    assert used & set(moved) == set(moved[3:])


@pytest.mark.parametrize(
    ("column", "bad", "good"),
    [
        ("fractured", "1", "0"),
        ("fracture_count", "2", "0"),
        ("Label", "Fracture", "no fracture"),
        ("healthy", "0", "1"),
        ("diagnosis", "distal radius fracture", "normal"),
        ("is_abnormal", "True", "False"),
    ],
)
def test_an_image_that_the_table_calls_fractured_is_not_healthy(drawn, tmp_path, column, bad, good):
    first, second = without_annotation(drawn, tmp_path / "data", ("a", "a"))
    table = tmp_path / "data" / "images" / "table.csv"  # it names every image, and is no annotation
    rows = [(record.file_name, good) for record in drawn[1]]
    rows[0] = (rows[0][0], bad)
    table.write_text("\n".join([f"file_name,{column}", *(",".join(row) for row in rows)]))
    given = ["--missing-xml-is-healthy", "--neighbours", 0, "--metadata", table]
    assert run(tmp_path / "data", tmp_path / "out", *given) == 0
    found = {p.file: (p.kind, p.detail) for p in read_problems(tmp_path / "out/problems.csv") if p.kind != "other_file"}
    assert found[first] == ("called_fractured", f"not taken as healthy: column {column} says {bad} in table.csv")
    assert found[second][0] == "assumed_healthy"


def test_a_row_that_is_not_used_still_calls_its_images_fractured(drawn, tmp_path):
    (first,) = without_annotation(drawn, tmp_path / "data", ("a",))
    rows = [f"{record.file_name},0" for record in drawn[1]] + [f"{Path(first).stem},1"]
    (tmp_path / "t.csv").write_text("\n".join(["file_name,fractured", *rows]))
    assert run(tmp_path / "data", tmp_path / "out", "--missing-xml-is-healthy", "--metadata", tmp_path / "t.csv") == 0
    kinds = {problem.kind for problem in read_problems(tmp_path / "out/problems.csv") if problem.file == first}
    assert kinds == {"metadata_twice", "called_fractured"}


def test_an_annotation_without_a_box_of_an_image_that_is_called_fractured_is_reported(drawn, tmp_path):
    rows = [f"{record.file_name},1" for record in drawn[1]]
    (tmp_path / "t.csv").write_text("\n".join(["file_name,fractured", *rows]))
    assert run(drawn[0], tmp_path / "out", "--metadata", tmp_path / "t.csv") == 0
    found = [p for p in read_problems(tmp_path / "out/problems.csv") if p.kind == "called_fractured"]
    assert len(found) == 30
    assert {p.action for p in found} == {"kept"}


@pytest.mark.parametrize("near", [False, True])
def test_the_copy_of_an_image_that_is_left_out_is_not_healthy(drawn, tmp_path, near):
    folder = tmp_path / "data"
    shutil.copytree(drawn[0], folder)
    first = next(record for record in drawn[1] if record.fractured and record.file_name.endswith("png"))
    copy = folder / "images" / "another.png"
    if near:
        pixels = matplotlib.image.imread(folder / "images" / first.file_name)
        matplotlib.image.imsave(copy, pixels // (2 / 255) * (2 / 255))
    else:
        shutil.copy(folder / "images" / first.file_name, copy)
    label = (folder / "annotations" / first.file_name).with_suffix(".xml")
    label.write_text(label.read_text().replace("<xmax>", "<xmax>9"))
    assert run(folder, tmp_path / "out", "--missing-xml-is-healthy") == 0
    found = {p.file: (p.kind, p.detail) for p in read_problems(tmp_path / "out/problems.csv") if p.action == "excluded"}
    assert found[first.file_name][0] == "box_outside"
    alike = "looks like" if near else "has the same bytes as"
    expected = f"not taken as healthy: {alike} {first.file_name}, which is left out (box_outside)"
    assert found["another.png"] == ("possibly_annotated", expected)


def test_the_output_of_an_earlier_run_is_no_input(drawn, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(drawn[0], folder)
    for out in (folder / "images" / "out", folder / "annotations" / "out", folder / "annotations"):
        for _ in range(2):
            assert run(folder, out, "--missing-xml-is-healthy") == 0
            printed = capsys.readouterr().out
            assert "120 files found = 60 images used + 60 annotation files used + 0 listed" in printed
        for name in OUTPUT_FILES:
            (out / name).unlink()


def test_input_is_not_replaced(drawn, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(drawn[0], folder)
    assert run(folder, tmp_path / "first") == 0
    for name in ("train.json", "val.json"):
        shutil.copy(tmp_path / "first" / name, folder / name)
    before = (folder / "train.json").read_bytes()
    assert run(folder, folder, annotations=folder / "train.json") == 2
    assert "would replace train.json, which is" in capsys.readouterr().err
    assert run(folder, folder, "--format", "coco", annotations=folder) == 2
    assert "would replace train.json, which lies in" in capsys.readouterr().err
    assert run(folder, tmp_path / "first", annotations=tmp_path / "first" / "train.json") == 2
    assert (folder / "train.json").read_bytes() == before


def test_an_export_beside_the_one_that_is_read_is_no_absence(drawn, tmp_path):
    assert run(drawn[0], tmp_path / "first", "--fractions", ".5", ".5", "0") == 0
    out = tmp_path / "second"
    given = ["--missing-xml-is-healthy", "--allow-empty-split"]
    (tmp_path / "coco").mkdir()
    for name in ("train.json", "val.json"):
        shutil.copy(tmp_path / "first" / name, tmp_path / "coco" / name)
    assert run(drawn[0], out, *given, annotations=tmp_path / "coco" / "train.json") == 0
    val = {record.file_name for record in read_coco(tmp_path / "coco" / "val.json")}
    doubted = {p.file: p.detail for p in read_problems(out / "problems.csv") if p.kind == "possibly_annotated"}
    assert set(doubted) == val
    assert "val.json, beside train.json, names it" in next(iter(doubted.values()))


def test_where_only_healthy_images_are_left_because_the_others_cannot_be_read(drawn, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(drawn[0], folder)
    for path in (folder / "annotations").iterdir():
        path.write_text(path.read_text().replace("bndbox", "place"))
    assert run(folder, tmp_path / "out") == 2
    said = "no image with a box is left, and 30 annotations cannot be used: 30 unreadable_annotation"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("more", [("--class-map", "fracture=other", "--classes", "other", "x"), ("--strict",)])
def test_splits_of_an_earlier_run_are_named_where_this_one_writes_none(drawn, tmp_path, capsys, more):
    folder = tmp_path / "data"
    shutil.copytree(drawn[0], folder)
    assert run(folder, tmp_path / "out") == 0
    next((folder / "annotations").glob("*.xml")).write_text("<annotation>")
    given = ["--fractions", "0", "0", "0"] if "--strict" not in more else []
    assert run(folder, tmp_path / "out", *more, *given) == 2
    assert f"train.json, val.json, test.json in {tmp_path / 'out'} are not of this run" in capsys.readouterr().err


def test_a_folder_of_images_that_are_not_read_says_what_they_are(drawn, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / os.fsdecode(b"hand_\xff.png")).touch()
    (images / "hand.gif").touch()
    given = ["--images", images, "--annotations", drawn[0] / "annotations", "--out", tmp_path / "out"]
    assert main([*map(str, given), "--workers", "1"]) == 2
    assert "in this folder or below; 1 kind_not_read; 1 name_not_utf8" in capsys.readouterr().err


def copy_of(drawn, folder, *, fractured, healthy):
    """Return a folder with the first images, and their annotations, of either label."""
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    for state, n in ((True, fractured), (False, healthy)):
        for record in [record for record in drawn[1] if record.fractured is state][:n]:
            shutil.copy(drawn[0] / "images" / record.file_name, folder / "images")
            shutil.copy((drawn[0] / "annotations" / record.file_name).with_suffix(".xml"), folder / "annotations")
    return folder


def add_orphans(folder, n):
    """Add annotations of images that are not there."""
    xml = next((folder / "annotations").iterdir()).read_text()
    for k in range(n):
        (folder / "annotations" / f"gone_{k}.xml").write_text(xml)


@pytest.mark.parametrize("strict", [False, True])
def test_a_refusal_says_what_was_found_and_the_worst_status_wins(drawn, tmp_path, capsys, strict):
    folder = copy_of(drawn, tmp_path / "data", fractured=1, healthy=0)
    add_orphans(folder, 3)
    assert run(folder, tmp_path / "out", "--neighbours", 0, *["--strict"] * strict) == 2
    said = capsys.readouterr().err
    assert "      3  annotation_without_image (excluded)" in said
    assert "5 files found = 1 image" in said
    assert f"see {tmp_path / 'out' / 'problems.csv'}" in said
    assert "prepare: val and test would be empty: 1 image can be used (1 train, 0 val, 0 test)" in said
    assert ("gone_0.xml: annotation_without_image: " in said) is strict
    assert {p.file for p in read_problems(tmp_path / "out" / "problems.csv")} == {f"gone_{k}.xml" for k in range(3)}


def test_what_is_left_where_nothing_is_usable_is_counted_too(drawn, tmp_path, capsys):
    folder = copy_of(drawn, tmp_path / "data", fractured=2, healthy=3)
    assert run(folder, tmp_path / "out", "--classes", "other") == 2
    said = capsys.readouterr().err
    assert "      3  unknown_class (excluded)" in said
    assert "10 files found = 3 images used + 3 annotation files used + 4 listed" in said
    assert "no image with a box can be used, of " in said


def test_a_leak_and_a_wrong_split_file_say_what_was_found(drawn, tmp_path, capsys):
    folder = copy_of(drawn, tmp_path / "data", fractured=4, healthy=4)
    add_orphans(folder, 1)
    names = sorted(path.name for path in (folder / "images").iterdir())
    given = [*with_metadata(drawn[0]), "--split-from", tmp_path / "s.csv"]
    (tmp_path / "s.csv").write_text(f"file_name,split\n{names[0]},test\n{names[1]},train\nnobody.png,train\n")
    assert run(folder, tmp_path / "out", *given) == 2
    said = capsys.readouterr().err
    assert "1  annotation_without_image (excluded)" in said
    assert "1  split_without_image (kept)" in said
    assert "1 group lies in more than one split" in said
    (tmp_path / "s.csv").write_text("file_name,split\nnobody.png,train\n")
    assert run(folder, tmp_path / "out", *given) == 2
    said = capsys.readouterr().err
    assert "17 files found = 8 images used + 8 annotation files used + 1 listed" in said
    assert "--split-from" in said


@pytest.mark.parametrize(("neighbours", "helps"), [(0, False), (10, False), (1000, True)])
def test_advice_is_given_only_where_it_can_help(drawn, tmp_path, capsys, neighbours, helps):
    folder = copy_of(drawn, tmp_path / "data", fractured=1, healthy=3 * helps)
    assert run(folder, tmp_path / "out", "--neighbours", neighbours) == 2
    said = capsys.readouterr().err
    assert ("smaller groups (--neighbours 0)" in said) is helps
    assert "Give more images, --fractions (0 for a split that is to be empty)" in said
    assert "or --allow-empty-split" in said


def test_fractions_are_no_advice_where_the_split_is_named(drawn, tmp_path, capsys):
    folder = copy_of(drawn, tmp_path / "data", fractured=4, healthy=4)
    names = sorted(path.name for path in (folder / "images").iterdir())
    rows = [*(f"{name},train" for name in names[1:]), f"{names[0]},test"]
    (tmp_path / "s.csv").write_text("file_name,split\n" + "\n".join(rows))
    (folder / "annotations" / names[0]).with_suffix(".xml").unlink()
    assert run(folder, tmp_path / "out", "--split-from", tmp_path / "s.csv", "--neighbours", 0) == 2
    assert "test would be empty: 7 images can be used (7 train, 0 val, 0 test). Give more images or --allow" in (
        capsys.readouterr().err
    )
