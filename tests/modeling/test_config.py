"""Configurations: the paper's numbers, epochs, and clear errors."""

import logging
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer

from fracture_det.inference.registry import open_detector
from fracture_det.modeling.architectures.base import Architecture
from fracture_det.modeling.config import RENAMED_KEYS, ConfigError, default_config, load_config, resolve_epochs
from tests.detectors import write_random_detector

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = f"_BASE_: {CONFIGS / 'Base-Fracture.yaml'}\n"
LEAVES = sorted(
    path
    for path in CONFIGS.rglob("*.yaml")
    if not path.name.startswith(("Base", "recipe", "reproduction", "sources", "fracture_types", "gate"))
)


@pytest.fixture(scope="module")
def paper():
    return load_config(CONFIGS / "faster_rcnn_R_50_paper.yaml", ["MODEL.DEVICE", "cpu"])


@pytest.fixture(scope="module")
def paper_model(paper):
    cfg = paper.clone()
    cfg.MODEL.WEIGHTS = ""
    return build_model(cfg)


def test_the_papers_model_has_nine_anchors_per_location_on_one_feature_map(paper_model):
    generator = paper_model.proposal_generator.anchor_generator
    assert generator.num_anchors == [9]
    anchors = next(generator.cell_anchors.buffers())
    sides = anchors[:, 2:] - anchors[:, :2]
    assert sides.prod(dim=1).sqrt().round().tolist() == [128.0] * 3 + [256.0] * 3 + [512.0] * 3
    assert sorted({round(float(h / w), 2) for w, h in sides}) == [0.5, 1.0, 2.0]
    assert list(paper_model.backbone.output_shape()) == ["res4"]
    assert paper_model.backbone.output_shape()["res4"].stride == 16


def test_the_papers_model_matches_pools_and_suppresses_as_the_table_says(paper_model):
    rpn = paper_model.proposal_generator
    assert (rpn.anchor_matcher.thresholds[1:-1], rpn.anchor_matcher.labels) == ([0.3, 0.7], [0, -1, 1])
    assert rpn.post_nms_topk == {True: 2000, False: 300}
    heads = paper_model.roi_heads
    assert [type(layer).__name__ for layer in heads.box_head.children() if "Linear" in type(layer).__name__] == [
        "Linear",
        "Linear",
    ]
    assert type(heads.box_pooler.level_poolers[0]).__name__ == "ROIAlign"
    assert heads.box_predictor.test_nms_thresh == 0.5
    assert rpn.box_reg_loss_type == heads.box_predictor.box_reg_loss_type == "smooth_l1"
    assert rpn.smooth_l1_beta == pytest.approx(1 / 9, abs=1e-3)
    assert heads.box_predictor.smooth_l1_beta == 1.0


def test_every_layer_of_the_papers_backbone_is_trained(paper_model):
    assert all(parameter.requires_grad for parameter in paper_model.backbone.parameters())


def test_the_papers_preprocessing(paper, paper_model):
    assert paper.INPUT.LETTERBOX == 800
    assert torch.allclose(paper_model.pixel_mean.flatten() / 255, torch.tensor([0.485, 0.456, 0.406]))
    assert torch.allclose(paper_model.pixel_std.flatten() / 255, torch.tensor([0.229, 0.224, 0.225]))
    assert paper.INPUT.FORMAT == "RGB"
    assert paper.INPUT.RANDOM_FLIP == "horizontal"
    assert paper.INPUT.CROP.ENABLED
    assert paper.INPUT.BRIGHTNESS == (0.8, 1.2)
    assert not paper.DATALOADER.FILTER_EMPTY_ANNOTATIONS


def test_the_papers_solver_drops_the_rate_after_epochs_8_and_11(paper, paper_model):
    # 3,201 images are 80 % of 4,001; two a batch: 1,600 iterations an epoch, 12 epochs: 19,200.
    cfg = resolve_epochs(paper, 3201)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.TEST.EVAL_PERIOD) == (19_200, (12_800, 17_600), 1600)
    optimizer = build_optimizer(cfg, paper_model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["momentum"], cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.IMS_PER_BATCH) == (0.9, 0.0005, 2)
    rates = {}
    for iteration in range(1, cfg.SOLVER.MAX_ITER):
        optimizer.step()
        scheduler.step()
        if iteration in (12_799, 12_800, 17_599, 17_600):
            rates[iteration] = group["lr"]
    assert rates == pytest.approx({12_799: 5e-3, 12_800: 5e-4, 17_599: 5e-4, 17_600: 5e-5})


