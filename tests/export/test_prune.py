"""Pruning: whole channels go, what is left is a start that opens, trains and exports."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fracture_det.export.prune import prune
from fracture_det.export.verify import ExportError
from fracture_det.inference.registry import open_detector
from fracture_det.modeling.backbones import fold_frozen_norms
from fracture_det.modeling.checkpoints import WeightsError, load_checkpoint
from fracture_det.modeling.config import load_config
from tests.detectors import write_random_detector

TIMM = (
    "MODEL.FPN.NORM",
    "",
    "MODEL.BACKBONE.NAME",
    "build_timm_fpn_backbone",
    "MODEL.TIMM.NAME",
    "tf_efficientnet_lite0",
)
FROZEN = ("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "", "MODEL.BACKBONE.FREEZE_AT", "2")
NETWORKS = pytest.mark.parametrize("overrides", [FROZEN, TIMM], ids=["FrozenBN", "EfficientNet"])
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def n_parameters(folder):
    state = load_checkpoint(folder / "model.safetensors")["model"]
    return sum(value.numel() for key, value in state.items() if "bottom_up" in key)


@NETWORKS
def test_folding_changes_no_prediction(overrides, tmp_path):
    write_random_detector(tmp_path, overrides=overrides)
    plain, folded = (open_detector(f"d2:{tmp_path}") for _ in range(2))
    fold_frozen_norms(folded.predictor.model.backbone)
    (expected,), (found,) = plain.predict([IMAGE]), folded.predict([IMAGE])
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    kinds = {type(module).__name__ for module in folded.predictor.model.backbone.modules()}
    assert not kinds & {"FrozenBatchNorm2d", "FrozenNormConv2d"}


@NETWORKS
def test_what_is_left_is_smaller_and_opens(overrides, tmp_path):
    write_random_detector(tmp_path / "whole", overrides=overrides)
    said = prune(str(tmp_path / "whole"), tmp_path / "pruned", 0.5)
    assert said.startswith("the backbone keeps ")
    assert n_parameters(tmp_path / "pruned") < 0.45 * n_parameters(tmp_path / "whole")
    pruned = open_detector(f"d2:{tmp_path / 'pruned'}")
    assert pruned.info.name.startswith("Faster R-CNN R18-FPN quick pruned ")
    assert len(pruned.predict([IMAGE])) == 1
    backbone = pruned.predictor.model.backbone.bottom_up
    assert all(
        conv.weight.shape == (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
        for conv in backbone.modules()
        if isinstance(conv, torch.nn.Conv2d)
    )


def test_the_channels_of_least_norm_go(tmp_path):
    # FrozenBN begins as the identity, so the convolutions alone say what counts.
    write_random_detector(tmp_path / "whole", overrides=FROZEN)
    state = load_checkpoint(tmp_path / "whole" / "model.safetensors")["model"]
    key = "backbone.bottom_up.res2.0.conv1.weight"
    strong = state[key].shape[0] // 2
    state[key][::2] *= 1e-3
    state[key.replace("conv1", "conv2")][:, ::2] *= 1e-3
    save_file(state, tmp_path / "whole" / "model.safetensors")
    prune(str(tmp_path / "whole"), tmp_path / "pruned", 0.5)
    left = load_checkpoint(tmp_path / "pruned" / "model.safetensors")["model"][key]
    assert len(left) == strong
    assert left.flatten(1).norm(dim=1).min() > 0.1 * state[key][1::2].flatten(1).norm(dim=1).min()


def test_other_norms_are_refused(tmp_path):
    with pytest.raises(ExportError, match="its convolutions hold GroupNorm; only FrozenBN can be pruned"):
        prune(str(write_random_detector(tmp_path / "whole")), tmp_path / "pruned", 0.5)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -1])
def test_a_share_outside_is_refused(ratio, tmp_path):
    with pytest.raises(ExportError, match=f"--prune: expected a share between 0 and 1, got {ratio}"):
        prune("nowhere", tmp_path, ratio)


def test_weights_of_another_network_are_named(tmp_path):
    write_random_detector(tmp_path / "whole", overrides=TIMM)
    prune(str(write_random_detector(tmp_path / "other", overrides=FROZEN)), tmp_path / "pruned", 0.5)
    cfg = load_config(tmp_path / "whole" / "config.yaml", ["MODEL.PRUNED", "True"])
    (tmp_path / "pruned" / "config.yaml").write_text(cfg.dump())
    (tmp_path / "pruned" / "SHA256SUMS").unlink()
    with pytest.raises((WeightsError, ValueError), match="not the pruned weights of this configuration, no backbone"):
        open_detector(f"d2:{tmp_path / 'pruned'}")
