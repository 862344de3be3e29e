"""The paper's comparison made again: what is trained, what is done only once, and what is said of the results."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fracture_det.baselines.reproduction.inputs import PLAN_FILE
from fracture_det.baselines.reproduction.progress import Steps
from fracture_det.baselines.reproduction.results import _hours, _points
from fracture_det.baselines.reproduction.run import _iterations, reproduce
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


@pytest.fixture
def prepared(tmp_path):
    """Options of a reproduction in "an out" on three empty splits in "some data"."""
    data = tmp_path / "some data"
    (data / "images").mkdir(parents=True)
    for name in ("train", "val", "test"):
        (data / f"{name}.json").write_text("{}")
    return options(tmp_path / "an out", data=data, images=data / "images", models=("faster_rcnn",))


def broken_off(changes):
    """Let a reproduction fail at its first training, after it has written its plan."""
    with pytest.raises(ReproductionError, match="nothing to compare with: train_faster"):
        reproduce(changes, say=lambda text: None)


def test_trainings_need_another_folder_for_another_plan(prepared):
    broken_off(prepared)
    other = replace(prepared, budget=Budget(epochs=3), overrides=("SOLVER.BASE_LR", ".1"))
    broken_off(other)  # nothing was trained yet
    (prepared.out / "runs").mkdir()
    with pytest.raises(ReproductionError, match=r"holds a reproduction of budget '3 epochs', not 'the length.*changes"):
        reproduce(prepared)
    assert prepared.data is not None
    (prepared.data / "test.json").write_text("{ }")
    with pytest.raises(ReproductionError, match="holds a reproduction of splits"):
        reproduce(other)


def test_a_broken_plan_is_named(prepared):
    (prepared.out / "runs").mkdir(parents=True)
    (prepared.out / PLAN_FILE).write_text("{")
    with pytest.raises(ReproductionError, match=r"plan\.json: broken"):
        reproduce(prepared)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": Path("missing")}, "--data: missing: no such folder"),
        ({"images": None}, "--images: name the folder of the images of .*some data"),
        ({"images": Path("missing")}, "--images: missing: no such folder"),
        ({"prepare": "--seed 2"}, "--prepare '--seed 2' would have no effect: --data .*some data is prepared already"),
        ({"prepare": "--class-map 'a=b"}, '--prepare: No closing quotation: "--class-map \'a=b"'),
        ({"overrides": ("SOLVER.BASE_LR",)}, "overrides come as KEY VALUE pairs, got SOLVER.BASE_LR"),
        ({"other_tests": ("missing.json@.",)}, "--other-test missing.json@.: missing.json: no such file"),
        ({"quick": True, "data": None}, "--images .* would have no effect: --quick draws"),
    ],
)
def test_wrong_inputs_are_named_before_anything_runs(prepared, changes, message):
    with pytest.raises(ReproductionError, match=message):
        reproduce(replace(prepared, **changes))
    assert not prepared.out.exists()


def test_missing_splits_and_folders_are_named(prepared):
    assert prepared.data is not None
    (prepared.data / "val.json").unlink()
    with pytest.raises(ReproductionError, match=r"--data .*some data: val\.json is missing"):
        reproduce(prepared)
    for name in ("train", "test"):
        (prepared.data / f"{name}.json").unlink()
    with pytest.raises(
        ReproductionError, match=r"expected train\.json, val\.json, test\.json, or the folder annotations/"
    ):
        reproduce(prepared)


def test_two_processes_do_not_work_in_one_folder(prepared):
    prepared.out.mkdir()
    with (prepared.out / PLAN_FILE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ReproductionError, match="another process is at work there"):
            reproduce(prepared)


def test_a_step_keeps_the_lock_of_a_process_that_was_killed(tmp_path, monkeypatch):
    """What a step's process does is replaced: it waits until its lock was looked at."""
    go_on = tmp_path / "go_on"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(.05)"
    started = []

    def wait(self, process, name, training):
        started.append(process)
        raise KeyboardInterrupt  # as if this process were gone

    monkeypatch.setattr(Steps, "_wait", wait)
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kept: popen([sys.executable, "-c", waits], **kept))
    with (tmp_path / PLAN_FILE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(KeyboardInterrupt):
            Steps(tmp_path, 1, say=lambda text: None, lock=file.fileno()).run("step", ["train"])
    try:
        with (tmp_path / PLAN_FILE).open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        go_on.touch()
    assert started[0].wait() == 0
    with (tmp_path / PLAN_FILE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_second_seed_without_timing_fails_alone(tmp_path):
    runs = plan(read_study(), options(seeds=2, models=("faster_rcnn", "detr")))
    steps = Steps(tmp_path, 1, say=lambda text: None)
    with pytest.raises(ReproductionError, match="detr_seed2: its iterations are unknown, since the timing of seed 1"):
        _iterations(runs[3], Budget(hours=1), options(tmp_path), read_study(), steps, (Path("data"), Path("images")))


def test_the_tool_says_what_is_wrong(tmp_path, capsys):
    assert tool.main(["--out", str(tmp_path), "--data", str(tmp_path), "--budget", "long"]) == 2
    assert "reproduce: --budget: expected epochs" in capsys.readouterr().err


def test_a_step_that_succeeded_is_not_run_again_unless_it_changes(tmp_path):
    said: list[str] = []
    for arguments in (["prepare", "--help"], ["prepare", "--help"], ["train", "--help"]):
        Steps(tmp_path, 1, say=said.append).run("step", arguments)
    assert said == ["[1/1] step", "[1/1] step: was done before", "[1/1] step"]
    assert "usage: fracture-det train" in (tmp_path / "logs" / "step.log").read_text()


def test_a_training_whose_folder_is_gone_is_done_again_and_so_is_its_evaluation(tmp_path):
    said: list[str] = []
    training = tmp_path / "runs" / "a_seed1"

    def run_both():
        steps = Steps(tmp_path, 2, say=said.append)
        steps.run("train_a_seed1", ["train", "--help"], training=training, makes_stale=("eval_a_seed1",))
        training.mkdir(parents=True, exist_ok=True)
        (training / "metrics.json").touch()
        steps.run("eval_a_seed1", ["eval", "--help"])
        steps.run("eval_a_seed11", ["eval", "--help"])

    run_both()
    run_both()
    assert said[3:] == [
        f"[{n}/2] {name}: was done before"
        for n, name in ((1, "train_a_seed1"), (2, "eval_a_seed1"), (3, "eval_a_seed11"))
    ]
    shutil.rmtree(training)
    run_both()
    assert said[6:] == ["[1/2] train_a_seed1", "[2/2] eval_a_seed1", "[3/2] eval_a_seed11: was done before"]


def test_the_time_left_is_not_reckoned_from_short_timings():
    steps = Steps(Path("out"), 9, say=lambda text: None)
    steps._took = {"timing": [10.0]}
    steps._current = ("train", time.monotonic() - 3000)
    steps.remaining = {"timing": 1, "train": 1, "eval": 0}
    # 600 s of this one, 10 s of timing, and 3,600 s of the other training.
    assert steps._left_of_all(600.0) == "about 1:10:10 of all"
    steps.remaining["eval"] = 2
    assert steps._left_of_all(600.0) == "at least 1:10:10 of all"


def test_a_failing_step_quotes_the_end_of_its_log_and_is_tried_again(tmp_path):
    steps = Steps(tmp_path, 2, say=lambda text: None)
    for _ in range(2):
        with pytest.raises(ReproductionError, match=r"step: failed with exit code 2; .*step\.log: .*--images"):
            steps.run("step", ["prepare"])
    assert not (tmp_path / "steps" / "step.txt").exists()


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