def test_the_scratch_ablation_is_the_papers_model_from_random_weights(paper):
    scratch = load_config(CONFIGS / "faster_rcnn_R_50_scratch.yaml", ["MODEL.DEVICE", "cpu"])
    assert scratch.MODEL.WEIGHTS == ""
    assert scratch.MODEL.RESNETS.NORM == "GN"
    scratch.MODEL.WEIGHTS, scratch.MODEL.RESNETS.NORM = paper.MODEL.WEIGHTS, paper.MODEL.RESNETS.NORM
    scratch.MODEL.TITLE = paper.MODEL.TITLE
    assert scratch == paper


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_every_configuration_builds_a_model(path):
    cfg = load_config(path, ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    if isinstance(model, Architecture):
        assert type(model).__name__ == cfg.MODEL.META_ARCHITECTURE
        found = model.eval()([{"image": torch.zeros(3, 64, 64, dtype=torch.uint8)}])
        assert len(found[0]["instances"].pred_boxes) <= cfg.TEST.DETECTIONS_PER_IMAGE
        return
    features = model.backbone.output_shape()
    assert set(cfg.MODEL.RPN.IN_FEATURES) <= set(features)
    assert len(model.proposal_generator.anchor_generator.num_anchors) == len(cfg.MODEL.RPN.IN_FEATURES)


def test_epochs_0_keeps_the_iterations_as_written(paper):
    cfg = paper.clone()
    cfg.SOLVER.EPOCHS, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 0, 50, (30, 60)
    resolved = resolve_epochs(cfg, 100)
    assert (resolved.SOLVER.MAX_ITER, resolved.SOLVER.STEPS) == (50, (30,))


@pytest.mark.parametrize(("written", "period"), [(5000, 1600), (400, 400)])
def test_a_checkpoint_is_saved_every_epoch_or_more_often_as_written(paper, written, period):
    cfg = paper.clone()
    cfg.defrost()
    cfg.SOLVER.CHECKPOINT_PERIOD = written
    saved_every = resolve_epochs(cfg, 3201).SOLVER.CHECKPOINT_PERIOD
    assert saved_every == period


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.NO_SUCH_KEY", "1"], "NO_SUCH_KEY"),
        (["SOLVER.EPOCHS", "many"], "EPOCHS"),
        (["SOLVER.EPOCHS"], "KEY VALUE pairs"),
        (["DATASETS.CLASS_NAMES", "('a', 'b')"], "NUM_CLASSES is 1"),
        (["DATALOADER.SOURCE_WEIGHTS", "(1, 0)"], r"SOURCE_WEIGHTS: expected numbers above 0, got \[1, 0\]"),
        (["DATALOADER.FRACTURED_SHARE", "1.0"], "FRACTURED_SHARE: expected 0 <= share < 1, got 1.0"),
        (["INPUT.LETTERBOX_STEP", "100"], "INPUT.LETTERBOX_STEP: expected 0 or a multiple of 32 px, .* got 100"),
        (["INPUT.LETTERBOX_STEP", "-32"], "INPUT.LETTERBOX_STEP: expected 0 or a multiple of 32 px, .* got -32"),
        (["INPUT.ROTATION", "-5.0"], "INPUT.ROTATION: expected degrees from 0 to 180, got -5.0"),
        (["INPUT.DEGRADATION", "1.5"], "INPUT.DEGRADATION: expected a probability from 0 to 1, got 1.5"),
        (["INPUT.GAMMA", "(0.0, 2.0)"], r"INPUT.GAMMA: expected \(low, high\), both above 0"),
        (["SOLVER.STEP_EPOCHS", "(11, 8)"], "ascending"),
        (
            ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "no_such_net"],
            r"MODEL.TIMM.NAME: timm \S+ has no network 'no_such_net'",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS / "faster_rcnn_R_50_FPN.yaml", overrides)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such configuration file"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "odd.yaml").write_text("MODEL:\n  COLOUR: red\nVERSION: 2\n")
    with pytest.raises(ConfigError, match=r"odd\.yaml: .*COLOUR"):
        load_config(tmp_path / "odd.yaml")
    (tmp_path / "old.yaml").write_text("VERSION: 1\n")
    with pytest.raises(ConfigError, match=r"old\.yaml: VERSION: expected 2, got 1"):
        load_config(tmp_path / "old.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"empty\.yaml: expected keys with values, got None"):
        load_config(tmp_path / "empty.yaml")
    (tmp_path / "leaf.yaml").write_text("_BASE_: gone.yaml\n")
    with pytest.raises(ConfigError, match=r"leaf\.yaml: .*gone\.yaml"):
        load_config(tmp_path / "leaf.yaml")


def test_a_file_that_could_run_code_is_refused_and_does_not_run(tmp_path, capsys):
    (tmp_path / "evil.yaml").write_text("OUTPUT_DIR: !!python/object/apply:print [this ran]\nVERSION: 2\n")
    with pytest.raises(ConfigError, match=r"evil\.yaml: .*could not determine a constructor"):
        load_config(tmp_path / "evil.yaml")
    assert "this ran" not in capsys.readouterr().out


class TestRenamedKeys:
    def test_every_new_name_is_a_key_and_no_old_one_is(self):
        text = default_config().dump()
        for old, new in RENAMED_KEYS.items():
            assert f" {new.rpartition('.')[2]}:" in text
            assert f" {old.rpartition('.')[2]}:" not in text

    def test_a_saved_configuration_of_before_is_read_with_warnings(self, caplog):
        path = Path(__file__).with_name("saved_config_of_before.yaml")  # of weights/shipped/resnet, before the renaming
        cfg = load_config(path)
        assert (cfg.INPUT.ROTATION, cfg.TEST.EVAL_PERIOD_EPOCHS) == (12.0, 1)
        assert f"{path}: the key INPUT.TILT is now called INPUT.ROTATION" in caplog.messages
        assert f"{path}: the key TEST.EVAL_EPOCHS is now called TEST.EVAL_PERIOD_EPOCHS" in caplog.messages

    def test_an_override_of_before_is_read_with_a_warning(self, caplog):
        cfg = load_config(CONFIGS / "faster_rcnn_R_50_FPN.yaml", ["INPUT.TILT", "7.5", "SOLVER.BASE_LR", "0.1"])
        assert (cfg.INPUT.ROTATION, cfg.SOLVER.BASE_LR) == (7.5, 0.1)
        assert "the key INPUT.TILT is now called INPUT.ROTATION" in caplog.messages

    def test_a_leaf_of_before_overrides_a_base_of_now_and_the_other_way_round(self, tmp_path):
        (tmp_path / "base.yaml").write_text(f"{BASE}INPUT: {{ROTATION: 3.0}}\nTEST: {{EVAL_EPOCHS: 4}}\n")
        (tmp_path / "leaf.yaml").write_text("_BASE_: base.yaml\nINPUT: {TILT: 5.0}\nTEST: {EVAL_PERIOD_EPOCHS: 6}\n")
        cfg = load_config(tmp_path / "leaf.yaml")
        assert (cfg.INPUT.ROTATION, cfg.TEST.EVAL_PERIOD_EPOCHS) == (5.0, 6)

    def test_both_names_in_one_file_contradict_each_other(self, tmp_path):
        (tmp_path / "both.yaml").write_text("INPUT: {TILT: 5.0, ROTATION: 6.0}\nVERSION: 2\n")
        with pytest.raises(ConfigError, match=r"both\.yaml: INPUT.TILT is the earlier name of INPUT.ROTATION"):
            load_config(tmp_path / "both.yaml")

    def test_a_checkpoint_folder_of_before_opens(self, tmp_path):
        folder = write_random_detector(tmp_path / "run")
        config = folder / "config.yaml"
        text = config.read_text()
        for old, new in RENAMED_KEYS.items():
            text = text.replace(f"  {new.rpartition('.')[2]}:", f"  {old.rpartition('.')[2]}:")
        assert text != config.read_text()
        config.write_text(text)
        assert open_detector(f"d2:{folder}")


class TestWithoutAGpu:
    @pytest.fixture(autouse=True)
    def no_gpu(self, monkeypatch, caplog):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        caplog.set_level(logging.INFO)

    def test_nobody_named_a_device(self, caplog):
        assert load_config(CONFIGS / "faster_rcnn_R_50_FPN.yaml").MODEL.DEVICE == "cpu"
        assert [(record.levelname, record.message) for record in caplog.records] == [("INFO", "no GPU: using the CPU")]

    def test_a_file_that_says_cuda_is_warned_of(self, tmp_path, caplog):
        (tmp_path / "gpu.yaml").write_text(f"{BASE}MODEL: {{DEVICE: 'cuda:1'}}\n")
        assert load_config(tmp_path / "gpu.yaml").MODEL.DEVICE == "cpu"
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.message.endswith(
            "gpu.yaml: MODEL.DEVICE is cuda:1, but PyTorch finds no GPU on this machine: using the CPU"
        )

    def test_an_override_that_says_cuda_is_an_error(self):
        with pytest.raises(ConfigError, match=r"MODEL\.DEVICE cuda: PyTorch finds no GPU on this machine"):
            load_config(CONFIGS / "faster_rcnn_R_50_FPN.yaml", ["MODEL.DEVICE", "cuda"])

    def test_the_cpu_by_name_needs_no_word(self, caplog):
        assert load_config(CONFIGS / "faster_rcnn_R_50_FPN.yaml", ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE == "cpu"
        assert caplog.records == []


def test_a_gpu_that_is_there_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_config(CONFIGS / "faster_rcnn_R_50_FPN.yaml").MODEL.DEVICE == "cuda"
