"""The paper's comparison made again: what is trained, and what is said of the results."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fracture_det.baselines.reproduction.results import _hours, _points
from fracture_det.baselines.reproduction.study import (
    Budget,
    ReproductionError,
    ReproductionOptions,
    length_keys,
    plan,
    read_study,
)
from fracture_det.evaluation.comparison import Difference
from fracture_det.evaluation.report import Estimate
from fracture_det.modeling.config import load_config
from fracture_det.reporting.reproduction import (
    ABLATION,
    MODEL,
    BodyPart,
    Reproduction,
    TrainedModel,
    agreement,
)
from fracture_det.reporting.reproduction_page import write_reproduction
from fracture_det.resources import find_config
from tests.paths import ROOT
from tools import reproduce as tool


def options(out=Path("out"), **changes):
    return ReproductionOptions(out=out, **{"data": Path("data"), "form": "small", **changes})


# The text of --budget, and the keys that it sets; hours come to 1,200 iterations here.
BUDGETS = [
    ("12ep", None, ["SOLVER.EPOCHS", "12", "SOLVER.STEP_EPOCHS", "(8.0,11.0)"]),
    ("6ep", None, ["SOLVER.EPOCHS", "6", "SOLVER.STEP_EPOCHS", "(4.0,5.5)"]),
    ("3", 1200, ["SOLVER.EPOCHS", "0", "SOLVER.MAX_ITER", "1200", "SOLVER.STEPS", "(800,1100)"]),
    (".5h", 1200, ["SOLVER.EPOCHS", "0", "SOLVER.MAX_ITER", "1200", "SOLVER.STEPS", "(800,1100)"]),
]


@pytest.mark.parametrize(("text", "iterations", "keys"), BUDGETS)
def test_a_budget_sets_the_length_of_a_training_and_its_steps(text, iterations, keys):
    assert list(length_keys(Budget.parse(text), iterations)) == keys
    cfg = load_config(find_config(read_study().models[0].full), ["MODEL.DEVICE", "cpu", *keys])
    assert float(cfg.SOLVER.EPOCHS) == (Budget.parse(text).epochs or 0)


@pytest.mark.parametrize("text", ["0", "0ep", "-1", "ten", "1.5ep", "inf", ""])
def test_an_impossible_budget_is_refused(text):
    with pytest.raises(ReproductionError, match=f"--budget: expected epochs such as 12ep, or hours.* got {text!r}"):
        Budget.parse(text)


def test_every_model_is_trained_once_before_any_is_trained_again():
    runs = plan(read_study(), options(seeds=2, models=("detr", "faster_rcnn")))
    assert [run.name for run in runs] == ["faster_rcnn_seed1", "detr_seed1", "faster_rcnn_seed2", "detr_seed2"]
    everything = plan(read_study(), options())
    assert len(everything) == len(read_study().models) + len(read_study().ablations)


def test_the_reference_must_be_trained_and_unknown_models_are_named():
    with pytest.raises(ReproductionError, match="faster_rcnn must be one"):
        plan(read_study(), options(models=("detr",)))
    with pytest.raises(ReproductionError, match=r"--models: expected some of .*, got ssd"):
        plan(read_study(), options(models=("faster_rcnn", "ssd")))


@pytest.mark.parametrize("form", ["full", "small"])
def test_the_configurations_of_the_study_can_be_loaded_and_share_data_and_augmentation(form):
    study = read_study()
    loaded = [load_config(find_config(getattr(model, form)), ["MODEL.DEVICE", "cpu"]) for model in study.all]
    first = loaded[0]
    for model, cfg in zip(study.all, loaded, strict=True):
        assert cfg.INPUT.LETTERBOX == 800, model.name
        assert first.INPUT == cfg.INPUT, model.name
        assert first.DATALOADER == cfg.DATALOADER, model.name
        for key in ("IMS_PER_BATCH", "EPOCHS", "EMA_DECAY"):
            assert cfg.SOLVER[key] == first.SOLVER[key], model.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "--data: name the radiographs"),
        ({"quick": True}, "--quick draws its own radiographs"),
        ({"seeds": 0}, "--seeds: expected at least 1, got 0"),
        ({"other_tests": ("test.json",)}, "--other-test: expected TEST.json@IMAGES, got 'test.json'"),
    ],
)
def test_contradicting_options_are_refused(changes, message):
    with pytest.raises(ReproductionError, match=message):
        options(**changes)


def test_the_tool_says_what_is_wrong(tmp_path, capsys):
    assert tool.main(["--out", str(tmp_path), "--data", str(tmp_path), "--budget", "long"]) == 2
    assert "reproduce: --budget: expected epochs" in capsys.readouterr().err


def test_of_two_lines_of_one_iteration_the_later_counts_and_hours_are_not_counted_twice():
    # 20 iterations of 9 s; then a kill, and 20 again of 18 s up to iteration 40: 20 x 9 + 20 x 18 = 540 s.
    history = [
        {"iteration": 19, "total_loss": 3.0, "time": 9.0},
        {"iteration": 19, "total_loss": 2.0, "time": 9.0},
        {"iteration": 39, "total_loss": 1.0, "time": 18.0},
        {"iteration": 40, "validation_loss": float("nan"), "bbox/AP50": 7.0},
    ]
    assert _points(history, "total_loss") == [(20.0, 2.0), (40.0, 1.0)]
    assert _points(history, "validation_loss") == []
    assert _points(history, "bbox/AP50", last=40) == [(40.0, 7.0)]
    assert _hours(history) == pytest.approx(540 / 3600)


def model(name, ap50, paper, *, kind=MODEL, difference=None):
    figures = dict.fromkeys(("precision", "recall", "AUROC", "FROC@1"), Estimate(0.5, 0.4, 0.6, n=82))
    differences = {} if difference is None else dict.fromkeys(("AP50", "AUROC", "FROC@1"), difference)
    return TrainedModel(
        name=name,
        title=name.upper(),
        kind=kind,
        detector=f"{name} 12345678",
        report=f"reports/{name}/report.html",
        rule="youden",
        score=0.31,
        figures={**figures, "AP50": Estimate(ap50, ap50 - 0.05, ap50 + 0.05, n=96)},
        fps=Estimate(8.25, 8.0, 8.5),
        paper={} if paper is None else {"AP50": paper, "precision": 0.9, "recall": 0.8, "fps": 8.0},
        differences=differences,
        ap50_by_seed=[ap50],
        iterations=1200,
        hours=3.0,
        body_parts=[BodyPart("hand", 20, 12, {"AP50": Estimate(0.4, 0.2, 0.6, n=12)})],
        pr={"recall": [0.0, 0.5, 1.0], "precision": [1.0, 0.7, 0.1]},
        training=[(20.0, 2.0), (40.0, 1.0)],
        validation=[(40.0, 1.2)],
        ap50=[(40.0, ap50)],
    )


@pytest.fixture
def result():
    """Ours .40; A .30, surely lower; B .42, surely higher; C .38, not told apart; without pretraining .25."""
    return Reproduction(
        about={"budget": "3 hours of training steps", "radiographs": "made up"},
        synthetic=False,
        counts={"images_predicted": 332, "images_fractured": 82, "images_healthy": 250, "boxes_truth": 96},
        models=[
            model("ours", 0.40, 0.873),
            model("a", 0.30, 0.768, difference=Difference(0.10, 0.02, 0.18, 0.01)),
            model("b", 0.42, 0.809, difference=Difference(-0.02, -0.03, -0.01, 0.02)),
            model("c", 0.38, 0.788, difference=Difference(0.02, -0.05, 0.09, 0.6)),
            model("scratch", 0.25, 0.714, kind=ABLATION, difference=Difference(0.15, 0.08, 0.22, 0.001)),
        ],
        paper_body_parts={"hand": {"AP50": 0.886, "precision": 0.891, "recall": 0.862}},
    )


def test_the_paragraph_follows_from_the_figures(result):
    text = " ".join(agreement(result))
    assert (
        "the paper's order is OURS .873, B .809, C .788, A .768; here it is B .420, OURS .400, C .380, A .300" in text
    )
    assert "another order" in text
    assert "A: as in the paper, AP50 is below that of OURS" in text
    assert "B: unlike in the paper, AP50 is above that of OURS" in text
    assert "C: these data cannot tell AP50 from that of OURS" in text
    # .25 - .40 = -.15, its interval turned round; .714 - .873 = -.159
    assert "SCRATCH: AP50 -.150 (-.220 to -.080; the interval excludes 0); in the paper -.159." in text
    assert "4 of 4 detectors here have an AP50 below the paper's; the paper's minus that here is +.389 to +.473" in text
    assert "drawn" not in text


def test_drawn_radiographs_are_said_to_show_nothing_about_detectors(result):
    (sentence,) = agreement(replace(result, synthetic=True))
    assert "nothing about any detector" in sentence


def test_a_difference_without_interval_or_value_is_not_interpreted(result):
    unknown = Difference(None, reason="no annotated fracture")
    models = [
        result.models[0],
        replace(result.models[1], differences={"AP50": unknown}),
        replace(result.models[2], differences={"AP50": Difference(0.1)}),
    ]
    text = " ".join(agreement(replace(result, models=models)))
    assert "A: no difference of AP50 to OURS is defined here (no annotated fracture)" in text
    assert "B: there is no interval" in text


def test_the_page_has_the_papers_figures_beside_ours_and_can_be_drawn_again(result, tmp_path):
    failed = replace(result, failures={"detr_seed1": "failed with exit code 1"})
    write_reproduction(failed, tmp_path)
    page = (tmp_path / "reproduction.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "OURS .500 (.400 to .600) n = 82 .900" in text  # precision here, and in the paper
    assert "8.2 (8 to 8.5) 8" in text
    assert "A +.100 (.020 to .180) .010 +.105" in text  # .873 - .768
    assert "hand 20 12 .400 (.200 to .600)" in text
    assert "detr_seed1 is missing: failed with exit code 1" in text
    assert page.count("<svg") == 2
    assert "src=" not in page
    assert "http-equiv" in page
    assert Reproduction.load(tmp_path) == failed
    again = tmp_path / "again"
    write_reproduction(Reproduction.load(tmp_path), again)
    assert (again / "reproduction.html").read_bytes() == (tmp_path / "reproduction.html").read_bytes()


def test_detectors_without_an_operating_point_of_the_same_rule_are_named(result, tmp_path):
    models = [
        replace(result.models[0], ap50_by_seed=[0.4, 0.41]),
        replace(result.models[1], rule="paper", score=0.5),
        replace(result.models[2], rule="fp target"),
    ]
    write_reproduction(replace(result, models=models), tmp_path)
    page = (tmp_path / "reproduction.html").read_text(encoding="utf-8")
    assert "For A validation gave no operating point: precision and recall are at the paper&#39;s .5." in page
    assert re.search(r"did not reach one rule for all.*: OURS; .*: B\.", page)
    assert "All tables and curves are of the first seed of each detector" in page


def test_a_single_detector_is_said_to_be_one(result):
    text = " ".join(agreement(replace(result, models=result.models[:1])))
    assert text.startswith("1 of 1 detector here has an AP50 below the paper's; the paper's minus that here is +.473.")


@pytest.mark.slow
def test_quick_does_the_whole_way_and_goes_on_where_it_was_stopped(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "reproduce.py"), "--quick", "--bootstrap", "50"]
    first = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    result = Reproduction.load(tmp_path)
    assert [model.name for model in result.models] == [model.name for model in read_study().all]
    assert result.synthetic
    assert all(model.fps is not None and model.fps.value > 0 for model in result.models)
    assert all(model.training and model.validation for model in result.models)
    assert {part.name for part in result.reference.body_parts} >= {"wrist", "hand"}
    again = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    steps = [line for line in again.stdout.splitlines() if line.startswith("[")]
    assert len(steps) == 1 + 2 * len(result.models)
    assert all(line.endswith(": was done before") for line in steps)
