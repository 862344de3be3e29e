"""Training: what it leaves behind, how it goes on after a kill, several processes, early stop."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import SimpleTrainer, hooks
from detectron2.utils.events import EventStorage

from fracture_det.data.coco import write_coco
from fracture_det.modeling.checkpoints import FractureCheckpointer, load_checkpoint
from fracture_det.modeling.config import load_config
from fracture_det.training.hooks import (
    TYPE_METRIC,
    BestCheckpoint,
    EarlyStopping,
    EMAHook,
    PlotCurves,
    build_ema_model,
)
from fracture_det.training.trainer import FractureTrainer, over_sources, train
from fracture_det.training.validation_metrics import validation_losses
from tests.builders import build_dataset
from tools import train_net

pytestmark = pytest.mark.usefixtures("forget_data_sets")

ROOT = Path(__file__).parents[2]
QUICK_CONFIG = ROOT / "configs" / "quick" / "faster_rcnn_R_18_FPN_cpu.yaml"
# A toy of the same parts: 64 px, 16 training images in batches of 4, so 4 iterations are an epoch.
TOY = [
    *(
        "MODEL.DEVICE",
        "cpu",
        "INPUT.LETTERBOX",
        "64",
        "MODEL.FPN.OUT_CHANNELS",
        "32",
        "MODEL.ROI_BOX_HEAD.FC_DIM",
        "16",
    ),
    *(
        "MODEL.RPN.POST_NMS_TOPK_TRAIN",
        "50",
        "SOLVER.EPOCHS",
        "2",
        "SOLVER.STEP_EPOCHS",
        "(1,)",
        "TEST.EVAL_PERIOD_EPOCHS",
        "1",
    ),
    *("SOLVER.WARMUP_ITERS", "2", "SOLVER.BASE_LR", "0.01"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with images/, train.json and val.json of tiny synthetic radiographs."""
    folder = tmp_path_factory.mktemp("data")
    for split, count, seed in (("train", 8, 1), ("val", 3, 2)):
        dataset = build_dataset(folder / split, n_fractured=count, n_healthy=count, seed=seed, size=(96, 80))
        write_coco(dataset, folder / f"{split}.json")
    return folder


def configuration(data, output, *overrides):
    cfg = load_config(QUICK_CONFIG, [*TOY, "OUTPUT_DIR", str(output), *overrides])
    cfg.DATASETS.TRAIN = (f"{data / 'train.json'}@{data / 'train' / 'images'}",)
    cfg.DATASETS.TEST = (f"{data / 'val.json'}@{data / 'val' / 'images'}",)
    output.mkdir(exist_ok=True)
    return cfg


