"""The mean of networks: of each tensor, by the shares; other networks are refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fracture_det.cli.average import main
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.detectron2 import D2Detector
from fracture_det.modeling.averaging import average_weights
from fracture_det.modeling.checkpoints import WeightsError
from fracture_det.resources import resource


def saved(folder, name, **tensors):
    save_file(tensors, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def test_each_tensor_is_the_weighted_mean(tmp_path):
    first = saved(tmp_path, "first", weight=torch.tensor([[1.0, 2.0]]).half(), steps=torch.tensor(7))
    second = saved(tmp_path, "second", weight=torch.tensor([[5.0, 6.0]]).half(), steps=torch.tensor(9))
    mean = average_weights([first, second], [3, 1])
    assert mean["weight"].dtype == torch.float32
    assert mean["weight"].tolist() == [[2.0, 3.0]]
    assert mean["steps"].item() == 7
    assert average_weights([first, second], [0.5, 0.5])["weight"].tolist() == [[3.0, 4.0]]


def test_other_networks_are_refused_by_the_name_of_the_tensor(tmp_path):
    first = saved(tmp_path, "first", weight=torch.zeros(2, 2))
    with pytest.raises(WeightsError, match=r"second.safetensors: weight is \[3, 2\], in .*first.safetensors \[2, 2\]"):
        average_weights([first, saved(tmp_path, "second", weight=torch.zeros(3, 2))], [1, 1])
    with pytest.raises(WeightsError, match=r"third.safetensors: has bias, .*first.safetensors has not"):
        average_weights([first, saved(tmp_path, "third", weight=torch.zeros(2, 2), bias=torch.zeros(2))], [1, 1])
    with pytest.raises(WeightsError, match=r"first.safetensors: has weight, .*fourth.safetensors has not"):
        average_weights([first, saved(tmp_path, "fourth", zeros=torch.zeros(2, 2))], [1, 1])
    for shares in ([1], [1, 0], [1, -1], [1, float("inf")]):
        with pytest.raises(ValueError, match="a share above 0 for each"):
            average_weights([first, first], shares)


def test_the_tool_writes_a_detector(tmp_path, capsys):
    shipped, other, out = resource("weights/shipped/resnet"), tmp_path / "other", tmp_path / "mean"
    other.mkdir()
    shutil.copyfile(shipped / "config.yaml", other / "config.yaml")
    weights = load_file(shipped / "model.safetensors")
    key = "roi_heads.box_predictor.cls_score.bias"
    save_file({**weights, key: weights[key] + 3}, other / "model.safetensors")
    write_checksums(other / "config.yaml", other / "model.safetensors")
    arguments = ["--detector", f"d2:{shipped}=2", "--detector", f"d2:{other}", "--out", str(out)]
    assert main(arguments) == 0
    mean = load_file(out / "model.safetensors")
    torch.testing.assert_close(mean[key], weights[key] + 1)
    assert D2Detector.open(str(out)).info.class_names == D2Detector.open(str(shipped)).info.class_names
    assert f"{out}: the mean of 2 x {shipped}, 1 x {other}" in capsys.readouterr().out


def test_what_is_wrong_is_one_sentence(tmp_path, capsys):
    shipped = resource("weights/shipped")
    arguments = ["--detector", f"d2:{shipped}/resnet", "--detector", f"d2:{shipped}/efficientnet"]
    assert main([*arguments, "--out", str(tmp_path / "mean")]) == 2
    assert "model.safetensors: has backbone.bottom_up." in capsys.readouterr().err
    assert main([*arguments[:2], "--detector", f"d2:{tmp_path}", "--out", str(tmp_path / "mean")]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    for wrong in (["--detector", "shipped"], ["--detector", f"d2:{tmp_path}=0"], ["--detector", f"d2:{tmp_path}=many"]):
        with pytest.raises(SystemExit):
            main([*arguments, *wrong, "--out", str(tmp_path / "mean")])
        assert "with a share above 0" in capsys.readouterr().err
    for few in ([*arguments[:2], "--out", str(tmp_path)], [*arguments, "--out", f"{shipped}/resnet"]):
        with pytest.raises(SystemExit):
            main(few)
