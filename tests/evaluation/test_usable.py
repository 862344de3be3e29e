"""tools/eval.py and tools/compare.py refuse what nothing can be said of, with a sentence, and write no report."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.test_eval_tool import load_tool

FAILS = "no such file"


def truth(images, boxes, *, crowd=0) -> str:
    entries = [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in images]
    marks = [
        {"id": k, "image_id": i, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": crowd}
        for k, i in enumerate(boxes, 1)
    ]
    return json.dumps({"images": entries, "annotations": marks, "categories": [{"id": 1, "name": "fracture"}]})


def predictions(images, failed=(), name="one") -> str:
    header = {"format": "fracture_det predictions", "version": 1, "class_names": ["fracture"], "detector": name}
    box = {"box_xyxy_px": [10, 10, 30, 30], "score": 0.9, "label": "fracture"}
    found = {"height": 100, "width": 100, "detections": [box]}
    lines = [{"file_name": f"{i}.png", **({"error": FAILS} if i in failed else found)} for i in images]
    return "\n".join(map(json.dumps, [header, *lines]))


CASES = {
    "no image": (truth([], []), [], (), "no image to evaluate on"),
    "no box": (truth([1, 2], []), [1, 2], (), "none of 2 images has a truth box, so"),
    "crowds": (truth([1, 2], [1], crowd=1), [1, 2], (), "has a truth box (1 have regions marked iscrowd"),
    "all failed": (truth([1, 2], [1]), [1, 2], (1, 2), "each of 2 images failed, so that nothing"),
    "every fractured one failed": (truth([1, 2], [1]), [1, 2], (1,), "the only image with a truth box failed"),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    data, images, failed, words = CASES[request.param]
    (tmp_path / "test.json").write_text(data)
    (tmp_path / "one.jsonl").write_text(predictions(images, failed))
    (tmp_path / "two.jsonl").write_text(predictions(images, (), "two"))
    return tmp_path, words


def test_eval_refuses(case, capsys):
    folder, words = case
    given = ["--data", folder / "test.json", "--predictions", folder / "one.jsonl", "--out", folder / "out"]
    assert load_tool("eval").main([*map(str, given), "--bootstrap", "20"]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert "test.json" in printed.err
    assert not printed.out
    assert not list((folder / "out").glob("report*"))


@pytest.mark.parametrize("runs", [("one", "two"), ("two", "one")])
def test_compare_refuses(case, capsys, runs):
    folder, words = case
    given = [
        "--data",
        folder / "test.json",
        "--out",
        folder / "out",
        "--runs",
        *(folder / f"{run}.jsonl" for run in runs),
    ]
    assert load_tool("compare").main([*map(str, given), "--bootstrap", "20"]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert not printed.out
    assert not (folder / "out").exists()


def test_compare_refuses_where_no_image_was_predicted_by_both(tmp_path, capsys):
    (tmp_path / "test.json").write_text(truth([1, 2], [1, 2]))
    (tmp_path / "one.jsonl").write_text(predictions([1, 2], (1,)))
    (tmp_path / "two.jsonl").write_text(predictions([1, 2], (2,), "two"))
    given = ["--data", tmp_path / "test.json", "--out", tmp_path / "out"]
    given += ["--runs", tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    assert load_tool("compare").main([*map(str, given), "--bootstrap", "20"]) == 2
    assert (
        f"each of 2 images failed, so that nothing can be evaluated; first 1.png: {FAILS} (one)"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("case", ["no image", "no box", "all failed"], indirect=True)
def test_validation_data_are_held_to_the_same(case, capsys):
    folder, words = case
    (folder / "test.json").rename(folder / "val.json")
    (folder / "test.json").write_text(truth([8, 9], [8]))
    (folder / "eval.jsonl").write_text(predictions([8, 9]))
    given = ["--data", folder / "test.json", "--predictions", folder / "eval.jsonl", "--out", folder / "out"]
    given += ["--val", folder / "val.json", "--val-predictions", folder / "one.jsonl"]
    assert load_tool("eval").main([*map(str, given), "--bootstrap", "20"]) == 2
    assert words in capsys.readouterr().err