def history(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def command(data, output, *arguments):
    overrides = ["DATASETS.TRAIN", f"('{data}/train.json@{data}/train/images',)"]
    overrides += ["DATASETS.TEST", f"('{data}/val.json@{data}/val/images',)", "OUTPUT_DIR", str(output)]
    return [
        sys.executable,
        str(ROOT / "tools" / "train_net.py"),
        "--config-file",
        str(QUICK_CONFIG),
        *arguments,
        *TOY,
        *overrides,
    ]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a finished training of two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    train(configuration(data, folder))
    return folder


def test_training_leaves_weights_measures_and_curves(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"model_best.pth", "model_final.pth", "metrics.json", "loss_curves.png", "ap_curve.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    lines = history(trained)
    last = next(line for line in reversed(lines) if "validation_loss" in line)
    parts = ["loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"]
    assert last["validation_loss"] == pytest.approx(sum(last[f"validation_{part}"] for part in parts))
    assert {"total_loss", "lr", *parts} <= set(next(line for line in reversed(lines) if "total_loss" in line))


def test_both_epochs_are_evaluated_and_the_rate_falls_after_the_first(trained):
    lines = history(trained)
    # Detectron2 counts the iterations from 0, and the evaluation after the last one as one more.
    assert [line["iteration"] for line in lines if "bbox/AP50" in line] == [3, 8]
    assert load_checkpoint(trained / "model_final.pth")["iteration"] == 7
    assert next(line for line in reversed(lines) if "lr" in line)["lr"] == pytest.approx(0.001)


def test_of_several_sources_the_mean_decides_and_each_is_measured(data, tmp_path):
    other = tmp_path / "other"
    write_coco(build_dataset(other, n_fractured=2, n_healthy=2, seed=9, size=(96, 80)), other / "val.json")
    cfg = configuration(data, tmp_path / "run", "SOLVER.EPOCHS", "1", "SOLVER.STEP_EPOCHS", "()")
    cfg.DATASETS.TEST = (*cfg.DATASETS.TEST, f"{other / 'val.json'}@{other / 'images'}")
    train(cfg)
    last = history(tmp_path / "run")[-1]
    first = next(key for key in last if key.endswith("/bbox/AP50") and not key.startswith("other"))
    assert last["bbox/AP50"] == pytest.approx((last[first] + last["other/bbox/AP50"]) / 2)
    assert load_checkpoint(tmp_path / "run" / "model_best.pth")["model"]


def test_the_mean_over_sources_is_over_those_that_have_a_figure():
    results = OrderedDict(
        {
            "a/one/val.json@x": {"bbox": {"AP50": 10.0, "APs": float("nan"), "APl": float("nan")}},
            "a/two/val.json@y": {"bbox": {"AP50": 30.0, "APs": 4.0, "APl": float("nan")}},
        }
    )
    together = over_sources(results, list(results))
    assert list(together) == ["bbox", "one", "two"]
    assert (together["bbox"]["AP50"], together["bbox"]["APs"]) == (20.0, 4.0)
    assert math.isnan(together["bbox"]["APl"])
    assert over_sources(OrderedDict(), list(results)) == {}


def test_what_is_kept_is_the_moving_average(trained):
    final = load_checkpoint(trained / "model_final.pth")
    best = load_checkpoint(trained / "model_best.pth")
    key = "roi_heads.box_predictor.cls_score.weight"
    if best["iteration"] == final["iteration"]:
        torch.testing.assert_close(best["model"][key], final["average"][f"module.{key}"])
    assert not torch.equal(best["model"][key], final["model"][key])


def test_hooks_save_evaluate_keep_the_best_save_again_write_and_draw_in_this_order(data, tmp_path):
    cfg = configuration(data, tmp_path)
    kinds = [type(hook) for hook in FractureTrainer(cfg)._hooks]
    wanted = [
        EMAHook,
        hooks.PeriodicCheckpointer,
        hooks.EvalHook,
        BestCheckpoint,
        hooks.PeriodicCheckpointer,
        hooks.PeriodicWriter,
        PlotCurves,
    ]
    assert [kind for kind in kinds if kind in wanted] == wanted


def test_measuring_the_validation_loss_changes_nothing_and_repeats(data, tmp_path):
    cfg = configuration(data, tmp_path)
    trainer = FractureTrainer(cfg)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    first = validation_losses(trainer.model, trainer.build_validation_loader())
    torch.rand(5)
    assert validation_losses(trainer.model, trainer.build_validation_loader()) == first
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.state_dict().items())


def test_a_resumed_training_takes_over_iteration_optimizer_average_and_best(data, tmp_path, monkeypatch):
    cfg = configuration(data, tmp_path)
    whole_step = FractureTrainer.run_step

    def stop_in_the_second_epoch(self):
        if self.iter == 5:
            raise KeyboardInterrupt
        whole_step(self)

    monkeypatch.setattr(FractureTrainer, "run_step", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    monkeypatch.undo()
    saved = load_checkpoint(tmp_path / "model_0000003.pth")
    trainer = FractureTrainer(cfg, resume=True)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 4
    momentum = next(iter(trainer._trainer.optimizer.state.values()))["momentum_buffer"]
    torch.testing.assert_close(momentum, saved["trainer"]["_trainer"]["optimizer"]["state"][0]["momentum_buffer"])
    key = "roi_heads.box_predictor.cls_score.weight"
    torch.testing.assert_close(trainer.ema_model.module.state_dict()[key], saved["average"][f"module.{key}"])
    best = next(hook for hook in trainer._hooks if isinstance(hook, BestCheckpoint))
    assert best.best_iter == saved["trainer"]["hooks"]["BestCheckpoint"]["best_iter"]
    trainer.train()
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == 7


def test_an_evaluation_that_fails_loses_no_iteration(data, tmp_path, monkeypatch):
    cfg = configuration(data, tmp_path)
    monkeypatch.setattr(FractureTrainer, "test", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(cfg)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    monkeypatch.undo()
    assert FractureTrainer(cfg, resume=True)._checkpoint_iteration() == 4
    train(cfg, resume=True)
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == 7
    assert [line["iteration"] for line in history(tmp_path) if "bbox/AP50" in line] == [8]


def test_evaluations_between_checkpoints_are_preceded_by_one_too(data, tmp_path, monkeypatch):
    cfg = configuration(data, tmp_path)
    cfg.TEST.EVAL_PERIOD_EPOCHS = 0.5
    monkeypatch.setattr(FractureTrainer, "test", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(cfg)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_a_kill_while_a_checkpoint_is_saved_leaves_the_one_of_before(trained, tmp_path, monkeypatch):
    checkpointer = FractureCheckpointer(torch.nn.Linear(1, 1), str(tmp_path))
    checkpointer.save("model_0000003", iteration=3)

    def torn(data, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("model_0000003", iteration=3)
    assert load_checkpoint(tmp_path / "model_0000003.pth")["iteration"] == 3
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"


def write_metrics(folder, *iterations):
    lines = [json.dumps({"iteration": iteration, "total_loss": 1.0}) for iteration in iterations]
    (folder / "metrics.json").write_text("\n".join(lines) + '\n{"iteration": 9, "tot')


@pytest.mark.parametrize(("start", "kept"), [(0, []), (4, [1, 4])])
def test_curves_never_mix_two_runs_nor_what_came_after_the_checkpoint(tmp_path, start, kept):
    write_metrics(tmp_path, 1, 4, 5, 7)
    with (tmp_path / "metrics.json").open("a") as writer:  # as the writer of metrics holds it
        hook = PlotCurves(tmp_path, 4, 4)
        hook.trainer = SimpleNamespace(start_iter=start)
        hook.before_train()
        writer.write(json.dumps({"iteration": 8, "total_loss": 1.0}) + "\n")
    assert [line["iteration"] for line in history(tmp_path)] == [*kept, 8]
    hook.draw()
    assert (tmp_path / "loss_curves.png").exists()


def test_without_resume_a_training_starts_anew_in_the_same_folder(data, trained, tmp_path):
    cfg = configuration(data, tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    (tmp_path / "model_final.pth").write_bytes((trained / "model_final.pth").read_bytes())
    trainer = FractureTrainer(cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.start_iter == 0


def test_the_moving_average_warms_up_to_its_decay():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = build_ema_model(layer, 0.5)
    values, expected = [1.0, 0.0, 0.0, 4.0], 1.0
    # n = 0 copies 1; n = 1: decay 2/11; n = 2: 3/12; n = 3: 4/13 (all below .5).
    for n, value in enumerate(values):
        layer.weight.data.fill_(value)
        average.update_parameters(layer)
        decay = (1 + n) / (10 + n)
        expected = expected if n == 0 else decay * expected + (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(expected)
    for _ in range(20):
        average.update_parameters(layer)
    before = average.module.weight.item()
    layer.weight.data.fill_(before + 2.0)
    average.update_parameters(layer)
    assert average.module.weight.item() == pytest.approx(before + 1.0)  # the decay has reached .5


class Scripted:
    """Stands in for a checkpointer and a trainer whose validation AP50 is written in advance."""

    def __init__(self, values):
        self.values = values
        self.saved = []
        self.max_iter = 100

    def save(self, name, **state):
        self.saved.append((name, state["iteration"]))

    def run(self, hook):
        hook.trainer = self
        with EventStorage() as self.storage:
            for iteration, value in enumerate(self.values):
                self.iter = self.storage.iter = iteration
                for metric in ("bbox/AP50", "validation_loss"):
                    self.storage.put_scalar(metric, value)
                hook.after_step()


def test_the_best_is_kept_and_two_evaluations_without_a_better_one_stop():
    script = Scripted([10.0, 30.0, 20.0, 25.0, 99.0])
    hook = BestCheckpoint(1, script, patience=2)
    with pytest.raises(EarlyStopping):
        script.run(hook)
    assert script.saved == [("model_best", 0), ("model_best", 1)]
    assert script.iter == 3
    assert hook.state_dict() == {"best_metric": 30.0, "best_iter": 1, "evaluations_since_best": 2}


def test_where_types_alone_are_trained_the_lowest_loss_is_kept():
    script = Scripted([3.0, 2.0, 5.0, 2.5])
    script.run(BestCheckpoint(1, script, 0, TYPE_METRIC))
    assert script.saved == [("model_best", 0), ("model_best", 1)]


def test_a_resumed_training_does_not_overwrite_a_better_model():
    script = Scripted([20.0])
    hook = BestCheckpoint(1, script, patience=0)
    hook.load_state_dict({"best_metric": 30.0, "best_iter": 1, "evaluations_since_best": 0})
    script.run(hook)
    assert script.saved == []


def test_an_early_stop_ends_training_without_an_error(data, tmp_path, monkeypatch):
    monkeypatch.setattr(FractureTrainer, "evaluate", lambda self: {"bbox": {"AP50": 1.0}})
    train(configuration(data, tmp_path, "SOLVER.EPOCHS", "9", "TEST.PATIENCE", "1"))
    # The first epoch is the best, the second no better: stopped at its end, iteration 7 of 36.
    assert load_checkpoint(tmp_path / "model_0000003.pth")["iteration"] == 3
    assert not (tmp_path / "model_final.pth").exists()


def test_a_killed_training_goes_on_where_it_was(data, tmp_path):
    run = command(data, tmp_path)
    process = subprocess.Popen([*run, "SOLVER.EPOCHS", "50"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (tmp_path / "last_checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = load_checkpoint(tmp_path / (tmp_path / "last_checkpoint").read_text())["iteration"]
    epochs = (reached + 1) // 4 + 1
    marker = run.index("--config-file")
    again = [*run[:marker], "--resume", *run[marker:], "SOLVER.EPOCHS", str(epochs)]
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Starting training from iteration {reached + 1}" in done.stdout
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == epochs * 4 - 1


@pytest.mark.slow
def test_two_processes_train_on_one_machine_without_a_gpu(data, tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = command(data, tmp_path, "--num-gpus", "2")
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Rank of current process: 0. World size: 2" in done.stdout
    assert [line["iteration"] for line in history(tmp_path) if "validation_loss" in line] == [3, 8]
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == 7


def test_mixed_precision_is_used_where_the_processor_has_it(data, tmp_path, monkeypatch):
    from fracture_det.training.trainer import BFloat16Step, step_class

    cfg = configuration(data, tmp_path)
    for supported, kind in ((True, BFloat16Step), (False, SimpleTrainer)):
        monkeypatch.setattr("fracture_det.training.trainer.cpu_has_bfloat16", lambda supported=supported: supported)
        assert step_class(cfg) is kind
    cfg.SOLVER.AMP.ENABLED = False
    monkeypatch.setattr("fracture_det.training.trainer.cpu_has_bfloat16", lambda: True)
    assert step_class(cfg) is SimpleTrainer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "nowhere.yaml: no such configuration file"),
        (["--config-file", str(QUICK_CONFIG), "--num-gpus", "0"], "--num-gpus: expected at least 1, got 0"),
        (["--config-file", str(QUICK_CONFIG)], "no training data: give --data and --images"),
        (["--config-file", str(QUICK_CONFIG), "--data", "x"], "1 --data folders need as many --images folders, got 0"),
        (["--config-file", str(QUICK_CONFIG), "--data", "x", "--images", "y"], "--data x: no such folder"),
    ],
)
def test_the_tool_says_what_is_wrong_before_it_trains(arguments, message, capsys):
    assert train_net.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_more_processes_than_gpus_are_an_error(monkeypatch, caplog, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    arguments = ["--config-file", str(QUICK_CONFIG), "--data", "x", "--images", "y", "--num-gpus", "3"]
    assert train_net.main(arguments) == 2
    assert "--num-gpus 3: PyTorch finds 2 on this machine" in capsys.readouterr().err
    assert train_net.main([*arguments, "MODEL.DEVICE", "cpu"]) == 2
    assert "--data x: no such folder" in capsys.readouterr().err
    assert caplog.messages == []


def test_several_processes_without_a_gpu_are_warned_of(monkeypatch, caplog, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    arguments = ["--config-file", str(QUICK_CONFIG), "--data", "x", "--images", "y"]
    train_net.main(arguments)
    assert caplog.messages == []
    train_net.main([*arguments, "--num-gpus", "2"])
    assert caplog.messages == ["--num-gpus 2: PyTorch finds no GPU, so as many processes train on the CPU"]
