"""Making the paper's comparison again: what is checked before, what is done only once, and how long it takes."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fracture_det.baselines.reproduction.inputs import PLAN_FILE
from fracture_det.baselines.reproduction.progress import Steps
from fracture_det.baselines.reproduction.run import _iterations, reproduce
from fracture_det.baselines.reproduction.study import Budget, ReproductionError, plan, read_study
from tests.baselines.test_reproduction import options


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
